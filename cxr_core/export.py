"""The command `python -m cxr_core.export`: writes a saved network for other runtimes, and says how they agree."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_core.console import refuse, show_log
from cxr_core.exit_codes import DONE, INTERRUPTED, UNUSABLE, USAGE

if TYPE_CHECKING:
    import numpy as np

    from cxr_core.checkpoint import Checkpoint

log = logging.getLogger(__name__)

_MOST = 256
"""Films that are compared: more would say the same."""


def main(argv: list[str] | None = None) -> int:
    """Export a network; returns the exit code."""
    args = _parse(argv)
    # torch takes seconds to import: not for --help or a mistyped option
    from cxr_core.checkpoint import CheckpointError, load_checkpoint
    from cxr_core.runtimes import ExportError, export

    show_log("cxr_core")
    try:
        checkpoint = load_checkpoint(args.model)
        agreement = export(checkpoint, args.out, _squares(checkpoint, args.films))
    except (CheckpointError, ExportError) as mistake:
        return refuse(str(mistake), USAGE)
    except OSError as fault:
        return refuse(f"{fault.filename or args.out}: {fault.strerror or fault}", UNUSABLE)
    except KeyboardInterrupt:
        return refuse("interrupted; nothing is written", INTERRUPTED)
    if args.json:
        print(json.dumps({"file": str(args.out), "agreement": asdict(agreement)}))
        return DONE
    which = "1 film" if agreement.films == 1 else f"{agreement.films} films"
    print(f"network    {args.out}")
    print(
        f"agreement  on {which}: probabilities differ by {agreement.largest:.1e} at most, {agreement.mean:.1e} on "
        f"average; up to {agreement.tolerance:g} is let pass"
    )
    return DONE


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        "python -m cxr_core.export", description=__doc__.partition(": ")[2], allow_abbrev=False
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="checkpoint: the model.pt of a training")
    add("--out", type=Path, required=True, metavar="FILE", help="FILE.onnx, or FILE.pt2 for a program of torch.export")
    add(
        "--films",
        nargs="+",
        required=True,
        metavar="IMAGE",
        help=f"films to compare the two on, or folders of films; of more than {_MOST} some are taken",
    )
    add("--json", action="store_true", help="print the agreement as one JSON object")
    args = parser.parse_args(argv)
    if not args.out.parent.is_dir():
        parser.error(f"--out {args.out}: there is no folder {args.out.parent}")
    return args


def _squares(checkpoint: "Checkpoint", images: Sequence[str]) -> "np.ndarray":
    """Films in files as the network takes them, (N, S, S) uint8. Raises ExportError, OSError."""
    import numpy as np

    from cxr_core.data.film_files import films_in, read_film
    from cxr_core.predict import Predictor
    from cxr_core.runtimes import ExportError

    paths = [path for image in images for path in (films_in(image)[0] if Path(image).is_dir() else [image])]
    predictor, squares = Predictor(checkpoint), []
    for place in sorted({int(at) for at in np.linspace(0, len(paths) - 1, min(_MOST, len(paths)))}):
        try:
            squares.append(predictor.square(read_film(paths[place], strict=True)))
        except ValueError as reason:
            log.warning("%s: left out: %s", paths[place], reason)
    if not squares:
        raise ExportError(f"--films {' '.join(images)}: no film among them; name one chest film, or a folder of films")
    return np.stack(squares)


if __name__ == "__main__":
    sys.exit(main())
