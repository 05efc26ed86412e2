"""The command `python -m search.mlflow_sync STUDY`: brings MLflow up to date with a study, from nothing if need be."""

import argparse
import hashlib
import logging
import os
import select
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from search.exit_codes import DONE, KILLED, PREFLIGHT, USAGE

log = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between looks at the study."""
_LONGEST_PAUSE = 30.0
"""Seconds at the most until a server that failed is asked again."""
_LAST_ATTEMPTS = 3
"""How often the end of a search tries to write the rest."""


def main(argv: list[str] | None = None) -> int:
    """Synchronise once, or follow a running search until it ends; returns the exit code."""
    args = _parse(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    from search.preflight import PreflightError, check_server
    from search.study import Study, StudyError

    try:
        folder = Study.find(args.study).folder
        if args.mlflow:
            check_server(args.mlflow)
    except StudyError as mistake:
        return _refuse(str(mistake), USAGE)
    except PreflightError as fault:
        return _refuse(str(fault), PREFLIGHT)
    try:
        # One writer at a time: two would both make the run that neither finds. The writer of a search that was killed
        # is about to end when the next one starts.
        with FileLock(folder / _lock_name(args.mlflow), timeout=-1 if args.follow else 0):
            return follow(folder) if args.follow else synchronise(folder, args.mlflow)
    except Timeout:
        return _refuse(f"{folder}: another process writes this MLflow already, as a running search does", USAGE)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m search.mlflow_sync", description=__doc__.partition(": ")[2])
    parser.add_argument("study", metavar="STUDY", help="name in studies/, or a study's folder")
    parser.add_argument("--mlflow", metavar="URI", help="another MLflow than the study's own")
    parser.add_argument("--follow", action="store_true", help="go on until standard input says so (used by the search)")
    args = parser.parse_args(argv)
    if args.follow and args.mlflow:
        parser.error("--follow writes the study's own MLflow; leave --mlflow out")
    return args


def _lock_name(uri: str | None) -> str:
    return f"mlflow-{hashlib.sha256(uri.encode()).hexdigest()[:8]}.lock" if uri else "mlflow.lock"


def synchronise(folder: Path, uri: str | None = None) -> int:
    """Bring MLflow up to date once; uri: another one than the study's own."""
    from search.mlflow_view import MlflowView
    from search.study import Study

    try:
        view = MlflowView(Study(folder), uri)
        epochs = view.sync()
        if not _is_running(folder):
            view.finish()
    except KeyboardInterrupt:
        return _refuse("interrupted; run it again: what is there is not written twice", KILLED)
    except Exception as fault:  # whatever MLflow, its database or the network raises
        target = uri or Study(folder).facts["mlflow"]
        return _refuse(f"{target}: MLflow cannot be written, run this again when it can: {fault}", PREFLIGHT)
    print(f"{folder.name}: {epochs} epochs added; MLflow is up to date")
    return DONE


def _is_running(folder: Path) -> bool:
    from search.study import Study, StudyError

    try:
        with Study.lock(folder):
            return False
    except StudyError:
        return True


def follow(folder: Path) -> int:
    """Keep MLflow up to date while a search runs, until it says `done`. A failing server is asked again and again."""
    from search.study import Study

    # Training comes first, but at 19 a writer is all but stopped where trainings have all cores, and falls behind.
    os.nice(5)
    writer = _Writer(Study(folder, follow=True))
    while (word := _word(writer.pause)) is None:
        writer.write()
    # An empty word is a killed search's: its runs are closed, too. When it is resumed, its next writer goes on.
    for attempt in range(_LAST_ATTEMPTS if word else 1):
        time.sleep(_EVERY if attempt else 0)
        if writer.write(last=True):
            return DONE
    return PREFLIGHT


class _Writer:
    """Writes MLflow from a study, again and again; a fault costs it a pause."""

    def __init__(self, study):  # type: ignore[no-untyped-def]
        self.pause = 0.0
        self._study = study
        self._view = None

    def write(self, last: bool = False) -> bool:
        """Whether MLflow is up to date. After a fault the view is given up: a new one asks MLflow what it has."""
        from search.mlflow_view import MlflowView

        try:
            self._view = self._view or MlflowView(self._study)
            self._view.sync()
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


def _refuse(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
