"""Every registered augmentation keeps the same rules; what `affine` does is measured on bright dots."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from cxr_core.augmentations import affine, augmentations
from cxr_core.registry import Chosen

STILL = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "contrast": 0.0}
CENTRE = 31.5
every_augmentation = pytest.mark.parametrize("name", augmentations)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 32, 32, generator=seeded(5))


def dots(count: int, *places: tuple[int, int]) -> Tensor:
    """The same film of 64 px many times, with dots of 2 x 2 px whose centres lie at (row, column) from the middle."""
    film = torch.zeros(1, 1, 64, 64)
    for row, column in places:
        film[..., 31 + row : 33 + row, 31 + column : 33 + column] = 1
    return film.repeat(count, 1, 1, 1)


def centres(films: Tensor) -> np.ndarray:
    """Centre of brightness from the middle, (N, 2): rows down, columns to the right."""
    weight = films[:, 0].double() / films[:, 0].double().sum((1, 2), keepdim=True)
    axis = torch.arange(64) - CENTRE
    return torch.stack([(weight.sum(2) * axis).sum(1), (weight.sum(1) * axis).sum(1)], 1).numpy()


def uniformly(values: np.ndarray, bound: float) -> bool:
    """Kolmogorov-Smirnov at p > 1e-4: a false alarm in 1 of 10,000 seeds."""
    return kstest(values, "uniform", (-bound, 2 * bound)).pvalue > 1e-4


# Rules of all augmentations


@every_augmentation
def test_films_keep_their_shape_and_type(name: str) -> None:
    films = noise()
    moved = augmentations.call(Chosen(name), films, seeded())
    assert (moved.shape, moved.dtype) == (films.shape, films.dtype)
    assert moved.isfinite().all()


@every_augmentation
def test_the_same_generator_gives_the_same_films(name: str) -> None:
    assert augmentations.call(Chosen(name), noise(), seeded()).equal(
        augmentations.call(Chosen(name), noise(), seeded())
    )


@every_augmentation
def test_the_process_wide_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    augmentations.call(Chosen(name), noise(), seeded())
    assert torch.get_rng_state().equal(before)


@every_augmentation
def test_the_films_given_are_left_alone(name: str) -> None:
    films = noise()
    augmentations.call(Chosen(name), films, seeded())
    assert films.equal(noise())


@every_augmentation
def test_films_stay_as_they_are_when_all_amounts_are_zero(name: str) -> None:
    amounts = {key: 0.0 for key, p in augmentations[name].parameters.items() if p.range and p.range.low == 0}
    moved = augmentations.call(Chosen(name, amounts), noise(), seeded())
    torch.testing.assert_close(moved, noise(), rtol=0, atol=1e-5)


@every_augmentation
def test_the_heart_stays_on_its_side_unless_a_flip_is_asked_for(name: str) -> None:
    moved = augmentations.call(Chosen(name), dots(200, (4, 20)), seeded())
    assert (centres(moved)[:, 1] > 0).all()


@every_augmentation
def test_the_head_stays_up(name: str) -> None:
    moved = augmentations.call(Chosen(name), dots(200, (-20, 4)), seeded())
    assert (centres(moved)[:, 0] < 0).all()


# affine


def test_affine_shifts_each_film_by_up_to_its_share_of_the_side() -> None:
    moved = centres(affine(dots(500, (0, 0)), seeded(), **STILL | {"shift": 0.2}))
    assert uniformly(moved[:, 0], 0.2 * 64)
    assert uniformly(moved[:, 1], 0.2 * 64)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 4 / math.sqrt(500)  # rows and columns independent, within 4 sigma


def test_affine_turns_each_film_about_its_middle_by_up_to_its_degrees() -> None:
    row, column = centres(affine(dots(500, (-16, 0)), seeded(), **STILL | {"rotation": 30.0})).T
    np.testing.assert_allclose(np.hypot(row, column), 16, atol=0.25)
    assert uniformly(np.degrees(np.arctan2(column, -row)), 30)


def test_affine_scales_each_film_about_its_middle_by_up_to_its_share() -> None:
    row, column = centres(affine(dots(500, (-16, 0)), seeded(), **STILL | {"scale": 0.25})).T
    np.testing.assert_allclose(column, 0, atol=1e-4)
    assert uniformly(-row / 16 - 1, 0.25)


def test_affine_multiplies_each_film_by_its_contrast() -> None:
    films = noise(500)
    ratio = affine(films, seeded(), **STILL | {"contrast": 0.3}) / films
    torch.testing.assert_close(ratio.amin((1, 2, 3)), ratio.amax((1, 2, 3)), rtol=1e-2, atol=0)
    assert uniformly(ratio.mean((1, 2, 3)).numpy() - 1, 0.3)


def test_affine_mirrors_half_of_the_films_if_asked_to() -> None:
    """1,000 films within 4 sigma of a half (sigma 1.6 %): a false alarm in 1 of 16,000 seeds."""
    columns = centres(affine(dots(1000, (0, 20)), seeded(), **STILL, horizontal_flip=True))[:, 1]
    np.testing.assert_allclose(np.abs(columns), 20, atol=1e-3)
    assert abs((columns < 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(1000)


def test_affine_never_turns_a_film_upside_down() -> None:
    rows = centres(affine(dots(200, (-20, 0)), seeded(), **STILL, horizontal_flip=True))[:, 0]
    np.testing.assert_allclose(rows, -20, atol=1e-3)


def test_affine_keeps_distances_when_it_turns_and_mirrors() -> None:
    options = STILL | {"rotation": 40.0, "shift": 0.1}
    ends = [
        centres(affine(dots(200, place), seeded(), **options, horizontal_flip=True)) for place in ((-8, -6), (8, 6))
    ]
    np.testing.assert_allclose(np.hypot(*(ends[0] - ends[1]).T), 20, atol=0.35)


def test_affine_keeps_the_shape_of_what_it_turns_scales_and_mirrors() -> None:
    """A right angle with equal arms stays one: no film is sheared or stretched in one direction."""
    options = STILL | {"rotation": 40.0, "scale": 0.3}
    corner, up, right = (
        centres(affine(dots(200, place), seeded(), **options, horizontal_flip=True))
        for place in ((0, 0), (-16, 0), (0, 16))
    )
    first, second = up - corner, right - corner
    lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(lengths[0], lengths[1], atol=0.5)
    np.testing.assert_allclose((first * second).sum(axis=1) / lengths[0] / lengths[1], 0, atol=0.03)


def test_affine_draws_for_each_film_alone() -> None:
    moved = affine(dots(20, (-16, 0)), seeded())
    assert len(np.unique(centres(moved).round(3), axis=0)) == 20


def test_affine_differs_from_batch_to_batch() -> None:
    generator = seeded()
    assert not affine(noise(), generator).equal(affine(noise(), generator))
