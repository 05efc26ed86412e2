"""The command `python -m search.finalize STUDY`: repeats the best trials with new seeds, then opens the test split."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cxr_core.console import refuse
from search import slots
from search.exit_codes import DONE, KILLED, NO_VALID_TRIAL, PREFLIGHT, STOPPED, USAGE

if TYPE_CHECKING:
    from search.finals.session import Result


def main(argv: list[str] | None = None) -> int:
    """Find out how good a study's finalists are; returns the exit code."""
    args = _parse(argv)
    # torch takes seconds to import: not for --help or a mistyped option
    from cxr_core.console import show_log

    show_log("search", "cxr_core")
    result, code = attempt(lambda: _hold(args), again="the same command goes on")
    if result is None:
        return code
    if args.json:
        model = str(result.model.folder) if result.model else None
        others = {"report": str(result.report), "ensemble": result.ensemble, "refit": result.refit, "model": model}
        print(json.dumps({**(result.record or {}), **others}))
    else:
        show(result)
    return code


def _hold(args: argparse.Namespace) -> "Result":
    from search.finals.session import Request, run_finals
    from search.study import Study

    folder = Study.place(args.study).resolve()
    asked = Request(folder, args.top, args.seeds, args.reopen_test, slots.resources(args))
    return run_finals(replace(asked, refit=args.refit, hand_over=not args.no_model, data=args.data))


def attempt(finals: Callable[[], "Result | None"], again: str) -> tuple["Result | None", int]:
    """Hold finals, and say what goes wrong: their result, None if they came to no end, and the exit code.

    again: how to go on with what was stopped.
    """
    from cxr_core.checkpoint import CheckpointError
    from cxr_core.data import DataError
    from cxr_core.located_yaml import SpaceError
    from search.finals.repeats import NoFinalist
    from search.preflight import PreflightError
    from search.study import StudyError

    try:
        result = finals()
    except (SpaceError, StudyError) as mistake:
        return None, refuse(str(mistake), USAGE)
    except (PreflightError, DataError, CheckpointError) as fault:
        return None, refuse(str(fault), PREFLIGHT)
    except NoFinalist as none:
        return None, refuse(str(none), NO_VALID_TRIAL)
    except KeyboardInterrupt:
        return None, refuse(f"interrupted; nothing is lost, {again}", KILLED)
    if result and result.record is None:
        cause = "because the disk is full: free some first" if result.stopped == "disk" else f"by {result.stopped}"
        return None, refuse(f"stopped {cause}. Nothing is lost; {again}", STOPPED)
    return result, DONE


def show(result: "Result") -> None:
    """Print what finals found, for reading."""
    from rich.console import Console

    from search.finals.page import finals_page

    # The width of a pipe is unknown: wide enough for the table.
    page = finals_page(result.record or {}, result.report, result.ensemble, result.refit)
    (Console() if sys.stdout.isatty() else Console(width=180)).print(page)
    print(*(result.model.lines if result.model else ()), sep="\n")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    about = __doc__.partition(": ")[2]
    parser = argparse.ArgumentParser("python -m search.finalize", description=about, allow_abbrev=False)
    add = parser.add_argument
    add("study", metavar="STUDY", help="name in studies/, or a study's folder")
    as_begun = "default: as the study's finals were begun, or 3"
    add("--top", type=int, metavar="K", help=f"best full trials to take, beside all baselines ({as_begun})")
    add("--seeds", type=int, metavar="N", help=f"trainings of each, the first included ({as_begun})")
    add(
        "--reopen-test",
        metavar="REASON",
        help="evaluate new trainings on test films that were opened before; the reason and their number are reported",
    )
    add(
        "--refit",
        action="store_true",
        help="train the winner once more, on the validation films, too; nothing can be known of how good that one is",
    )
    add(
        "--no-model",
        action="store_true",
        help="leave out studies/NAME/model and MLflow, what the winner is handed over by",
    )
    add("--data", metavar="KIND:PATH", help="where the study's films lie now, if they were moved")
    slots.add_options(parser)
    add("--json", action="store_true", help="print the result as one JSON object")
    args = parser.parse_args(argv)
    slots.check_options(parser, args)
    for option in ("top", "seeds"):
        if (value := getattr(args, option)) is not None and value < 1:
            parser.error(f"--{option} must be 1 or more, not {value}")
    if args.reopen_test is not None and not args.reopen_test.strip():
        parser.error("--reopen-test needs a reason, which the report will state")
    return args


if __name__ == "__main__":
    sys.exit(main())
