"""The command `python -m cxr_core.train`: trains one recipe, without a search, and writes what came of it."""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from cxr_core.checkpoint import CheckpointError
from cxr_core.console import refuse, show_log
from cxr_core.data import DataError
from cxr_core.device import is_there, named_device
from cxr_core.exit_codes import DIVERGED, DONE, INTERRUPTED, TERMINATED, UNUSABLE, USAGE
from cxr_core.full_disk import is_disk_full
from cxr_core.located_yaml import SpaceError
from cxr_core.models import Infeasible
from cxr_core.recipe import load_recipe
from cxr_core.recipe_training import Request, train_recipe
from cxr_core.train import Diverged
from cxr_core.training_folder import FolderError


class _Termination(KeyboardInterrupt):
    """SIGTERM, which ends a training as Ctrl-C does."""


def main(argv: list[str] | None = None) -> int:
    """Train a recipe; returns the exit code."""
    args = _parse(argv)
    show_log("cxr_core")
    if not is_there(args.device):
        return refuse(f"--device {args.device}: PyTorch does not see this GPU; leave the option out", UNUSABLE)
    if args.threads:
        torch.set_num_threads(args.threads)
    again = shlex.join(["python", "-m", "cxr_core.train", *(sys.argv[1:] if argv is None else argv)])
    try:
        with _termination_interrupts():
            recipe = load_recipe(args.config, _overrides(args))
            results = train_recipe(Request(recipe, args.data, args.out, args.device, args.seed, args.test))
    except (SpaceError, FolderError, CheckpointError) as mistake:
        return refuse(str(mistake), USAGE)
    except Infeasible as reason:
        return refuse(f"{args.config}: infeasible: {reason}", USAGE)
    except DataError as fault:
        return refuse(str(fault), UNUSABLE)
    except Diverged as reason:
        return refuse(f"diverged: {reason}. It would again: lower lr or clip, and name another --out", DIVERGED)
    except OSError as fault:
        return refuse(_unwritten(fault, args.out, again), UNUSABLE)
    except KeyboardInterrupt as stop:
        kept = "films decoded and epochs done so far are kept, the epoch in flight is lost"
        code = TERMINATED if isinstance(stop, _Termination) else INTERRUPTED
        return refuse(f"stopped; {kept}. To go on: {again}", code)
    print(json.dumps(results) if args.json else _in_words(results, args.out))
    return DONE


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        "python -m cxr_core.train", description=__doc__.partition(": ")[2], allow_abbrev=False
    )
    add, given = parser.add_argument, os.environ.get("CXR_DATA")
    add("config", type=Path, metavar="CONFIG.yaml", help="recipe: a space file with every parameter fixed")
    add("--data", metavar="KIND:PATH", default=given, help="data set (default: $CXR_DATA or phantom)")
    add("--allow-missing", action="store_true", help="go on although many films of the data set are not on disk")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where all goes; a training begun there goes on")
    add(
        "--device",
        type=named_device,
        default=named_device(),
        help="cpu, cuda or cuda:N (default: cuda where there is a GPU)",
    )
    add("--threads", type=int, metavar="N", help="CPU threads (default: as PyTorch chooses)")
    add("--seed", type=int, default=0, metavar="S", help="seed of splits and training (default: 0)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. data.image_size=64")
    add("--test", action="store_true", help="open the test split at the end, once; thresholds are from validation")
    add("--json", action="store_true", help="print the results as one JSON object")
    args = parser.parse_args(argv)
    for option, least in (("threads", 1), ("seed", 0)):
        if (value := getattr(args, option)) is not None and value < least:
            parser.error(f"--{option} must be {least} or more, not {value}")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out}: is no folder")
    return args


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Termination

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _overrides(args: argparse.Namespace) -> list[str]:
    return [*args.set, *(["data.allow_missing=true"] if args.allow_missing else [])]


def _unwritten(fault: OSError, out: Path, again: str) -> str:
    told = f"{fault.filename or out}: {fault.strerror or fault}"
    return f"{told}; the epochs done are kept. Free some space, then: {again}" if is_disk_full(fault) else told


def _in_words(results: dict[str, Any], out: Path) -> str:
    metric, best = results["metric"], results["best"]
    lasted = timedelta(seconds=round(results["seconds"]))
    lines = [f"recipe      {results['recipe']} on {results['data']}: {results['epochs']} epochs in {lasted}"]
    for split in ("validation", "test"):
        if judged := results[split]:
            value = judged["macro"][metric]
            reached = "undefined" if value is None else f"{value:.4f}"
            lines.append(f"{split:11} {metric} {reached} ({judged['films']:,} films)")
    if best:
        lines[1] += f"; best {best[metric]:.4f} in epoch {best['epoch']}"
    files = ("metrics.json", "metrics.csv", "curves.png", "recipe.yaml", "films.parquet", "data.html")
    lines += [f"network     {out / 'model.pt'}", f"beside it   {', '.join(files)}"]
    return "\n".join(lines)
