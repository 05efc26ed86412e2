"""The command `python -m search.status STUDY`: where a search stands, also while it runs; it changes nothing."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live

from cxr_core.console import refuse
from search.exit_codes import DONE, USAGE

if TYPE_CHECKING:
    from search.overview import Overview
    from search.study import Study

_REFRESH = 2.0
"""Seconds between looks at a study with --watch."""


def main(argv: list[str] | None = None) -> int:
    """Show where a search, or one of its trials, stands; returns the exit code."""
    args = _parse(argv)
    from search.study import Study, StudyError  # Optuna and torch take seconds to import: not for --help

    try:
        study = Study.find(args.study, follow=True)
    except StudyError as mistake:
        return refuse(f"{mistake}{_known_studies()}", USAGE)
    count = len(study.trials())
    if args.explain is not None and not 0 <= args.explain < count:
        have = f"has trials 0 to {count - 1}" if count else "has no trial yet"
        return refuse(f"{study.folder}: there is no trial {args.explain}; the study {have}", USAGE)
    # The width of a pipe is unknown: wide enough for the ledger's sentences.
    out = Console() if sys.stdout.isatty() else Console(width=140)
    if args.watch:
        _watch(study, args, out)
    else:
        _show(study, args, out)
    return DONE


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m search.status", description=__doc__.partition(": ")[2])
    add = parser.add_argument
    add("study", metavar="STUDY", help="name in studies/, or a study's folder")
    add("--explain", type=int, metavar="TRIAL", help="the life of one trial: each decision about it, and why")
    add("--decisions", type=int, default=10, metavar="N", help="last decisions to show (default: 10)")
    add("--watch", action="store_true", help="show it again and again until the search ends")
    add("--json", action="store_true", help="print all of it as one JSON object")
    args = parser.parse_args(argv)
    if args.decisions < 0:
        parser.error(f"--decisions must be 0 or more, not {args.decisions}")
    if args.watch and args.json:
        parser.error("--watch and --json exclude each other")
    return args


def _known_studies() -> str:
    from search.study import STUDIES

    there = sorted(path.parent.name for path in STUDIES.glob("*/journal.log") if not path.parent.name.startswith("."))
    return f"; in {STUDIES}/ there are: {', '.join(there)}" if there else f"; in {STUDIES}/ there is none"


def _show(study: "Study", args: argparse.Namespace, out: Console) -> None:
    from search.overview import Overview, describe

    overview = Overview(study)
    if not args.json:
        out.print(_page(overview, args))
    elif args.explain is None:
        print(json.dumps(describe(overview, args.decisions)))
    else:
        from search.life import life

        print(json.dumps(life(overview, overview.trials[args.explain])))


def _watch(study: "Study", args: argparse.Namespace, out: Console) -> None:
    """Until the search ends, or the reader has seen enough."""
    from search.overview import Overview

    overview = Overview(study)
    try:
        with Live(_page(overview, args), console=out, auto_refresh=False, vertical_overflow="visible") as live:
            while overview.state.word == "running":
                time.sleep(_REFRESH)
                overview = Overview(study)
                live.update(_page(overview, args), refresh=True)
    except KeyboardInterrupt:
        return


def _page(overview: "Overview", args: argparse.Namespace) -> Group:
    from search.status_page import life_page, overview_page

    if args.explain is not None:
        return life_page(overview, overview.trials[args.explain])
    return overview_page(overview, args.decisions)


if __name__ == "__main__":
    sys.exit(main())
