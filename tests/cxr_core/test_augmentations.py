"""Every registered augmentation keeps the same rules; what `standard` does to geometry is measured on bright dots."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvision

from cxr_core.augmentations import augmentations, equalized, standard
from cxr_core.registry import Chosen

PARTS = augmentations["standard"].parameters
STILL = {name: 0.0 for name, part in PARTS.items() if part.range and part.range.low == 0}
FULL = {name: part.range.high for name, part in PARTS.items() if part.range} | {"horizontal_flip": True}
CENTRE = 31.5
every_augmentation = pytest.mark.parametrize("name", augmentations)
every_amount = pytest.mark.parametrize("amounts", [{}, FULL], ids=["defaults", "everything"])


def only(**parts: object) -> Callable[[Tensor, torch.Generator], Tensor]:
    """`standard` with these parts and no others."""
    return lambda films, generator: standard(films, generator, **STILL | parts)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 32, 32, generator=seeded(5))


def grey(count: int = 500) -> Tensor:
    """Films whose levels all lie well inside [0, 1], so that nothing is cut off."""
    return 0.4 + 0.2 * noise(count)


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


def uniformly(values: np.ndarray | Tensor, low: float, high: float) -> bool:
    """Kolmogorov-Smirnov at p > 1e-4: a false alarm in 1 of 10,000 seeds."""
    return kstest(np.asarray(values).ravel(), "uniform", (low, high - low)).pvalue > 1e-4


def half_of(chosen: np.ndarray | Tensor) -> bool:
    """Within 4 sigma of a half: a false alarm in 1 of 16,000 seeds."""
    return abs(np.asarray(chosen, float).mean() - 0.5) < 4 * 0.5 / math.sqrt(len(chosen))


# Rules of all augmentations


def call(name: str, amounts: dict, films: Tensor, generator: torch.Generator) -> Tensor:
    taken = {key: value for key, value in amounts.items() if key in augmentations[name].parameters}
    return augmentations.call(Chosen(name, taken), films, generator)


@every_augmentation
@every_amount
def test_films_keep_their_shape_and_type_and_stay_between_0_and_1(name: str, amounts: dict) -> None:
    moved = call(name, amounts, noise(), seeded())
    assert (moved.shape, moved.dtype) == (noise().shape, noise().dtype)
    assert moved.min() >= 0
    assert moved.max() <= 1


@every_augmentation
@every_amount
def test_the_same_generator_gives_the_same_films(name: str, amounts: dict) -> None:
    assert call(name, amounts, noise(), seeded()).equal(call(name, amounts, noise(), seeded()))


@every_augmentation
@every_amount
def test_the_process_wide_generator_is_left_alone(name: str, amounts: dict) -> None:
    before = torch.get_rng_state()
    call(name, amounts, noise(), seeded())
    assert torch.get_rng_state().equal(before)


@every_augmentation
@every_amount
def test_the_films_given_are_left_alone(name: str, amounts: dict) -> None:
    films = noise()
    call(name, amounts, films, seeded())
    assert films.equal(noise())


@every_augmentation
@pytest.mark.parametrize("part", FULL)
def test_each_part_alone_leaves_the_films_given_alone(name: str, part: str) -> None:
    films = noise()
    call(name, STILL | {part: FULL[part]}, films, seeded())
    assert films.equal(noise())


@every_augmentation
def test_films_stay_as_they_are_when_all_amounts_are_zero(name: str) -> None:
    assert call(name, STILL, noise(), seeded()).equal(noise())


@every_augmentation
def test_the_heart_stays_on_its_side_unless_a_flip_is_asked_for(name: str) -> None:
    moved = augmentations.call(Chosen(name), dots(200, (4, 20)), seeded())
    assert (centres(moved)[:, 1] > 0).all()


@every_augmentation
def test_the_head_stays_up(name: str) -> None:
    moved = augmentations.call(Chosen(name), dots(200, (-20, 4)), seeded())
    assert (centres(moved)[:, 0] < 0).all()


def test_nothing_is_drawn_when_all_amounts_are_zero() -> None:
    generator = seeded()
    standard(noise(), generator, **STILL)
    assert generator.get_state().equal(seeded().get_state())


@pytest.mark.parametrize("part", [*STILL, "horizontal_flip"])
def test_each_part_draws_for_each_film_alone_and_anew_for_each_batch(part: str) -> None:
    film, generator = noise(1).repeat(40, 1, 1, 1), seeded()
    first, second = (only(**{part: FULL[part] if part == "horizontal_flip" else 0.5})(film, generator) for _ in "ab")
    assert not first.equal(second)
    assert len(torch.unique(first.flatten(1), dim=0)) > (1 if part in ("horizontal_flip", "equalize") else 20)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")
@every_augmentation
def test_no_part_waits_for_the_accelerator(name: str) -> None:
    films, generator = noise().cuda(), torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(name, FULL, films, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Geometry


def test_shift_moves_each_film_by_up_to_its_share_of_the_side() -> None:
    moved = centres(only(shift=0.2)(dots(500, (0, 0)), seeded()))
    assert uniformly(moved[:, 0], -0.2 * 64, 0.2 * 64)
    assert uniformly(moved[:, 1], -0.2 * 64, 0.2 * 64)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 4 / math.sqrt(500)  # rows and columns independent, within 4 sigma


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({"rotation": 30.0}, -30, 30),
        ({"rotation": 20.0, "rotation_from": -25.0}, -25, 20),
        ({"rotation": 30.0, "rotation_from": 0.0}, 0, 30),
        ({"rotation": 0.0, "rotation_from": -30.0}, -30, 0),
    ],
)
def test_rotation_turns_each_film_about_its_middle_between_its_degrees(options: dict, low: float, high: float) -> None:
    row, column = centres(only(**options)(dots(500, (-16, 0)), seeded())).T
    np.testing.assert_allclose(np.hypot(row, column), 16, atol=0.25)
    assert uniformly(np.degrees(np.arctan2(-column, -row)), low, high)


def test_positive_degrees_turn_counter_clockwise_as_in_torchvision() -> None:
    generator, films = seeded(), dots(20, (-16, 0), (8, 10))
    degrees = torch.rand(20, generator=seeded()) * 30
    expected = torch.cat(
        [
            torchvision.rotate(film[None], float(angle), torchvision.InterpolationMode.BILINEAR)
            for film, angle in zip(films, degrees, strict=True)
        ]
    )
    turned = only(rotation=30.0, rotation_from=0.0)(films, generator)
    np.testing.assert_allclose(centres(turned), centres(expected), atol=0.02)


def test_scale_enlarges_each_film_about_its_middle_by_up_to_its_share() -> None:
    row, column = centres(only(scale=0.25)(dots(500, (-16, 0)), seeded())).T
    np.testing.assert_allclose(column, 0, atol=1e-4)
    assert uniformly(-row / 16, 0.75, 1.25)


def test_crop_enlarges_a_square_that_lies_anywhere_inside_the_film() -> None:
    """A film of its own coordinates tells where each corner of the crop came from."""
    axis = (torch.arange(64) + 0.5) / 64
    places = torch.stack([axis.expand(64, 64), axis[:, None].expand(64, 64)])  # columns, rows
    films = places.repeat(500, 1, 1).unsqueeze(1)  # a film of columns, one of rows, and again
    cropped = only(crop=0.5)(films, seeded())[:, 0]
    step = (cropped[::2, :, 40] - cropped[::2, :, 24]).mean(1) / (16 / 64)  # side of the crop, in shares
    assert uniformly(step, 0.5, 1)
    start = cropped[::2, 0, 32] - step / 2 - step / 128
    share = start / (1 - step)  # of the room that is left
    assert uniformly(share[step < 0.99], 0, 1)
    assert cropped.min() >= axis[0]
    assert cropped.max() <= axis[-1]


def test_a_crop_keeps_the_shape_of_what_it_enlarges() -> None:
    ends = [centres(only(crop=0.3)(dots(100, place), seeded())) for place in ((-6, 0), (6, 0), (0, -6), (0, 6))]
    inside = np.all([np.abs(end).max(axis=1) < 28 for end in ends], axis=0)
    heights, widths = np.linalg.norm(ends[1] - ends[0], axis=1), np.linalg.norm(ends[3] - ends[2], axis=1)
    np.testing.assert_allclose(heights[inside], widths[inside], atol=0.4)
    assert heights[inside].max() > 14  # 12 px, enlarged


def test_a_crop_is_taken_of_the_turned_film() -> None:
    """In one interpolation as in two, of which the second goes on with the generator of the first."""
    films, generator = dots(300, (-10, 6)), seeded()
    turned = only(rotation=40.0)(films, generator)
    twice = centres(only(crop=0.4)(turned, generator))
    inside = np.abs(twice).max(axis=1) < 28
    assert inside.sum() > 100
    np.testing.assert_allclose(
        centres(only(rotation=40.0, crop=0.4)(films, seeded()))[inside], twice[inside], atol=0.25
    )


def test_half_of_the_films_are_mirrored_if_a_flip_is_asked_for() -> None:
    columns = centres(only(horizontal_flip=True)(dots(1000, (0, 20)), seeded()))[:, 1]
    np.testing.assert_allclose(np.abs(columns), 20, atol=1e-3)
    assert half_of(columns < 0)


def test_a_mirrored_film_is_mirrored_exactly() -> None:
    films, mirrored = noise(20), only(horizontal_flip=True)(noise(20), seeded())
    same, flipped = ((mirrored - other).abs().amax((1, 2, 3)) < 1e-5 for other in (films, films.flip(3)))
    assert (same ^ flipped).all()
    assert flipped.any()


def test_no_film_is_turned_upside_down() -> None:
    rows = centres(only(horizontal_flip=True)(dots(200, (-20, 0)), seeded()))[:, 0]
    np.testing.assert_allclose(rows, -20, atol=1e-3)


def test_turning_and_mirroring_keep_distances() -> None:
    augment = only(rotation=40.0, shift=0.1, horizontal_flip=True)
    ends = [centres(augment(dots(200, place), seeded())) for place in ((-8, -6), (8, 6))]
    np.testing.assert_allclose(np.hypot(*(ends[0] - ends[1]).T), 20, atol=0.35)


def test_geometry_keeps_the_shape_of_what_it_turns_scales_and_mirrors() -> None:
    """A right angle with equal arms stays one: no film is sheared or stretched in one direction."""
    augment = only(rotation=40.0, scale=0.3, horizontal_flip=True)
    corner, up, right = (centres(augment(dots(200, place), seeded())) for place in ((0, 0), (-16, 0), (0, 16)))
    first, second = up - corner, right - corner
    lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(lengths[0], lengths[1], atol=0.5)
    np.testing.assert_allclose((first * second).sum(axis=1) / lengths[0] / lengths[1], 0, atol=0.03)


def test_all_geometry_is_one_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one blurs the film a little."""
    calls = []
    sample = torch.nn.functional.grid_sample
    monkeypatch.setattr(
        "cxr_core.augmentations.grid_sample", lambda *args, **options: calls.append(1) or sample(*args, **options)
    )
    only(rotation=10.0, shift=0.1, scale=0.1, crop=0.1, horizontal_flip=True)(noise(), seeded())
    assert len(calls) == 1


def test_beyond_its_border_a_film_goes_on_as_it_ends() -> None:
    films = torch.full((50, 1, 32, 32), 0.7)
    moved = only(rotation=45.0, shift=0.5)(films, seeded())
    torch.testing.assert_close(moved, films)


# Grey levels


def test_contrast_stretches_each_film_about_its_mean() -> None:
    films = grey()
    mean = films.mean((1, 2, 3), keepdim=True)
    changed = only(contrast=0.3)(films, seeded())
    stretch = (changed - mean).flatten(1).std(1) / (films - mean).flatten(1).std(1)
    assert uniformly(stretch, 0.7, 1.3)
    torch.testing.assert_close(changed, (films - mean) * stretch[:, None, None, None] + mean, rtol=0, atol=1e-5)


def test_brightness_is_added_to_each_film() -> None:
    films = grey()
    lift = only(brightness=0.3)(films, seeded()) - films
    torch.testing.assert_close(lift.amin((1, 2, 3)), lift.amax((1, 2, 3)), rtol=0, atol=1e-6)
    assert uniformly(lift.mean((1, 2, 3)), -0.3, 0.3)


def test_gamma_is_each_films_exponent_and_leaves_black_and_white() -> None:
    films = grey()
    films[..., 0, 0], films[..., 0, 1] = 0, 1
    changed = only(gamma=0.5)(films, seeded())
    assert (changed[..., 0, 0] == 0).all()
    assert (changed[..., 0, 1] == 1).all()
    exponent = (changed.log() / films.log())[..., 1:, :]
    torch.testing.assert_close(exponent.amin((1, 2, 3)), exponent.amax((1, 2, 3)), rtol=1e-4, atol=0)
    assert uniformly(exponent.mean((1, 2, 3)).log(), -0.5, 0.5)


def eight_bit_films() -> Tensor:
    """Noise, a narrow range, few levels, one dominant level, two levels, one level, black; (N, 1, 32, 32) uint8."""
    rng = np.random.default_rng(0)
    films = [rng.integers(0, 256, (32, 32)), rng.integers(90, 110, (32, 32)), rng.integers(0, 5, (32, 32)) * 60]
    films += [np.where(rng.random((32, 32)) < 0.9, 17, rng.integers(0, 256, (32, 32)))]
    films += [rng.integers(0, 2, (32, 32)) * 200 + 3, np.where(rng.random((32, 32)) < 0.02, 3, 250)]
    films += [np.full((32, 32), 77), np.zeros((32, 32)), rng.normal(120, 30, (32, 32)).clip(0, 255)]
    return torch.from_numpy(np.stack(films).astype(np.uint8))[:, None]


def test_equalisation_is_torchvisions_for_every_film() -> None:
    films = eight_bit_films()
    levels = equalized(films.float() / 255) * 255
    expected = torch.stack([torchvision.equalize(film) for film in films]).float()
    torch.testing.assert_close(levels, expected, rtol=0, atol=1e-4)


def test_equalisation_is_pillows_on_real_films(real_data: Path) -> None:
    films = torch.from_numpy(np.load(real_data / "pneumoniamnist.npz")["val_images"][:200])[:, None]
    levels = equalized(films.float() / 255) * 255
    pillows = np.stack([np.asarray(ImageOps.equalize(Image.fromarray(film))) for film in films[:, 0].numpy()])
    np.testing.assert_allclose(levels[:, 0].numpy(), pillows, atol=1e-4)


def test_equalisation_is_done_to_its_share_of_films() -> None:
    films = grey(1000)
    changed = only(equalize=0.5)(films, seeded())
    same, equal = ((changed - other).abs().amax((1, 2, 3)) < 1e-6 for other in (films, equalized(films)))
    assert (same ^ equal).all()
    assert half_of(equal)


def test_noise_is_gaussian_with_each_films_own_deviation() -> None:
    films = torch.full((500, 1, 32, 32), 0.5)
    grain = (only(noise=0.1)(films, seeded()) - films).flatten(1)
    sigma = grain.std(1, keepdim=True)
    assert uniformly(sigma, 0, 0.1)
    assert kstest((grain / sigma).ravel().numpy()[::50], "norm").pvalue > 1e-4


# Erasing


def erased(count: int = 2000) -> Tensor:
    """Where films of 64 px were erased, (n, 64, 64), of those that were."""
    films = torch.rand(count, 1, 64, 64, generator=seeded(1))
    changed = (only(erasing=1.0)(films, seeded()) != films)[:, 0]
    assert changed.any(dim=(1, 2)).all()
    return changed


def test_what_is_erased_is_one_whole_rectangle() -> None:
    holes = erased(200)
    outer = holes.any(2)[:, :, None] & holes.any(1)[:, None, :]
    assert outer.equal(holes)
    edges = holes.any(2).int().diff(dim=1).abs().sum(1)
    assert edges.max() <= 2  # rows that follow each other


def test_the_erased_area_and_aspect_are_the_published_ones() -> None:
    """Areas of 2 to 20 %, aspects of 0.3 to 3.3; a side is rounded to the pixel above or below."""
    holes = erased()
    height, width = (holes.any(axis).sum(1).double() for axis in (2, 1))
    assert uniformly(height * width / 64**2, 0.02, 0.2)
    assert uniformly((height / width).log(), -math.log(1 / 0.3), math.log(1 / 0.3))
    assert ((height + 1) * (width + 1) / 64**2).min() > 0.02
    assert ((height - 1) * (width - 1) / 64**2).max() < 0.2


def test_the_rectangle_lies_anywhere_in_the_film() -> None:
    holes = erased(500)
    for across in (holes.any(1), holes.any(2)):
        start, length = across.int().argmax(1), across.sum(1)
        assert uniformly(start / (64 - length), 0, 1)


def test_an_erased_rectangle_has_the_films_mean() -> None:
    films = grey(100)
    changed = only(erasing=1.0)(films, seeded())
    filled = torch.where(changed != films, changed, torch.nan).flatten(1)
    torch.testing.assert_close(filled.nanmean(1), films.mean((1, 2, 3)), rtol=0, atol=1e-6)


def test_erasing_is_done_to_its_share_of_films() -> None:
    films = grey(1000)
    assert half_of((only(erasing=0.5)(films, seeded()) != films).any(dim=(1, 2, 3)))
