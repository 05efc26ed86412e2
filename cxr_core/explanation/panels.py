"""Panels of one finding: films that are called rightly, called wrongly and missed, each beside its heat map."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cxr_core.data.policy import Aspect
from cxr_core.explanation.drawing import INK, SOFT, draw_film, draw_heat, save
from cxr_core.explanation.placement import Rectangle
from cxr_core.explanation.selection import Kind

_WIDTH, _HEIGHT = 4.6, 2.75
"""Inches of a film with its heat map, caption included."""
_LEGEND = (
    "Left the film, right the heat map (Grad-CAM) over it: red speaks most for the finding, by the scale of each film; "
    "what has no colour does not speak for it."
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
    """Draw a panel with a row of films for each kind. rows: how many films are of a kind, and those shown."""
    columns = max([1, *(len(shown) for _, shown in rows.values())])
    figure = Figure(figsize=(0.9 + _WIDTH * columns, 0.75 + _HEIGHT * len(rows)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.02)  # type: ignore[union-attr]
    boxed = any(one.boxes for _, shown in rows.values() for one in shown)
    figure.suptitle(f"{label}, called from {threshold:.3f} on", fontsize=13, color=INK, x=0.01, ha="left")
    legend = _LEGEND + (" Green: radiologists' boxes of this finding." if boxed else "")
    figure.supxlabel(textwrap.fill(legend, 62 * columns), fontsize=8, color=SOFT, x=0.01, ha="left")
    axes = figure.subplots(len(rows), 2 * columns, squeeze=False)
    for line, (kind, (count, shown)) in zip(axes, rows.items(), strict=True):
        for place in line:
            place.set_axis_off()
        name = "\n".join([*kind.split(), f"{len(shown)} of {count:,}"])
        line[0].text(-0.06, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9, color=INK)
        for (left, right), one in zip(line.reshape(-1, 2), shown, strict=False):
            left.set_axis_on()
            right.set_axis_on()
            draw_film(left, one.film, one.size, one.boxes)
            draw_film(right, one.film, one.size, one.boxes)
            draw_heat(right, one.heat, one.size, aspect)
            left.set_title(textwrap.shorten(one.image, 34), fontsize=8, color=SOFT, loc="left", pad=3)
            right.set_title(f"probability {one.probability:.3f}", fontsize=8, color=INK, loc="right", pad=3)
            if one.heat.max() <= 0:
                right.text(0.5, 0.02, "nothing speaks for it", transform=right.transAxes, ha="center", color="white")
    save(figure, path)
