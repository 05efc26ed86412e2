"""The section on the explanation: its numbers, and its pictures small enough to lie within the page."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from search.finals.explanation import explanation_folder, read_explanation
from search.report.reading import Reading

_WIDTH = 1280
"""Pixels of a picture in the page; the PNGs in the folder are larger."""
_QUALITY = 72


def explanation(reading: Reading) -> dict[str, Any] | None:
    """Heat maps against boxes and random networks, panels of films, and the network inside; None of earlier finals."""
    study = reading.study.folder
    record = read_explanation(study)
    if record is None or not reading.finals or record["training"] != reading.finals["delivered"]:
        return None
    folder, insides = explanation_folder(study), record["insides"]
    panels = [(label, of, _picture(folder, of["picture"])) for label, of in record["labels"].items() if of["picture"]]
    return {
        "record": record,
        "panels": panels,
        "without": [label for label, of in record["labels"].items() if not of["picture"]],
        "filters": _picture(folder, insides["first_filters"]["picture"]) if "first_filters" in insides else None,
        "maps": _picture(folder, insides["feature_maps"]["picture"]),
        "rates": _rates(record["localisation"]),
    }


def _rates(localisation: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of the table: all pairs, those that were called, and each finding."""
    if localisation is None:
        return []
    rows = [("all findings", localisation["overall"]), ("of them called", localisation["called"])]
    return [row for row in [*rows, *localisation["labels"].items()] if row[1]["pairs"]]


def _picture(folder: Path, name: str) -> dict[str, Any] | None:
    """A picture as a data URI with its size; None if somebody has removed it."""
    try:
        with Image.open(folder / name) as image:
            picture = image.convert("RGB")
    except OSError:
        return None
    picture.thumbnail((_WIDTH, 10 * _WIDTH))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return {"uri": uri, "width": picture.width, "height": picture.height}
