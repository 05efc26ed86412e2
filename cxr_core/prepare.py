"""The command `python -m cxr_core.prepare`: reads a data set, caches its films, tells and shows what was found."""

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from cxr_core.exit_codes import DONE, INTERRUPTED, UNUSABLE

if TYPE_CHECKING:
    from cxr_core.data.policy import DataPolicy
    from cxr_core.data.preparation import PreparedData


def main(argv: list[str] | None = None) -> int:
    """Prepare a data set; returns the exit code."""
    try:
        return _run(_parse(argv))
    except KeyboardInterrupt:
        print("interrupted; the films decoded so far are kept, and the same command goes on with them", file=sys.stderr)
        return INTERRUPTED


def _run(args: argparse.Namespace) -> int:
    from cxr_core.console import show_log
    from cxr_core.data import DataError, DataName
    from cxr_core.data.page import write_page
    from cxr_core.data.preparation import prepare
    from cxr_core.labels import Task

    show_log("cxr_core")
    task = Task("multilabel" if len(args.labels) > 1 else "binary", tuple(args.labels), args.against)
    try:
        prepared = prepare(DataName.parse(args.data), _policy(args), task if args.labels else None, args.seed)
    except DataError as fault:
        print(fault, file=sys.stderr)
        return UNUSABLE
    folder = args.out or Path("prepared") / f"{prepared.name.kind}-{prepared.policy.image_size}px"
    try:
        prepared.save(folder)
        write_page(prepared, folder / "data.html")
    except OSError as fault:
        why = f"{fault.filename or folder}: {fault.strerror or fault}"
        print(f"{why}; name another folder for films.parquet and data.html: --out", file=sys.stderr)
        return UNUSABLE
    told = describe(prepared)
    return _tell(json.dumps(told) if args.json else _text(told, folder))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    from cxr_core.data.policy import DataPolicy  # here, because Ctrl-C may come while its package is imported

    parser = argparse.ArgumentParser(
        "python -m cxr_core.prepare", description=__doc__.partition(": ")[2], allow_abbrev=False
    )
    hints, add = get_type_hints(DataPolicy), parser.add_argument
    given = os.environ.get("CXR_DATA", "phantom")
    add("--data", metavar="KIND:PATH", default=given, help="data set (default: $CXR_DATA or phantom)")
    add("--image-size", type=int, required=True, metavar="S", help="side of the square films, in pixels")
    add("--aspect", choices=get_args(hints["aspect"]), help="how oblong films become square (default: squash)")
    add("--labels", nargs="+", default=[], metavar="LABEL", help="labels to predict (default: all)")
    add("--against", choices=("rest", "no_finding"), default="rest", help="negatives of a single label (default: rest)")
    add("--views", nargs="+", metavar="VIEW", help="view positions to keep, such as PA AP (default: all)")
    add("--split", choices=get_args(hints["split"]), help="keep the official test split, or draw a random one")
    add("--validation", type=float, metavar="SHARE", help="share of patients for validation (default: 0.1)")
    add("--test", type=float, metavar="SHARE", help="share of patients for a test split that is drawn (default: 0.1)")
    add("--folds", type=int, metavar="K", help="validate on one of K parts instead of a share")
    add("--fold", type=int, metavar="I", help="which of the K parts, from 0")
    add("--uncertain", choices=get_args(hints["uncertain"]), help="uncertain labels count as (default: ignore)")
    add("--blank", choices=("zero", "nan"), help="labels not mentioned count as (default: the data set's convention)")
    add("--duplicates", choices=get_args(hints["duplicates"]), help="identical films in two splits (default: refuse)")
    add("--allow-missing", action="store_true", help="go on although many films are not on disk")
    add("--seed", type=int, default=0, metavar="S", help="seed of the splits that are drawn (default: 0)")
    add("--out", type=Path, metavar="FOLDER", help="where films.parquet and data.html go (default: prepared/...)")
    add("--json", action="store_true", help="print what was found as one JSON object")
    args = parser.parse_args(argv)
    try:
        _policy(args)
    except ValueError as wrong:
        parser.error(str(wrong))
    if again := [label for label in args.labels if args.labels.count(label) > 1]:
        parser.error(f"--labels names {again[0]!r} twice")
    if args.against != "rest" and len(args.labels) != 1:
        parser.error("--against no_finding is for a single label: --labels LABEL")
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, not {args.seed}")
    return args


def _policy(args: argparse.Namespace) -> "DataPolicy":
    from cxr_core.data.policy import DataPolicy

    given = {key: value for key in get_type_hints(DataPolicy) if (value := getattr(args, key)) is not None}
    return DataPolicy(**given | {"views": tuple(given.get("views", ()))})


def describe(prepared: "PreparedData") -> dict[str, Any]:
    """What was found, as one JSON object."""
    films, facts = prepared.films, prepared.facts
    views = films["view"].fillna("unknown").value_counts().to_dict() if "view" in films.columns else {}
    return {
        "data": facts["data"],
        "films": len(films),
        "patients": int(films["patient"].nunique()),
        "splits": {
            part: {"films": count, "patients": facts["patients"][part]} for part, count in facts["films"].items()
        },
        "labels": facts["labels"],
        "views": {str(view): int(count) for view, count in views.items()},
        "unreadable": prepared.unreadable.to_dict("records"),
        "missing": facts["missing"],
        "copies": facts["copies"],
        "notes": facts["notes"],
        "split_hash": facts["split_hash"],
        "cache": str(prepared.cache),
        "test_cache": str(prepared.test_cache) if prepared.test_cache else None,
        "seconds": round(prepared.seconds, 2),
    }


def _tell(text: str) -> int:
    """Print the answer; returns the exit code."""
    from cxr_core.console import answer

    try:
        answer(text)
    except OSError as fault:
        print(f"the answer cannot be printed: {fault.strerror}", file=sys.stderr)
        return UNUSABLE
    return DONE


def _text(told: dict[str, Any], folder: Path) -> str:
    """What was found, for reading."""
    from rich.console import Console
    from rich.table import Table

    # Names of films, folders and labels are shown as they are: no markup, no wrapping.
    text = io.StringIO()
    out = Console(file=text, width=120, markup=False, emoji=False, highlight=False, soft_wrap=True)
    out.print(f"{told['data']}: {told['films']:,} films of {told['patients']:,} patients, split {told['split_hash']}")
    parts = list(told["splits"])
    table = Table("", *[f"{part}" for part in parts], box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for what in ("films", "patients"):
        table.add_row(what, *[f"{told['splits'][part][what]:,}" for part in parts])
    for label, counts in told["labels"].items():
        table.add_row(label, *[_prevalence(counts[part]) for part in parts])
    out.print(table)
    if told["views"]:
        out.print("views: " + ", ".join(f"{view} {count:,}" for view, count in told["views"].items()))
    for film in told["unreadable"]:
        out.print(f"unreadable, left out: {film['image']} ({film['reason']})")
    for note in told["notes"]:
        out.print(f"note: {note}")
    out.print(f"cache  {told['cache']}")
    out.print(f"page   {folder / 'data.html'}  ({told['seconds']:.1f} s)", end="")
    return text.getvalue()


def _prevalence(count: dict[str, Any]) -> str:
    if count["prevalence"] is None:
        return "not labelled"
    return f"{count['positive']:,} ({100 * count['prevalence']:.1f} %)"


if __name__ == "__main__":
    sys.exit(main())
