"""Contact sheets: some films of a split, small, side by side, as a reader pages through a new data set."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_core.data.cache import open_cache

_SIDE = 112
"""Side of a picture, in pixels; a smaller film keeps its own."""
_SEED = 48


@dataclass(frozen=True)
class Picture:
    """A film on a contact sheet. uri: a JPEG as a data URI. positive: those of the sheet's labels that the film has."""

    uri: str
    image: str
    patient: str
    view: str
    positive: tuple[str, ...]


def contact_sheet(
    films: pd.DataFrame, cache: Path, labels: Sequence[str], shown: Sequence[str], count: int = 48
) -> list[Picture]:
    """Pictures of `count` films drawn at random, the same at every call.

    shown: labels of which the sheet holds a film each if there is one, at the price of more than `count` films.
    """
    images, manifest = open_cache(cache)
    place = pd.Series(np.arange(len(manifest)), index=manifest["image"])
    return [
        Picture(
            _jpeg(images[place[film["image"]]]),
            film["image"],
            str(film["patient"]),
            str(view) if pd.notna(view := film.get("view")) else "",
            tuple(label for label in labels if film[label] == 1),
        )
        for film in films.iloc[_choose(films, shown, count)].to_dict("records")
    ]


def _choose(films: pd.DataFrame, shown: Sequence[str], count: int) -> list[int]:
    """Positions of films in random order, those that show a label not seen before first."""
    order = np.random.default_rng(_SEED).permutation(len(films))
    present = films[list(shown)].to_numpy()[order] == 1
    first = dict.fromkeys(int(column.argmax()) for column in present.T if column.any())
    others = [row for row in range(len(order)) if row not in first]
    return [int(order[row]) for row in (*first, *others[: max(0, count - len(first))])]


def _jpeg(film: np.ndarray) -> str:
    picture = Image.fromarray(film)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
