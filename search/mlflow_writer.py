"""The process beside a search that writes MLflow from the study's journal, so that no server can hold up the search.

The search says `done` on its standard input when the study is complete. From then on it answers on its standard output,
a byte for each trial, so that the search knows a slow server from a dead one.
"""

import hashlib
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from search.exit_codes import DONE, PREFLIGHT

if TYPE_CHECKING:
    from search.mlflow_view import MlflowView

log = logging.getLogger(__name__)

_FIRST = 15.0
"""Seconds until the first look at the study: by then a search has started, and can spare a core."""
_EVERY = 1.0
"""Seconds between looks at the study."""
_LONGEST_PAUSE = 30.0
"""Seconds at the most until a server that failed is asked again."""
_LAST_ATTEMPTS = 3
"""How often the end of a search tries to write the rest."""
_SILENCE = 60.0
"""Seconds without a sign of life after which the end of a search waits for its writer no longer."""


def lock(folder: Path, uri: str | None = None, wait: bool = False) -> FileLock:
    """The right to write a study's MLflow, or another one; Timeout on entering it if somebody has it.

    One writer at a time: two would both make the run that neither finds.
    """
    name = f"mlflow-{hashlib.sha256(uri.encode()).hexdigest()[:8]}.lock" if uri else "mlflow.lock"
    return FileLock(folder / name, timeout=-1 if wait else 0)


# In the search's process


class Writer:
    """The writer as its search sees it."""

    def __init__(self, process: "subprocess.Popen[bytes]"):
        self._process = process

    def finish(self) -> bool:
        """Tell it that the study is complete and wait for as long as it gets on; whether MLflow is up to date."""
        tell, signs = self._process.stdin, self._process.stdout
        assert tell is not None
        assert signs is not None
        try:
            tell.write(b"done")
            tell.close()
            while select.select([signs], [], [], _SILENCE)[0]:
                if not os.read(signs.fileno(), 4096):
                    return self._process.wait(_SILENCE) == DONE
        except (BrokenPipeError, subprocess.TimeoutExpired) as fault:
            log.debug("the MLflow writer is gone: %s", fault)
        return False


@contextmanager
def start_writer(folder: Path) -> Iterator[Writer]:
    """A writer for a study; it is gone at the end."""
    command = [sys.executable, "-m", "search.mlflow_writer", str(folder)]
    pipe = subprocess.PIPE
    with (folder / "mlflow.log").open("ab") as output:
        # A session of its own: Ctrl-C in the terminal must not reach it.
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=output, start_new_session=True)
    try:
        yield Writer(process)
    finally:
        process.kill()
        process.wait()


# In its own process


def main(folder: Path) -> int:
    """Keep MLflow up to date while a search runs, until it says so. A failing server is asked again and again."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    # Training comes first, but at 19 a writer is all but stopped where trainings have all cores, and falls behind.
    os.nice(5)
    with lock(folder, wait=True):  # the writer of a search that was killed is about to end when the next one starts
        word = _word(_FIRST)
        updates = _Updates(folder)
        while word is None:
            updates.write()
            word = _word(updates.pause)
        # An empty word is a killed search's: its runs are closed, too. When it is resumed, its next writer goes on.
        for attempt in range(_LAST_ATTEMPTS if word else 1):
            time.sleep(_EVERY if attempt else 0)
            if updates.write(last=True, sign=_give_sign if word else None):
                return DONE
    return PREFLIGHT


class _Updates:
    """Writes MLflow from a study, again and again; a fault costs it a pause."""

    def __init__(self, folder: Path) -> None:
        from search.study import Study

        self.pause = 0.0
        self._study = Study(folder, follow=True)
        self._view: MlflowView | None = None

    def write(self, last: bool = False, sign: Callable[[], None] | None = None) -> bool:
        """Whether MLflow is up to date. After a fault the view is given up: a new one asks MLflow what it has."""
        from search.mlflow_view import MlflowView

        try:
            self._view = self._view or MlflowView(self._study)
            self._view.sync(sign)
            if last:
                self._view.finish()
        except Exception as fault:  # whatever MLflow, its database or the network raises
            self.pause = min(2 * max(self.pause, _EVERY), _LONGEST_PAUSE)
            log.warning("MLflow is behind, next attempt in %.0f s: %s", self.pause, fault)
            self._view = None
            return False
        self.pause = _EVERY
        return True


def _word(seconds: float) -> bytes | None:
    """What the search says, at once or after some seconds of silence (None); empty if it died."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 100) if ready else None


def _give_sign() -> None:
    os.write(sys.stdout.fileno(), b".")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
