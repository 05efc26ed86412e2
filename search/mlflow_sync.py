"""The command `python -m search.mlflow_sync STUDY`: brings MLflow up to date with a study, from nothing if need be."""

import argparse
import logging
import sys
from pathlib import Path

from filelock import Timeout

from cxr_core.console import refuse
from search.exit_codes import DONE, KILLED, PREFLIGHT, USAGE
from search.mlflow_writer import lock


def main(argv: list[str] | None = None) -> int:
    """Synchronise once; returns the exit code."""
    args = _parse(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    from search.preflight import PreflightError, check_server
    from search.study import Study, StudyError

    try:
        folder = Study.find(args.study).folder
        if args.mlflow:
            check_server(args.mlflow)
    except StudyError as mistake:
        return refuse(str(mistake), USAGE)
    except PreflightError as fault:
        return refuse(str(fault), PREFLIGHT)
    try:
        with lock(folder, args.mlflow):
            return synchronise(folder, args.mlflow)
    except Timeout:
        return refuse(f"{folder}: another process writes this MLflow already, as a running search does", USAGE)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m search.mlflow_sync", description=__doc__.partition(": ")[2])
    parser.add_argument("study", metavar="STUDY", help="name in studies/, or a study's folder")
    parser.add_argument("--mlflow", metavar="URI", help="another MLflow than the study's own")
    return parser.parse_args(argv)


def synchronise(folder: Path, uri: str | None = None) -> int:
    """Bring MLflow up to date once; uri: another one than the study's own."""
    from search.mlflow_view import MlflowView
    from search.study import Study

    try:
        view = MlflowView(Study(folder), uri)
        epochs = view.sync()
        if not Study.is_running(folder):
            view.finish()
    except KeyboardInterrupt:
        return refuse("interrupted; run it again: what is there is not written twice", KILLED)
    except Exception as fault:  # whatever MLflow, its database or the network raises
        target = uri or Study(folder).facts["mlflow"]
        return refuse(f"{target}: MLflow cannot be written, run this again when it can: {fault}", PREFLIGHT)
    print(f"{folder.name}: {epochs} epochs added; MLflow is up to date")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
