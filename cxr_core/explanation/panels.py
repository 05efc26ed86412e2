"""Panels of one finding: films that are called rightly, called wrongly and missed, each beside its heat map."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cxr_core.data.policy import Aspect
from cxr_core.explanation.drawing import INK, SOFT, cut, draw_film, draw_heat, save, say_empty
from cxr_core.explanation.placement import Rectangle
from cxr_core.explanation.selection import Kind

_SIDE, _BETWEEN, _APART = 2.2, 0.05, 0.3
"""Inches of a film, between it and its heat map, and from there to the next film."""
_LEFT, _TOP, _CAPTION, _FOOT = 0.95, 0.6, 0.3, 0.5
_LEGEND = (
    "Left the film, right the heat map (Grad-CAM) over it: red speaks most for the finding, by the scale of each film; "
    "what has no colour does not speak for it. Above: the probability, and the threshold that it reaches or does not."
)


@dataclass(frozen=True)
class Shown:
    """A film in a panel. film: (H, W) uint8; size: width and height that its boxes are measured in."""

    image: str
    probability: float
    film: np.ndarray
    size: tuple[int, int]
    heat: np.ndarray
    boxes: Sequence[Rectangle]


def draw_panel(
    path: Path,
    label: str,
    threshold: float,
    rows: Mapping[Kind, tuple[int, Sequence[Shown]]],
    aspect: Aspect,
) -> None:
    """Draw a panel with a row of films for each kind that has some.

    rows: how many films there are of each kind, and those shown; of all kinds together one at least.
    """
    drawn = {kind: (count, shown) for kind, (count, shown) in rows.items() if shown}
    columns = max(len(shown) for _, shown in drawn.values())
    pair, line = 2 * _SIDE + _BETWEEN + _APART, _SIDE + _CAPTION
    width, height = _LEFT + columns * pair, _TOP + len(drawn) * line + _FOOT
    figure = Figure(figsize=(width, height))
    counts = ", ".join(f"{count:,} {kind}" for kind, (count, _) in rows.items())
    figure.text(0.1 / width, 1 - 0.25 / height, f"{label}: {counts}", fontsize=12, color=INK, va="center")
    boxed = any(one.boxes for _, shown in drawn.values() for one in shown)
    legend = _LEGEND + (" Green: radiologists' boxes of this finding." if boxed else "")
    legend = textwrap.fill(legend, int(15.5 * width))
    figure.text(0.1 / width, (_FOOT - 0.1) / height, legend, fontsize=7.5, color=SOFT, va="top")
    for row, (kind, (count, shown)) in enumerate(drawn.items()):
        bottom = height - _TOP - (row + 1) * line + 0.05
        name = "\n".join([*kind.split(), f"{len(shown)} of {count:,}"])
        figure.text((_LEFT - 0.1) / width, (bottom + _SIDE / 2) / height, name, fontsize=9, ha="right", va="center")
        for column, one in enumerate(shown):
            left = _LEFT + column * pair
            places = [
                figure.add_axes((x / width, bottom / height, _SIDE / width, _SIDE / height))
                for x in (left, left + _SIDE + _BETWEEN)
            ]
            for axes in places:
                draw_film(axes, one.film, one.size, one.boxes)
            draw_heat(places[1], one.heat, one.size, aspect)
            if one.heat.max() <= 0:
                say_empty(places[1])
            sign = "≥" if one.probability >= threshold else "<"
            places[0].set_title(cut(one.image, 34), fontsize=8, color=SOFT, loc="left", pad=3)
            said = f"{one.probability:.3f} {sign} {threshold:.3f}"
            places[1].set_title(said, fontsize=8, color=INK, loc="right", pad=3)
    save(figure, path)
