"""The command `python -m search.mlflow_sync STUDY`: brings MLflow up to date with a study, from nothing if need be."""

import argparse
import logging
import os
import select
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from search.exit_codes import DONE, PREFLIGHT, USAGE

log = logging.getLogger(__name__)

_EVERY = 2.0
"""Seconds between looks at the study."""
_LONGEST_PAUSE = 30.0
"""Seconds at the most until a server that failed is asked again."""


def main(argv: list[str] | None = None) -> int:
    """Synchronise once, or follow a running search until it ends; returns the exit code."""
    parser = argparse.ArgumentParser("python -m search.mlflow_sync", description=__doc__.partition(": ")[2])
    parser.add_argument("study", metavar="STUDY", help="name in studies/, or a study's folder")
    parser.add_argument("--follow", action="store_true", help="go on until standard input says so (used by the search)")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    from search.study import Study, StudyError

    try:
        folder = Study.find(args.study).folder
    except StudyError as mistake:
        print(mistake, file=sys.stderr)
        return USAGE
    try:
        # One writer at a time: two would both make the run that neither finds.
        with FileLock(folder / "mlflow.lock", timeout=_LONGEST_PAUSE if args.follow else 0):
            return follow(folder) if args.follow else synchronise(folder)
    except Timeout:
        print(f"{folder}: a running search writes MLflow already", file=sys.stderr)
        return USAGE


def synchronise(folder: Path) -> int:
    """Bring MLflow up to date once."""
    from search.mlflow_view import MlflowView

    try:
        view = MlflowView(folder)
        epochs = view.sync()
        view.finish()
    except Exception as fault:  # whatever MLflow, its database or the network raises
        print(f"MLflow cannot be written: {fault}", file=sys.stderr)
        return PREFLIGHT
    print(f"{folder.name}: {epochs} epochs added; MLflow is up to date")
    return DONE


def follow(folder: Path) -> int:
    """Keep MLflow up to date while a search runs, until it says `done`. A failing server is asked again and again."""
    os.nice(19)  # training comes first
    view = None
    pause = _EVERY
    while (word := _word(pause)) is None:
        view, pause = _try(folder, view, pause)
    if not word:
        return DONE  # the search was killed; when it is resumed, its next writer goes on from here
    for _ in range(3):  # the study is complete now: a last look, with little patience
        view, pause = _try(folder, view, pause, last=True)
        if view:
            return DONE
        time.sleep(_EVERY)
    return PREFLIGHT


def _try(folder: Path, view, pause: float, last: bool = False):  # type: ignore[no-untyped-def]
    """Synchronise once. After a fault the view is given up: a new one asks MLflow what it really has."""
    from search.mlflow_view import MlflowView

    try:
        view = view or MlflowView(folder)
        view.sync()
        if last:
            view.finish()
        return view, _EVERY
    except Exception as fault:  # whatever MLflow, its database or the network raises
        pause = min(2 * pause, _LONGEST_PAUSE)
        log.warning("MLflow is behind, next attempt in %.0f s: %s", pause, fault)
        return None, pause


def _word(seconds: float) -> bytes | None:
    """What the search says, at once or after some seconds of silence (None); empty if it died."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 100) if ready else None


if __name__ == "__main__":
    sys.exit(main())
