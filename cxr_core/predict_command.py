"""The command `python -m cxr_core.predict`: tells what a saved network sees on films in files."""

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from cxr_core.checkpoint import CheckpointError
from cxr_core.console import answer, console, refuse, show_log
from cxr_core.data.film_files import films_in
from cxr_core.data.progress_bar import film_bar
from cxr_core.device import is_there, named_device
from cxr_core.ensemble_predictor import EnsemblePredictor, load_predictor
from cxr_core.exit_codes import DONE, INTERRUPTED, UNUSABLE, USAGE
from cxr_core.predict import DEFAULT_RULE, DISCLAIMER, HALF, Finding, Prediction, Predictor, Refusal, ThresholdError
from cxr_core.scorecard import finite
from cxr_core.train import THRESHOLDS

if TYPE_CHECKING:
    from cxr_core.explanation.overlay import Overlays

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Predict films; returns the exit code."""
    args = _parse(argv)
    show_log("cxr_core")
    try:
        return _run(args)
    except KeyboardInterrupt:
        return refuse("interrupted; the films told so far are complete", INTERRUPTED)
    finally:
        print(DISCLAIMER, file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    if not is_there(args.device):
        return refuse(f"--device {args.device}: PyTorch does not see this GPU; leave the option out", UNUSABLE)
    try:
        predictor = load_predictor(args.model, args.device)
        films, refusals = _films(args.images)
        outcomes = predictor(films, args.threshold)
    except CheckpointError as fault:
        model = "the model.pt of a training by python -m cxr_core.train, or the ensemble.json of a study"
        return refuse(f"{fault}; MODEL is {model}", USAGE)
    except ThresholdError as mistake:
        return refuse(f"{mistake}. Name one of them: --threshold", USAGE)
    if args.overlay is None:
        return _tell(args, predictor, films, refusals, outcomes, None)
    if isinstance(predictor, EnsemblePredictor):
        return refuse(f"{args.model}: --overlay shows where one network looks; name one of the ensemble's", USAGE)
    # captum and matplotlib take seconds to import
    from cxr_core.explanation import NoFeatureMap
    from cxr_core.explanation.overlay import OverlayError, Overlays

    try:
        overlays = Overlays(args.overlay, predictor)
        overlays.refuse_existing(films)
        return _tell(args, predictor, films, refusals, outcomes, overlays)
    except NoFeatureMap as fault:
        return refuse(f"{args.model}: {fault}", USAGE)
    except OverlayError as fault:
        return refuse(str(fault), UNUSABLE)


def _tell(
    args: argparse.Namespace,
    predictor: Predictor,
    films: Sequence[str],
    refusals: Sequence[Refusal],
    outcomes: Iterator[Prediction | Refusal],
    overlays: "Overlays | None",
) -> int:
    """Print what there is to say of each film, and draw it if there are overlays. Raises OverlayError."""
    _warn_if_unfinished(predictor)
    for refusal in refusals:
        _report(refusal)
    refused, predictions = len(refusals), []
    try:
        for outcome in _with_bar(outcomes, len(films), hidden=args.json and sys.stdout.isatty()):
            if isinstance(outcome, Refusal):
                refused += 1
                _report(outcome)
                continue
            if overlays:
                overlays.write(outcome)
            if not args.json:
                predictions.append(outcome)
            elif not answer(json.dumps(_object(outcome, args))):
                return DONE
        if predictions:
            answer(_table(predictions, predictor, args.threshold))
    except OSError as fault:
        return refuse(f"the answer cannot be printed: {fault.strerror}", UNUSABLE)
    if refused:
        return refuse(f"{refused:,} of {len(films) + len(refusals):,} refused", USAGE)
    return DONE


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        "python -m cxr_core.predict",
        description=__doc__.partition(": ")[2],
        epilog=f"Exit code 2 if a film was refused; the others are predicted all the same. {DISCLAIMER.capitalize()}.",
        allow_abbrev=False,
    )
    add, rules = parser.add_argument, (HALF, *THRESHOLDS)
    add("model", type=Path, metavar="MODEL", help="the model.pt of a training, or a study's ensemble.json")
    add("images", nargs="+", metavar="IMAGE", help="film as PNG, JPEG, DICOM, or a folder of films")
    add(
        "--threshold",
        metavar="NAME",
        default=DEFAULT_RULE,
        help=f"what a finding is called from: {', '.join(rules)} (default: {DEFAULT_RULE}); half is 0.5, the others "
        "were fitted on the training's validation films",
    )
    add(
        "--overlay",
        type=Path,
        metavar="FOLDER",
        help="draw a PNG a film there: the film, and the heat map of each finding that is called over it",
    )
    add("--device", type=named_device, default=named_device(), help="cpu, cuda or cuda:N (default: cuda if present)")
    add("--json", action="store_true", help="print one JSON object a film, each on a line")
    return parser.parse_args(argv)


def _films(images: Sequence[str]) -> tuple[list[str], list[Refusal]]:
    """The files that are meant, those in folders included, and the folders of which nothing can be had."""
    films: list[str] = []
    refusals = []
    for image in images:
        if not os.path.isdir(image):
            films.append(image)
            continue
        try:
            found, others = films_in(image)
        except OSError as fault:
            refusals.append(Refusal(image, f"{fault.filename}: {fault.strerror}; name a folder that you may read"))
            continue
        if not found:
            refusals.append(Refusal(image, "no film in this folder; its films must be named .png, .jpg, .dcm or alike"))
        elif others:
            log.info("%s: %s films; files that are no pictures, left out: %s", image, f"{len(found):,}", f"{others:,}")
        films += found
    return films, refusals


def _with_bar(outcomes: Iterator[Prediction | Refusal], total: int, *, hidden: bool) -> Iterator[Prediction | Refusal]:
    """The same, with a bar; hidden where the answer itself runs down the terminal."""
    with nullcontext(lambda done, total: None) if hidden else film_bar("films predicted") as on_film:
        for done, outcome in enumerate(outcomes, 1):
            on_film(done, total)
            yield outcome


def _warn_if_unfinished(predictor: Predictor) -> None:
    checkpoint = predictor.checkpoint
    if checkpoint.progress is not None:
        done, epochs = checkpoint.progress["epoch"], checkpoint.config.epochs
        log.warning("%s: its training is not finished (%d of %d epochs)", checkpoint.path, done, epochs)


def _report(refusal: Refusal) -> None:
    # Above the bar, and as it is: no markup in file names, no wrapping.
    console.print(f"refused: {refusal.image}: {refusal.reason}", markup=False, highlight=False, soft_wrap=True)


def _object(prediction: Prediction, args: argparse.Namespace) -> dict[str, Any]:
    findings = {
        label: {"probability": of.probability, "threshold": finite(of.threshold), "above": of.above}
        for label, of in prediction.findings.items()
    }
    return {"image": prediction.image, "findings": findings, "model": str(args.model), "threshold": args.threshold}


def _table(predictions: Sequence[Prediction], predictor: Predictor, rule: str) -> str:
    """All films and findings, for reading."""
    config, text = predictor.checkpoint.config, io.StringIO()
    # As wide as a path may be: nothing is wrapped or cut.
    out = Console(file=text, width=5000, markup=False, emoji=False, highlight=False)
    table = Table(
        "film", "finding", "probability", "threshold", "", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    for column in table.columns[2:4]:
        column.justify = "right"
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for prediction in predictions:
        shown = prediction.image
        for label, finding in prediction.findings.items():
            table.add_row(shown, label, f"{finding.probability:.4f}", *_call(finding))
            shown = ""
        table.add_section()
    out.print(table, "")
    fitted = "0.5 for every finding" if rule == HALF else "fitted on the validation films of the training"
    what = f"{predictor.checkpoint.path}: {config.model.name}"
    if isinstance(predictor, EnsemblePredictor):
        what = f"ensemble of {', '.join(str(member.checkpoint.path) for member in predictor.members)}"
    out.print(f"model      {what} at {config.image_size} px")
    out.print(f"threshold  {rule}, {fitted}")
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def _call(finding: Finding) -> tuple[str, str]:
    if finding.above is None:
        return "none", "not known"
    return f"{finding.threshold:.4f}", "above" if finding.above else ""


if __name__ == "__main__":
    sys.exit(main())
