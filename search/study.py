"""The study: a folder and an Optuna journal that hold the whole truth of a search. The only writer is the driver."""

import dataclasses
import fcntl
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from cxr_core.config import SEARCHABLE
from cxr_core.registry import Scalar
from search.rungs import Rungs
from search.searchers import propose, searchers
from search.space import Baseline, Space

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.ERROR)


STUDIES = Path("studies")
"""Folder of all studies, in the folder where a command is given."""


class StudyError(Exception):
    """A study cannot be opened or made; the message says what to do."""


class Outcome(StrEnum):
    """How a trial ended, or OPEN while it has not."""

    OPEN = "open"
    FULL = "full"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    ERROR = "error"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a trial, as the study keeps it."""

    epoch: int
    value: float
    train_loss: float
    metrics: dict[str, float | None]
    auroc: dict[str, float | None]
    films_per_second: float
    seconds: float
    peak_memory: int
    checkpoint: str
    at: float


@dataclass(frozen=True)
class Trial:
    """One configuration and all that happened to it."""

    number: int
    flat: dict[str, Scalar]
    seed: int
    baseline: str | None
    epochs: tuple[EpochRecord, ...]
    attempts: int
    outcome: Outcome
    reason: str
    value: float | None
    started: float

    @property
    def schedule(self) -> int:
        """Epochs of a full training."""
        return int(self.flat["epochs"])  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def name(self) -> str:
        """What to call the trial in tables: its number, and its recipe if it is a baseline."""
        return f"{self.number} {self.baseline}" if self.baseline else str(self.number)


class Study:
    """One search. Everything that decides (rungs, searcher) is a function of it, so it survives any crash."""

    def __init__(self, folder: Path, *, create: str | None = None, maximize: bool = True):
        """Open a study's journal, or make one under the name `create`. Raises StudyError if there is none."""
        self.folder = folder
        journal = folder / "journal.log"
        if not create and not journal.exists():
            raise StudyError(f"{folder}: there is no study here")
        backend = JournalFileBackend(str(journal), lock_obj=_FlockLock(folder / "journal.lock"))
        self._storage = JournalStorage(backend)
        if create:
            direction = optuna.study.StudyDirection.MAXIMIZE if maximize else optuna.study.StudyDirection.MINIMIZE
            optuna.create_study(study_name=create, storage=self._storage, direction=direction)
        names = self._storage.get_all_studies()
        if not names:
            raise StudyError(f"{folder}: the journal holds no study; start again with --fresh")
        self.name = names[0].study_name
        self._id = names[0]._study_id
        self.maximize = names[0].direction == optuna.study.StudyDirection.MAXIMIZE
        self._seen: dict[int, tuple[FrozenTrial, Trial]] = {}

    @classmethod
    def create(cls, folder: Path, space: Space, facts: dict[str, Any], films: pd.DataFrame) -> "Study":
        """Make a study's folder and journal.

        facts: what it must remember about its data, seed and environment. films: image, patient, split and labels
        of the films that trials may see. The folder appears whole or not at all.
        """
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "trials").mkdir(parents=True)
        space.save(partial)
        films.to_parquet(partial / "films.parquet", index=False)
        study = cls(partial, create=folder.name, maximize=space.header.objective.maximize)
        for key, value in {"space": space.tree, "created": time.time(), **facts}.items():
            study.note(key, value)
        partial.rename(folder)
        return cls(folder)

    @classmethod
    def find(cls, name: str) -> "Study":
        """Open a study by its name in `studies/` or by its folder. Raises StudyError if there is none."""
        inside = STUDIES / name
        return cls(Path(name) if Path(name).is_dir() and not inside.is_dir() else inside)

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

    def adopt(self, space: Space) -> list[tuple[str, Any, Any]]:
        """Go on with a space whose budget may differ; returns what changed, as key, old and new value.

        Raises StudyError if anything else differs: the trials so far would not be comparable.
        """
        before, now = self.facts["space"], space.tree
        keys = [key for key in {**before, **now} if key not in ("budget", "baselines")]
        if differing := [key for key in keys if before.get(key) != now.get(key)]:
            raise StudyError(
                f"{self.folder}: the space differs from the study's in {', '.join(differing)}; only the budget may "
                f"change. Leave --space out to go on as before, or start another study with --study NAME"
            )
        old, new = before.get("budget", {}), now.get("budget", {})
        space.save(self.folder)
        self.note("space", {**before, "budget": new})
        return [(f"budget.{k}", old.get(k), new.get(k)) for k in {**old, **new} if old.get(k) != new.get(k)]

    @staticmethod
    def repair(folder: Path) -> None:
        """Cut a line that a crash or a full disk left half written at the journal's end; it was never acknowledged."""
        journal = folder / "journal.log"
        if not journal.exists():
            return
        with journal.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                log.warning("%s: cut a half-written last line of %d bytes", journal, len(content) - whole)
                file.truncate(whole)

    # What is known

    @property
    def facts(self) -> dict[str, Any]:
        """What the study remembers about itself."""
        facts: dict[str, Any] = self._storage.get_study_user_attrs(self._id)
        return facts

    def trials(self) -> list[Trial]:
        """Every trial, in order of its number."""
        return [self._record(frozen) for frozen in self._storage.get_all_trials(self._id, deepcopy=False)]

    def trial(self, number: int) -> Trial:
        """One trial."""
        return self._record(self._storage.get_trial(self._trial_id(number)))

    def _record(self, frozen: FrozenTrial) -> Trial:
        known = self._seen.get(frozen.number)
        if known and known[0] is frozen:  # the storage replaces a trial when it changes
            return known[1]
        attrs = frozen.user_attrs
        epochs = [EpochRecord(**attrs[f"epoch:{step}"]) for step in sorted(frozen.intermediate_values)]
        trial = Trial(
            number=frozen.number,
            flat=attrs.get("config", {}),
            seed=attrs.get("seed", 0),
            baseline=attrs.get("baseline"),
            epochs=tuple(epochs),
            attempts=attrs.get("attempts", 0),
            outcome=Outcome(attrs.get("outcome", "open")) if frozen.state.is_finished() else Outcome.OPEN,
            reason=attrs.get("reason", ""),
            value=frozen.values[0] if frozen.values else None,
            started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
        )
        self._seen[frozen.number] = (frozen, trial)
        return trial

    def winner(self) -> Trial | None:
        """The best full trial; of equals, the earlier one."""
        full = [trial for trial in self.trials() if trial.outcome is Outcome.FULL]
        return max(full, key=lambda t: ((t.value or 0.0) * (1 if self.maximize else -1), -t.number), default=None)

    # What happens

    def note(self, key: str, value: Any) -> None:
        """Remember a fact about the study."""
        self._storage.set_study_user_attr(self._id, key, value)

    def propose(self, space: Space, seed: int, rungs: Rungs) -> Trial:
        """Draw a new trial. Its draw depends on the seed, its number and the history only.

        To the sampler a trial that waits at a rung is a pruned one, at that rung: as one that runs it would count as
        poor, however good it is.
        """
        number = self._storage.get_n_trials(self._id)
        view = _SamplerView(self._storage, rungs)
        sampler = searchers[space.header.searcher.name].function(seed * 1_000_003 + number)
        asked = optuna.study.Study(self.name, view, sampler=sampler).ask()  # type: ignore[arg-type]
        return self._begin(asked.number, propose(space.domains, asked), seed)

    def add_baseline(self, baseline: Baseline, seed: int) -> Trial:
        """A baseline becomes a trial of its own, outside the searched parameters."""
        number = self._storage.get_n_trials(self._id)
        trial_id = self._storage.create_new_trial(self._id)
        self._storage.set_trial_user_attr(trial_id, "baseline", baseline.name)
        return self._begin(number, baseline.flat, seed)

    def _begin(self, number: int, flat: dict[str, Scalar], seed: int) -> Trial:
        # The configuration is written last and at once: a trial without one has never begun.
        self._set(number, "seed", seed + number)
        self._set(number, "config", {"epochs": SEARCHABLE["epochs"].default, **flat})  # type: ignore[union-attr]
        return self.trial(number)

    def record(self, number: int, epoch: EpochRecord) -> None:
        """Keep an epoch of a trial. The intermediate value is written last: with it the epoch exists."""
        self._set(number, f"epoch:{epoch.epoch}", dataclasses.asdict(epoch))
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch.epoch, epoch.value)

    def attempt(self, number: int) -> int:
        """Count a leg that was lost with its process; returns how many of this trial were."""
        attempts = self.trial(number).attempts + 1
        self._set(number, "attempts", attempts)
        return attempts

    def finish(self, number: int, outcome: Outcome, reason: str = "") -> None:
        """End a trial, for good."""
        last = self.trial(number).epochs[-1:]
        self._set(number, "reason", reason)
        self._set(number, "outcome", outcome.value)
        state = {Outcome.FULL: TrialState.COMPLETE, Outcome.PRUNED: TrialState.PRUNED}.get(outcome, TrialState.FAIL)
        values = None if state == TrialState.FAIL else [epoch.value for epoch in last]
        self._storage.set_trial_state_values(self._trial_id(number), state, values)
        kept = {self.folder / epoch.checkpoint for epoch in last if outcome is Outcome.FULL}
        for checkpoint in self.trial_folder(number).glob("epoch-*.pt"):
            if checkpoint not in kept:
                checkpoint.unlink()

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoints, and the traceback of its error."""
        return self.folder / "trials" / f"{number:05d}"

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def optuna_study(self) -> optuna.Study:
        """The study as Optuna's own, for its plots."""
        return optuna.load_study(study_name=self.name, storage=self._storage)


class _SamplerView:
    """The storage as a sampler should see it: without baselines, and with trials that wait at a rung pruned there."""

    def __init__(self, storage: JournalStorage, rungs: Rungs):
        self._storage = storage
        self._rungs = rungs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Sequence[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = (
            self._seen(trial)
            for trial in self._storage.get_all_trials(study_id, deepcopy=deepcopy)
            if "baseline" not in trial.user_attrs
        )
        return [trial for trial in trials if states is None or trial.state in states]

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        waits_at = self._rungs.waits_at(trial.number) if trial.state == TrialState.RUNNING else None
        if waits_at is None:
            return trial
        value = self._rungs.value(trial.number, waits_at)
        return create_trial(
            state=TrialState.PRUNED,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values={waits_at + 1: value},  # type: ignore[dict-item]
        )


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
