"""Where a film lies in the square that a network sees, and where boxes and heat maps lie with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr_core.data.policy import Aspect

Rectangle = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels; a pixel's own are whole numbers."""


@dataclass(frozen=True)
class Placement:
    """The square's x is gain times the film's x plus offset, on each axis (across, down); see `data.cache.resize`."""

    gain: tuple[float, float]
    offset: tuple[float, float]

    @classmethod
    def of(cls, film: tuple[int, int], size: int, aspect: Aspect) -> "Placement":
        """film: its width and height. size: side of the square."""
        if aspect == "crop":
            side = min(film)
            gain = size / side
            return cls((gain, gain), (-gain * ((film[0] - side) // 2), -gain * ((film[1] - side) // 2)))
        if aspect == "pad":
            longer = max(film)
            across, down = (max(1, (2 * side * size + longer) // (2 * longer)) for side in film)
            return cls((across / film[0], down / film[1]), ((size - across) // 2, (size - down) // 2))
        return cls((size / film[0], size / film[1]), (0.0, 0.0))

    def on_square(self, box: Rectangle) -> Rectangle:
        """A box of the film on the square; it may reach beyond it."""
        (across, down), (right, below) = self.gain, self.offset
        return across * box[0] + right, down * box[1] + below, across * box[2] + right, down * box[3] + below

    def on_film(self, size: int) -> Rectangle:
        """The whole square on the film; with `pad` it reaches beyond it."""
        (across, down), (right, below) = self.gain, self.offset
        return -right / across, -below / down, (size - right) / across, (size - below) / down


def coverage(boxes: Sequence[Rectangle], size: int) -> np.ndarray:
    """The share of each pixel of a square that lies in a box, (size, size); boxes that overlap count once."""
    edges = np.arange(size, dtype=float)

    def along(low: float, high: float) -> np.ndarray:
        return np.asarray(np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0, 1))

    covered = np.zeros((size, size))
    for left, top, right, bottom in boxes:
        np.maximum(covered, np.outer(along(top, bottom), along(left, right)), out=covered)
    return covered


def contains(boxes: Sequence[Rectangle], x: float, y: float) -> bool:
    """Whether a point lies in one of the boxes."""
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)
