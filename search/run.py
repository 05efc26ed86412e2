"""The command `python -m search.run`: reads a space, runs the search, prints what was found."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_core.console import refuse
from search import finalize, slots
from search.durations import format_duration, parse_duration
from search.exit_codes import DONE, KILLED, NO_VALID_TRIAL, PREFLIGHT, STOPPED, USAGE

if TYPE_CHECKING:
    from search.finals.session import Result as Finals
    from search.session import Request, Result


def main(argv: list[str] | None = None) -> int:
    """Run a search; returns the exit code."""
    args = parse(argv)
    # torch takes seconds to import: not for --help or a mistyped option
    if args.list:
        from search.catalogue import print_catalogue

        return print_catalogue()
    from cxr_core.console import show_log
    from cxr_core.located_yaml import SpaceError
    from search.preflight import PreflightError, parse_data_name
    from search.space import load_space
    from search.study import STUDIES, StudyError

    show_log("search", "cxr_core")
    path = args.space or STUDIES / args.study / "space.yaml"
    if not args.space and not path.exists():
        return refuse(f"{path.parent}: there is no study to resume; start one with --space FILE", USAGE)
    try:
        space = load_space(path, _overrides(args))
        if args.dry_run:
            from search.dry_run import dry_run

            data = parse_data_name(_data(args) or "phantom")
            return dry_run(space, data, args.concurrent or slots.default_concurrent(args), args.seed)
        from search.session import run_session

        request = _request(args, space.header.name)
        result = run_session(space, request)
        return _conclude(result, lambda: _hold_finals(result, space.header.budget.reserve, request), args)
    except (SpaceError, StudyError) as mistake:
        return refuse(str(mistake), USAGE)
    except PreflightError as fault:
        return refuse(str(fault), PREFLIGHT)
    except KeyboardInterrupt:
        return refuse(
            "interrupted while no trial ran; nothing is lost: --resume goes on with a study that is there", KILLED
        )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    parser = argparse.ArgumentParser("python -m search.run", description=__doc__.partition(": ")[2], allow_abbrev=False)
    add = parser.add_argument
    add("--space", type=Path, metavar="FILE", help="space file (not needed with --resume)")
    add(
        "--data",
        metavar="KIND:PATH",
        help="data set: phantom, nih:FOLDER, chexpert:FOLDER, kermany:FOLDER, medmnist:FILE.npz, csv:FILE.csv "
        "(default: $CXR_DATA or phantom; with --resume the study's own, which may have been moved)",
    )
    add("--allow-missing", action="store_true", help="go on although many films of the data set are not on disk")
    add("--study", metavar="NAME", help="name of the study in studies/ (default: the space's name)")
    add("--trials", type=int, metavar="N", help="configurations to propose, in all (default: the space's budget)")
    add(
        "--time",
        metavar="8h",
        help="hours by the clock of the study, in all, its finals included, such as 10m or 8h (default: the space's "
        "budget)",
    )
    slots.add_options(parser)
    add("--mlflow", metavar="URI", help="MLflow server (default: a database beside the studies)")
    add("--resume", action="store_true", help="go on with an existing study")
    add("--fresh", action="store_true", help="start anew; an existing study of that name is kept under another")
    add("--warm-start", metavar="STUDY", help="let an earlier study, perhaps of other films, guide the first proposals")
    add("--dry-run", action="store_true", help="check the space, show what would be done, write nothing")
    add("--list", action="store_true", help="list everything that a space may search, with ranges and defaults")
    add("--seed", type=int, default=0, metavar="S", help="seed of proposals, splits and trainings (default: 0)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the space, e.g. data.image_size=64",
    )
    add("--json", action="store_true", help="print the result as one JSON object")
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.resume and args.fresh:
        parser.error("--resume and --fresh exclude each other")
    if args.resume and args.warm_start:
        parser.error("--warm-start is for a new study; a resumed one keeps the start it had")
    if args.space is None and not args.list and not (args.resume and args.study):
        parser.error("--space FILE is needed (or --resume with --study NAME)")
    slots.check_options(parser, args)
    if args.trials is not None and args.trials < 1:
        parser.error(f"--trials must be 1 or more, not {args.trials}")
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, not {args.seed}")
    try:
        parse_duration(args.time or "1s")
    except ValueError as wrong:
        parser.error(f"--time {wrong}")


def _overrides(args: argparse.Namespace) -> list[str]:
    budget = [f"budget.{key}={value}" for key in ("trials", "time") if (value := getattr(args, key))]
    missing = ["data.allow_missing=true"] if args.allow_missing else []
    return [*args.set, *budget, *missing]


def _data(args: argparse.Namespace) -> str | None:
    """Where the films lie; None: where a study that is resumed says, or the phantom."""
    return args.data or (None if args.resume else os.environ.get("CXR_DATA"))


def _request(args: argparse.Namespace, name: str) -> "Request":
    from search.session import Request
    from search.study import STUDIES

    return Request(
        folder=(STUDIES / (args.study or name)).resolve(),
        data=_data(args),
        seed=args.seed,
        resources=slots.resources(args),
        mlflow=args.mlflow,
        resume=args.resume,
        fresh=args.fresh,
        warm_start=args.warm_start,
    )


def _conclude(result: "Result", hold_finals: Callable[[], "Finals | None"], args: argparse.Namespace) -> int:
    """Tell what was found, as text or JSON, and hold the finals of a search that ended; returns the exit code."""
    from search.finals.reserve import sealed_off
    from search.session import describe

    told = describe(result)
    if not args.json:
        _print_result(result, told)
    finals, code = None, DONE
    if result.winner and not result.stopped and not result.mistake:
        later = f"python -m search.finalize {told['study']}"
        finals, code = finalize.attempt(hold_finals, again=f"to go on: {later}")
        if not args.json and finals:
            finalize.show(finals)
        elif not args.json and code == DONE and not sealed_off(result.study):
            print(f"next     {later}")
            print("         trains the best with other seeds, then opens the test split: how sure is the winner?")
    if args.json:
        print(json.dumps({**told, "finals": finals.record if finals else None}))
    if result.mistake:
        return refuse(f"stopped: the first trials all failed in the same way: {result.mistake}", NO_VALID_TRIAL)
    if result.stopped:
        again = f"python -m search.run --study {result.study.name} --resume"
        cause = "because the disk is full: free some first" if result.stopped == "disk" else f"by {result.stopped}"
        return refuse(f"stopped {cause}. Nothing is lost; to go on: {again}", STOPPED)
    if not result.winner:
        return refuse("no trial was trained in full; go on with --resume and more --time or --trials", NO_VALID_TRIAL)
    return code


def _hold_finals(result: "Result", reserve: float, request: "Request") -> "Finals | None":
    from search.finals.reserve import hold_finals

    return hold_finals(result.study, reserve, request.resources)


def _print_result(result: "Result", told: dict[str, Any]) -> None:
    winner = result.winner
    counts = ", ".join(f"{count} {what}" for what, count in told["trials"].items() if count)
    print(f"\nstudy    {told['study']}  ({counts}; {format_duration(result.seconds)})")
    if winner:
        print(f"winner   trial {winner.name}: {winner.flat['model']}, validation {result.metric} {winner.value:.4f}")
    print(f"report   {told['report']}")
    print(f"mlflow   {told['mlflow']}")
    if told["mlflow"].startswith("sqlite"):
        print(f"         mlflow ui --backend-store-uri {told['mlflow']}")


if __name__ == "__main__":
    sys.exit(main())
