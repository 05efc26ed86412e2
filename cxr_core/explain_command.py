"""The command `python -m cxr_core.explain`: shows where a saved network looks, and how far that can be believed."""

import argparse
import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxr_core.checkpoint import CheckpointError
from cxr_core.console import answer, refuse, show_log
from cxr_core.data import DataError, DataName
from cxr_core.device import is_there, named_device
from cxr_core.exit_codes import DONE, INTERRUPTED, UNUSABLE, USAGE
from cxr_core.predict import DEFAULT_RULE, DISCLAIMER, HALF, Predictor
from cxr_core.train import THRESHOLDS

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Explain a network; returns the exit code."""
    args = _parse(argv)
    from cxr_core.explanation import NoFeatureMap  # matplotlib and scipy take a second to import: not for --help

    show_log("cxr_core")
    if not is_there(args.device):
        return refuse(f"--device {args.device}: PyTorch does not see this GPU; leave the option out", UNUSABLE)
    try:
        if mistake := _occupied(args.out):
            return refuse(mistake, USAGE)
        predictor = Predictor.load(args.model, args.device)
        if mistake := _mistake(args, predictor):
            return refuse(mistake, USAGE)
        record = _explain(args, predictor)
        answer(json.dumps(record) if args.json else _in_words(record, args.out))
    except CheckpointError as fault:
        return refuse(f"{fault}; MODEL is the model.pt of a training by python -m cxr_core.train", USAGE)
    except NoFeatureMap as fault:
        return refuse(f"{args.model}: {fault}", USAGE)
    except DataError as fault:
        return refuse(str(fault), UNUSABLE)
    except OSError as fault:
        return refuse(f"{fault.filename or args.out}: {fault.strerror or fault}; nothing was written", UNUSABLE)
    except KeyboardInterrupt:
        return refuse("interrupted; nothing was written", INTERRUPTED)
    finally:
        print(DISCLAIMER, file=sys.stderr)
    return DONE


def _explain(args: argparse.Namespace, predictor: Predictor) -> dict[str, Any]:
    from cxr_core.explain import Wanted, explain
    from cxr_core.explanation.split_films import open_split

    split = open_split(predictor.checkpoint, DataName.parse(args.data), args.split)
    facts = {}
    if args.split == "test":
        log.info("opening the test split: %s films", f"{len(split.films):,}")
        facts["test_opened"] = datetime.now(UTC).isoformat(timespec="seconds")
    wanted = Wanted(rule=args.threshold, labels=tuple(args.label) or None, films=args.films, boxed=args.boxed)
    return explain(predictor, split, args.out, wanted, **facts)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    about = __doc__.partition(": ")[2]
    parser = argparse.ArgumentParser("python -m cxr_core.explain", description=about, allow_abbrev=False)
    add, given, rules = parser.add_argument, os.environ.get("CXR_DATA"), (HALF, *THRESHOLDS)
    add("model", type=Path, metavar="MODEL", help="checkpoint: the model.pt of a training")
    add("--data", metavar="KIND:PATH", default=given or "phantom", help="its data set (default: $CXR_DATA or phantom)")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where pictures and explanation.json go")
    add(
        "--split",
        choices=("val", "test"),
        default="val",
        help="films to explain (default: val); test opens the test split, which only a finished study should do",
    )
    add(
        "--label", action="append", default=[], metavar="NAME", help="draw panels of this finding only; may be repeated"
    )
    add("--films", type=int, default=3, metavar="N", help="films of each kind in a panel (default: 3)")
    add("--boxed", type=int, default=200, metavar="N", help="most films with boxes to take (default: 200)")
    add("--threshold", choices=rules, default=DEFAULT_RULE, help=f"what a finding is called from ({DEFAULT_RULE})")
    add("--device", type=named_device, default=named_device(), help="cpu, cuda or cuda:N (default: cuda if present)")
    add("--json", action="store_true", help="print what explanation.json holds as one JSON object")
    args = parser.parse_args(argv)
    for option in ("films", "boxed"):
        if (value := getattr(args, option)) < 1:
            parser.error(f"--{option} must be 1 or more, not {value}")
    return args


def _occupied(out: Path) -> str | None:
    """Why the folder may not be replaced; None if it is an earlier explanation, empty, or not there."""
    if not out.exists() or (out / "explanation.json").is_file() or (out.is_dir() and not any(out.iterdir())):
        return None
    what = "holds other files than an explanation" if out.is_dir() else "is no folder"
    return f"--out {out}: {what}; name another folder"


def _mistake(args: argparse.Namespace, predictor: Predictor) -> str | None:
    if args.threshold not in predictor.thresholds:
        known = ", ".join(sorted(predictor.thresholds))
        return f"{args.model}: has no thresholds {args.threshold!r}; it has {known}. Name one of them: --threshold"
    if unknown := [label for label in args.label if label not in predictor.labels]:
        return f"--label {unknown[0]}: the network does not know this finding; it knows {', '.join(predictor.labels)}"
    return None


def _in_words(record: dict[str, Any], out: Path) -> str:
    found = record["localisation"]
    lines = [f"explained   {record['films']:,} films of the {record['split']} split of {record['data']}"]
    lines += [f"maps        {record['about_layers']}"]
    if found:
        taken, there = found["films_taken"], found["films_with_boxes"]
        lines.append(f"boxes       {found['sentence']} ({taken:,} of {there:,} films with boxes)")
    else:
        lines.append("boxes       none on these films, so nobody can say whether the maps point at the right place")
    lines.append(f"weights     {record['randomised']['sentence']}")
    pictures = [of["picture"] for of in record["labels"].values() if of["picture"]]
    lines.append(f"pictures    {out}: {len(pictures)} panels, first_filters.png, feature_maps.png, explanation.json")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
