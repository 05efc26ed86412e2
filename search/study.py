"""The study: a folder and an Optuna journal that hold the whole truth of a search. The only writer is the driver."""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from search.journal import Journal, directions
from search.known import Known
from search.objectives import Objective
from search.priors import save_prior
from search.space import Space

log = logging.getLogger(__name__)

STUDIES = Path("studies")
"""Folder of all studies, in the folder where a command is given."""


class StudyError(Exception):
    """A study cannot be opened or made; the message says what to do."""


class Study(Journal):
    """One search in its folder: the journal, and beside it the space, the films and the checkpoints."""

    def __init__(self, folder: Path, *, follow: bool = False):
        """Open a study; follow: another process writes it. Raises StudyError if there is none."""
        self.folder = folder
        if not (folder / "journal.log").exists():
            raise StudyError(f"{folder}: there is no study here")
        try:
            storage = _open_storage(folder)
            studies = storage.get_all_studies()
        except (ValueError, LookupError, TypeError, AssertionError) as fault:
            raise StudyError(_damage(folder / "journal.log", fault)) from None
        if not studies:
            raise StudyError(f"{folder}: the journal holds no study; start again with --fresh")
        self.name = studies[0].study_name
        facts = storage.get_study_user_attrs(studies[0]._study_id)
        super().__init__(storage, studies[0]._study_id, Objective.of_space(facts["space"]), follow)

    @classmethod
    def create(
        cls, folder: Path, space: Space, facts: dict[str, Any], films: pd.DataFrame, prior: Sequence[Known] = ()
    ) -> "Study":
        """Make a study's folder and journal.

        facts: what it must remember about its data, seed and environment. films: image, patient, split and labels
        of the films that trials may see. prior: trials of an earlier study. The folder appears whole or not at all.
        """
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "trials").mkdir(parents=True)
        space.save(partial)
        films.to_parquet(partial / "films.parquet", index=False)
        if prior:
            save_prior(partial, prior)
        storage = _open_storage(partial)
        study = storage.create_new_study(directions(space.objective), folder.name)
        for key, value in {"space": space.tree, "created": time.time(), **facts}.items():
            storage.set_study_user_attr(study, key, value)
        partial.rename(folder)
        return cls(folder)

    @classmethod
    def find(cls, name: str, *, follow: bool = False) -> "Study":
        """Open a study by its name in `studies/` or by its folder. Raises StudyError if there is none."""
        return cls(cls.place(name), follow=follow)

    @staticmethod
    def place(name: str) -> Path:
        """The folder of a study that is named, or is given by its folder; there may be none."""
        inside = STUDIES / name
        return Path(name) if Path(name).is_dir() and not inside.is_dir() else inside

    @staticmethod
    @contextmanager
    def lock(folder: Path) -> Iterator[None]:
        """Be the only driver of a study; the lock ends with the process. Raises StudyError if another one has it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StudyError(f"{folder}: this study is running in another process") from None
        try:
            yield
        finally:
            lock.release()

    @staticmethod
    def is_running(folder: Path) -> bool:
        """Whether a driver holds the study. The lock asked for is shared, so that two who ask never seem a driver."""
        folder = folder.resolve()
        try:
            with folder.with_name(f".{folder.name}.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def adopt(self, space: Space) -> list[tuple[str, Any, Any]]:
        """Go on with a space that has changed; returns what changed, as key, old and new value.

        Raises StudyError if the task, the films or the objective differ: the trials so far would not be comparable.
        """
        before, now = self.facts["space"], space.tree
        if differing := [key for key in _lasting(before, now) if _at(before, key) != _at(now, key)]:
            raise StudyError(
                f"{self.folder}: the space differs from the study's in {', '.join(differing)}, so its trials could not "
                "be compared. Leave --space out to go on as before, or start another study with --study NAME"
            )
        changes = list(_changes(before, now))
        if changes:
            space.save(self.folder)
            self.note("space", now)
        return changes

    @staticmethod
    def repair(folder: Path) -> None:
        """Cut what a crash or a full disk left damaged at the journal's end; it was never acknowledged."""
        journal = folder / "journal.log"
        if not journal.exists():
            return
        with journal.open("r+b") as file:
            content = file.read()
            whole = len(content)
            while whole and not _is_entry(content[content.rfind(b"\n", 0, whole - 1) + 1 : whole]):
                whole = content.rfind(b"\n", 0, whole - 1) + 1
            if whole < len(content):
                log.warning("%s: cut %d damaged bytes at its end", journal, len(content) - whole)
                file.truncate(whole)

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoints, and the traceback of its error."""
        return self.folder / "trials" / f"{number:05d}"

    def optuna_study(self) -> optuna.Study:
        """The study as Optuna's own, for its plots."""
        return optuna.load_study(study_name=self.name, storage=self._storage)


def _lasting(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Keys of a space that hold for a study's life: what one trial reached must mean the same for another."""
    staged = any(_at(tree, "asha.fidelity") not in (None, "schedule") for tree in (before, now))
    return [
        "task",
        "data",
        "objective",
        "constraints",
        *(["asha.fidelity", "asha.rungs", "asha.mode"] if staged else []),
    ]


def _at(tree: Any, key: str) -> Any:
    """The value at a dotted key, None if there is none."""
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _changes(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two trees differ, by dotted key; a key that one lacks is None there."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        if before != now:
            yield key, before, now
        return
    for name in {**before, **now}:
        yield from _changes(before.get(name), now.get(name), f"{key}.{name}" if key else name)


def _is_entry(line: bytes) -> bool:
    """Whether a line of a journal is whole: an operation and its newline."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and isinstance(entry, dict) and "op_code" in entry


def _damage(journal: Path, fault: Exception) -> str:
    """Where a journal that does not open is damaged, and what to do."""
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = [_is_entry(line) for line in lines]
    if all(whole):
        return f"{journal} is damaged: {type(fault).__name__}: {fault}; put back a copy of it, or start with --fresh"
    first = whole.index(False)
    if any(whole[first:]):
        remedy = "entries after it depend on it, so put back a copy of the file, or start again with --fresh"
    else:
        remedy = "--resume cuts a damaged end, of which nothing had been acknowledged"
    return f"{journal}:{first + 1}: damaged; {remedy}"


def _open_storage(folder: Path) -> JournalStorage:
    lock = _FlockLock(folder / "journal.lock")
    return JournalStorage(_WholeEntries(str(folder / "journal.log"), lock_obj=lock))


class _WholeEntries(JournalFileBackend):
    """A journal file that a full disk leaves as it was: what was written of an entry is taken back."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        before = os.path.getsize(self._file_path)
        try:
            super().append_logs(logs)
        except OSError:
            os.truncate(self._file_path, before)
            raise


class _FlockLock(JournalFileOpenLock):
    """A lock of the journal that the system releases with its holder: Optuna's own outlives a kill by 30 seconds."""

    def __init__(self, path: Path):
        self._path = path
        self._file: Any = None

    def acquire(self) -> bool:
        self._file = self._path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        self._file.close()
