"""Boxes on the squares that networks see, held against the code that makes films square."""

import numpy as np
import pytest

from cxr_core.data.cache.resize import resize
from cxr_core.explanation.placement import Placement, contains, coverage

SHAPES = [(200, 300), (301, 190), (128, 128), (97, 333)]
ASPECTS = ("squash", "pad", "crop")


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [32, 61])
def test_a_box_lies_on_the_square_where_its_bright_pixels_come_to_lie(
    aspect: str, shape: tuple[int, int], size: int
) -> None:
    rng = np.random.default_rng(size)
    for _ in range(5):
        (top, bottom), (left, right) = (sorted(rng.choice(side, 2, replace=False)) for side in shape)
        film = np.zeros(shape, np.uint8)
        film[top:bottom, left:right] = 255
        box = Placement.of((shape[1], shape[0]), size, aspect).on_square((left, top, right, bottom))
        assert np.abs(coverage([box], size) - resize(film, size, aspect) / 255).max() < 0.01


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_square_lies_on_the_film_where_it_was_taken_from(aspect: str, shape: tuple[int, int]) -> None:
    place = Placement.of((shape[1], shape[0]), 64, aspect)
    assert place.on_square(place.on_film(64)) == pytest.approx((0, 0, 64, 64))
    left, top, right, bottom = place.on_film(64)
    if aspect == "squash":
        assert (left, top, right, bottom) == pytest.approx((0, 0, shape[1], shape[0]))
    elif aspect == "crop":
        assert right - left == pytest.approx(min(shape))
        assert (left + right) / 2 == pytest.approx(shape[1] / 2, abs=0.5)
    else:
        assert max(right - left, bottom - top) == pytest.approx(max(shape), rel=0.02)


def test_boxes_that_overlap_count_once() -> None:
    assert coverage([(0, 0, 4, 4), (2, 2, 6, 6)], 8).sum() == 16 + 16 - 4


def test_a_box_beyond_the_square_covers_what_lies_on_it() -> None:
    assert coverage([(-5, -5, 1.5, 2)], 8).sum() == pytest.approx(3)
    assert coverage([(9, 9, 12, 12)], 8).sum() == 0


def test_a_point_lies_in_any_of_the_boxes() -> None:
    boxes = [(0, 0, 2, 2), (5, 5, 6, 6)]
    assert [contains(boxes, x, y) for x, y in ((1, 1), (5.5, 5.5), (3, 3), (1, 5.5))] == [True, True, False, False]
