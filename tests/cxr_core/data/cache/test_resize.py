"""A film is averaged by area, with exact coverage, and becomes square in one of three ways."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_core.data.cache.resize import resize

HALF = 0.5 + 1e-3  # grey levels: one rounding, and float32 on the way to it


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def area_means(film: np.ndarray, height: int, width: int) -> np.ndarray:
    """Exact means: each pixel is split until a whole number of parts makes one of the result."""
    rows, columns = film.shape
    fine = film.repeat(height, axis=0).repeat(width, axis=1).astype(np.float64)
    return fine.reshape(height, rows, width, columns).mean(axis=(1, 3))


# Averaging


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_reducing_by_a_whole_factor_takes_the_mean_of_each_block(factor: int) -> None:
    film = noise(32 * factor, 32 * factor)
    blocks = film.reshape(32, factor, 32, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(film, 32), blocks, atol=HALF)


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 48), ((50, 37), 16), ((41, 90), 28), ((33, 32), 32)])
def test_reducing_by_a_broken_factor_counts_a_pixel_by_the_part_that_is_covered(shape, size: int) -> None:
    film = noise(*shape)
    np.testing.assert_allclose(resize(film, size), area_means(film, size, size), atol=HALF)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.sampled_from([np.uint8, np.uint16]))
def test_a_film_of_any_shape_is_averaged_by_area(rows: int, columns: int, size: int, dtype: type) -> None:
    film = noise(max(rows, size), max(columns, size), dtype=dtype)
    white = 255 / np.iinfo(dtype).max
    np.testing.assert_allclose(resize(film, size), area_means(film, size, size) * white, atol=HALF)


def test_a_wide_film_is_averaged_as_a_narrow_one_is() -> None:
    film = noise(40, 1500)
    np.testing.assert_allclose(resize(film, 24), area_means(film, 24, 24), atol=HALF)


def test_a_tall_film_whose_sums_exceed_16_bits_is_averaged_exactly() -> None:
    film = noise(1031, 10)  # a prime number of rows
    np.testing.assert_allclose(resize(film, 8), area_means(film, 8, 8), atol=HALF)


@pytest.mark.parametrize("size", [7, 8, 21])
def test_black_and_white_stay_what_they_are(size: int) -> None:
    for grey in (0, 255):
        assert (resize(np.full((20, 13), grey, np.uint8), size) == grey).all()
        assert (resize(np.full((20, 13), grey * 257, np.uint16), size) == grey).all()


def test_halves_are_rounded_up() -> None:
    film = np.array([[10, 11], [11, 10]], np.uint8)
    assert resize(film, 1) == [[11]]
    assert resize(film.astype(np.uint16) * 257, 1) == [[11]]


@pytest.mark.parametrize("shape", [(128, 128), (64, 128), (256, 32)])
def test_films_of_8_and_of_16_bits_are_rounded_alike(shape: tuple[int, int]) -> None:
    film = noise(*shape)
    np.testing.assert_array_equal(resize(film, 32), resize(film.astype(np.uint16) * 257, 32))


def test_16_bits_are_kept_until_after_the_averaging() -> None:
    """Four pixels of 0.4 grey levels: brought to 8 bits first, they would be black; their mean with 0.9 is not."""
    film = np.array([[103, 103], [231, 231]], np.uint16)
    assert resize(film, 1) == [[1]]  # (103 + 231) / 2 / 257 = 0.65
    assert resize(np.array([[103, 103], [103, 103]], np.uint16), 1) == [[0]]


def test_enlarging_is_bilinear() -> None:
    film = noise(20, 26)
    bilinear = torch.nn.functional.interpolate(torch.from_numpy(film)[None, None].double(), (45, 45), mode="bilinear")
    np.testing.assert_allclose(resize(film, 45), bilinear[0, 0], atol=HALF)


def test_a_side_that_grows_does_not_hinder_the_averaging_of_the_other() -> None:
    film = np.repeat(noise(64, 1), 8, axis=1)
    np.testing.assert_allclose(resize(film, 16), area_means(film, 16, 16), atol=HALF)


def test_a_film_of_the_right_size_is_left_alone() -> None:
    film = noise(32, 32)
    np.testing.assert_array_equal(resize(film, 32), film)


# Aspect


def test_squash_scales_each_side_on_its_own() -> None:
    film = noise(96, 64)
    blocks = film.reshape(32, 3, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(film, 32, "squash"), blocks, atol=HALF)


@pytest.mark.parametrize("turned", [False, True])
def test_pad_fits_the_longer_side_between_black_bars_of_equal_width(turned: bool) -> None:
    film = noise(128, 64)
    expected = np.zeros((32, 32))
    expected[:, 8:24] = film.reshape(32, 4, 16, 4).mean(axis=(1, 3))
    padded = resize(film.T if turned else film, 32, "pad")
    np.testing.assert_allclose(padded, expected.T if turned else expected, atol=HALF)


@pytest.mark.parametrize(("width", "left", "right"), [(60, 8, 9), (62, 8, 8), (1, 15, 16)])
def test_pad_rounds_the_shorter_side_and_leaves_the_wider_bar_on_the_right(width: int, left: int, right: int) -> None:
    """On 32 px of 128: 60 px become 15, 62 px become 15.5 and so 16, and 1 px stays 1."""
    inside = (resize(np.full((128, width), 255, np.uint8), 32, "pad") == 255).all(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(inside), np.arange(left, 32 - right))


@pytest.mark.parametrize("turned", [False, True])
def test_crop_keeps_the_central_square(turned: bool) -> None:
    film = noise(128, 64)
    expected = film[32:96].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    cropped = resize(film.T if turned else film, 16, "crop")
    np.testing.assert_allclose(cropped, expected.T if turned else expected, atol=HALF)


def test_crop_rounds_an_odd_rest_to_the_top() -> None:
    film = noise(7, 4)
    np.testing.assert_array_equal(resize(film, 4, "crop"), film[1:5])


@pytest.mark.parametrize("aspect", ["squash", "pad", "crop"])
def test_a_square_film_is_the_same_in_every_aspect(aspect) -> None:
    film = noise(48, 48)
    np.testing.assert_array_equal(resize(film, 20, aspect), resize(film, 20))


# What is no film


@pytest.mark.parametrize(
    "film",
    [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), np.zeros((8, 8), np.int16), np.zeros((0, 8), np.uint8)],
    ids=["colour", "floats", "signed", "empty"],
)
def test_what_is_no_film_is_refused_with_its_type_and_shape(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a film is \(height, width\) .* not (uint8|float64|int16)\("):
        resize(film, 4)
