"""The command `python -m search.report STUDY`: writes a study's report, one HTML page that needs nothing beside it."""

import argparse
import sys

from search.exit_codes import DONE, USAGE
from search.report.page import write_report
from search.study import Study, StudyError


def main(argv: list[str] | None = None) -> int:
    """Write the report of a study, which may still be running; returns the exit code."""
    parser = argparse.ArgumentParser("python -m search.report", description=__doc__.partition(": ")[2])
    parser.add_argument("study", metavar="STUDY", help="name in studies/, or a study's folder")
    args = parser.parse_args(argv)
    try:
        study = Study.find(args.study)
    except StudyError as mistake:
        print(mistake, file=sys.stderr)
        return USAGE
    print(write_report(study))
    return DONE
