"""How films, heat maps and boxes are drawn, and pictures written."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle as Frame
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from cxr_core.data.policy import Aspect
from cxr_core.explanation.placement import Placement, Rectangle

MOST_PIXELS = 512
"""Longer side of a film in a picture; a smaller one keeps its own."""
INK, SOFT = "#1d2129", "#606875"
_BOX = "#37e06f"
_OPAQUE, _FAINT = 0.45, 0.15
"""Opacity of the hottest places, and the share of the greatest heat up to which the film is left as it is."""
_DPI = 110


def small(film: np.ndarray) -> np.ndarray:
    """A film of (H, W) uint8 or uint16 for a picture: uint8, with the film's own black and white."""
    low, high = float(film.min()), float(film.max())
    grey = ((film - low) * (255 / max(high - low, 1.0))).round().astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return np.asarray(picture)


def draw_film(axes: Axes, film: np.ndarray, size: tuple[int, int], boxes: Sequence[Rectangle] = ()) -> None:
    """Draw a film, and boxes on it. size: width and height that boxes are measured in; the film's shape may be less."""
    width, height = size
    axes.imshow(film, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="bilinear")
    for left, top, right, bottom in boxes:
        frame = Frame((left, top), right - left, bottom - top, fill=False, edgecolor=_BOX, linewidth=1.6)
        frame.set_path_effects([Stroke(linewidth=3, foreground="black"), Normal()])
        axes.add_patch(frame)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_frame_on(False)


def draw_heat(axes: Axes, heat: np.ndarray, size: tuple[int, int], aspect: Aspect) -> None:
    """Lay a heat map of the square that the network saw, (S, S), over a film; red is the map's own greatest value.

    A map of zeros draws nothing.
    """
    if heat.max() <= 0:
        return
    left, top, right, bottom = Placement.of(size, len(heat), aspect).on_film(len(heat))
    relative = heat / heat.max()
    colours = colormaps["turbo"](0.15 + 0.75 * relative)
    colours[..., 3] = _OPAQUE * np.clip((relative - _FAINT) / (0.5 - _FAINT), 0, 1)
    axes.imshow(colours, extent=(left, right, bottom, top), interpolation="bilinear")
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))


def say_empty(axes: Axes) -> None:
    """Write on a film that its map has nothing to show."""
    box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}
    text = "no place speaks for it"
    axes.text(0.5, 0.06, text, transform=axes.transAxes, ha="center", color="white", fontsize=8, bbox=box)


def cut(text: str, most: int) -> str:
    """A text of at most so many letters; of a longer one the end goes."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; a reader sees the old picture or the new one. Raises OSError."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial")
    try:
        figure.savefig(partial, format="png", dpi=_DPI)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
