"""From a film of any size and shape to a square one of 8 bits."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from cxr_core.data.policy import Aspect

_STRIP = 344
"""Columns that are averaged at a time: they fit into the cache, and as no multiple of 64 they do not crowd one set."""


def resize(film: np.ndarray, size: int, aspect: Aspect = "squash") -> np.ndarray:
    """Bring a film of (H, W) uint8 or uint16 to (size, size) uint8.

    A side that shrinks from n to m pixels is averaged by area: pixel i covers [i n / m, (i + 1) n / m), and a pixel at
    its ends counts by the part that is covered. A side that grows is interpolated linearly between the centres of
    pixels. Both sides are done in float32 and rounded once, halves up; uint16 is divided by 257 only then.
    squash: each side on its own. pad: the longer side fills the square and the other is scaled alike, rounded to
    pixels, between two black bars (the one below or on the right is the wider by a pixel where they differ).
    crop: the central square as wide as the shorter side (rounded to the top or left) is squashed.
    Raises ValueError for another shape or type.
    """
    if film.ndim != 2 or film.dtype not in (np.uint8, np.uint16) or not film.size:
        raise ValueError(f"a film is (height, width) of 8 or 16 bits without sign, not {film.dtype}{film.shape}")
    if aspect == "crop":
        film = _central_square(film)
    if aspect != "pad":
        return _scale(film, size, size)
    longer = max(film.shape)
    height, width = (max(1, (2 * side * size + longer) // (2 * longer)) for side in film.shape)
    square = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = _scale(film, height, width)
    return square


def _central_square(film: np.ndarray) -> np.ndarray:
    side = min(film.shape)
    top, left = ((length - side) // 2 for length in film.shape)
    return film[top : top + side, left : left + side]


def _scale(film: np.ndarray, height: int, width: int) -> np.ndarray:
    if film.dtype == np.uint8 and film.shape == (height, width):
        return np.ascontiguousarray(film)
    rows, columns = film.shape
    down, across = rows // height, columns // width
    if film.dtype == np.uint8 and (down * height, across * width) == film.shape and (down * across).bit_count() == 1:
        # Twice as fast, and exact where pixels are divided by a power of two.
        return np.asarray(Image.fromarray(film).reduce((across, down)))
    weights, unit = _whole_weights(rows, height) if film.dtype == np.uint8 else (_weights(rows, height), 1)
    narrow = np.empty((columns, height), np.float32)
    for left in range(0, columns, _STRIP):
        strip = film[:, left : left + _STRIP].astype(weights.dtype)
        narrow[left : left + _STRIP] = (weights @ strip).T
    scaled = _weights(columns, width) @ narrow
    scaled /= unit if film.dtype == np.uint8 else 257  # 65,535 / 255
    scaled += 0.5
    return np.ascontiguousarray(scaled.astype(np.uint8).T)


# Sparse, because Pillow's box filter weighs a pixel by 0 or 1, which jitters by half a pixel at broken factors; dense
# products take ten times as long, and BLAS would start threads of its own in each of the cache's.
@lru_cache(maxsize=1024)
def _weights(before: int, after: int) -> Any:
    """Sparse (after, before) float32: the share of each old pixel in each new one; rows sum to 1."""
    if after <= before:
        return _covered(before, after, np.float32) / np.float32(before)
    centre = np.clip((np.arange(after)[:, None] + 0.5) * before / after - 0.5, 0, before - 1)
    old = np.floor(centre).astype(int) + np.arange(2)
    return _sparse(1 - np.abs(old - centre), old, before, np.float32)


@lru_cache(maxsize=1024)
def _whole_weights(before: int, after: int) -> tuple[Any, int]:
    """Weights as whole numbers and the sum of a row, where a row of 8-bit pixels fits into 16 bits: a third faster."""
    unit = math.gcd(before, after)
    total = before // unit
    if after > before or total * 255 > 65535:
        return _weights(before, after), 1
    return _covered(before, after, np.uint16, unit), total


def _covered(before: int, after: int, dtype: type, unit: int = 1) -> Any:
    """Sparse (after, before): how much of each old pixel each new one covers, in units of `unit / after` of an old."""
    new = np.arange(after)[:, None]
    old = new * before // after + np.arange(-(-before // after) + 1)
    covered = np.minimum((old + 1) * after, (new + 1) * before) - np.maximum(old * after, new * before)
    return _sparse(np.maximum(covered, 0) // unit, old, before, dtype)


def _sparse(weights: np.ndarray, columns: np.ndarray, width: int, dtype: type) -> Any:
    from scipy.sparse import csr_array  # takes a third of a second: not for those who find their films cached

    row, place = np.nonzero(weights)
    entries: Any = weights[row, place].astype(dtype), (row, columns[row, place])
    return csr_array(entries, shape=(len(weights), width))
