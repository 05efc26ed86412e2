"""Every registered batch sampler keeps the same rules; each known one draws as its source says."""

import math

import numpy as np
import pytest

from cxr_core.config import SEARCHABLE
from cxr_core.registry import Chosen
from cxr_core.samplers import oversample, samplers, uniform

NAN = math.nan


def labels(kind: str, films: int) -> np.ndarray:
    """(films, 3) targets: findings of 50, 10 and 2 %, and what may be odd about them."""
    rng = np.random.default_rng(1)
    targets = (rng.random((films, 3)) < (0.5, 0.1, 0.02)).astype(np.float32)
    if kind == "some not labelled":
        targets[rng.random(targets.shape) < 0.3] = NAN
    elif kind == "a finding never labelled":
        targets[:, 2] = NAN
    elif kind == "a finding never positive":
        targets[:, 2] = 0
    elif kind == "one finding":
        targets = targets[:, :1]
    return targets


KINDS = ["all labelled", "some not labelled", "a finding never labelled", "a finding never positive", "one finding"]
every_sampler = pytest.mark.parametrize("name", samplers)
every_kind = pytest.mark.parametrize("kind", KINDS)
sizes = pytest.mark.parametrize(("films", "batch_size"), [(200, 32), (97, 32), (64, 64), (65, 64), (10, 64), (101, 2)])


def draw(name: str, targets: np.ndarray, batch_size: int, seed: int = 0) -> list[np.ndarray]:
    return list(samplers.call(Chosen(name), targets, batch_size, np.random.default_rng(seed)))


# Rules of all samplers


@every_sampler
@every_kind
def test_an_epoch_depends_on_its_generator_alone(name: str, kind: str) -> None:
    targets = labels(kind, 97)
    first, second = draw(name, targets, 32), draw(name, targets, 32)
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
    assert not np.array_equal(np.concatenate(first), np.concatenate(draw(name, targets, 32, seed=1)))


@every_sampler
@every_kind
@sizes
def test_an_index_is_the_row_of_a_film(name: str, kind: str, films: int, batch_size: int) -> None:
    index = np.concatenate(draw(name, labels(kind, films), batch_size))
    assert np.issubdtype(index.dtype, np.integer)
    assert index.min() >= 0
    assert index.max() < films


@every_sampler
@sizes
def test_an_epoch_has_as_many_draws_as_there_are_films(name: str, films: int, batch_size: int) -> None:
    assert sum(map(len, draw(name, labels("all labelled", films), batch_size))) == films


@every_sampler
@sizes
def test_batches_differ_by_at_most_one_film(name: str, films: int, batch_size: int) -> None:
    lengths = list(map(len, draw(name, labels("all labelled", films), batch_size)))
    assert max(lengths) - min(lengths) <= 1


@every_sampler
@sizes
def test_a_batch_is_never_larger_than_asked_for(name: str, films: int, batch_size: int) -> None:
    lengths = list(map(len, draw(name, labels("all labelled", films), batch_size)))
    assert max(lengths) <= batch_size
    assert len(lengths) == math.ceil(films / batch_size)


@every_sampler
def test_no_batch_that_may_be_asked_for_is_too_small_for_batch_norm(name: str) -> None:
    """Two films: of one, a network whose last grid is a single pixel has no variance."""
    smallest = int(SEARCHABLE["batch_size"].range.low)
    lengths = [len(batch) for films in range(2, 60) for batch in draw(name, labels("one finding", films), smallest)]
    assert min(lengths) >= 2


@every_sampler
def test_a_sampler_leaves_the_targets_as_they_are(name: str) -> None:
    targets = labels("some not labelled", 97)
    draw(name, targets, 32)
    np.testing.assert_array_equal(targets, labels("some not labelled", 97))


# uniform


def test_uniform_visits_every_film_once() -> None:
    order = np.concatenate(uniform(labels("all labelled", 97), 32, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.sort(order), np.arange(97))


# oversample


def test_oversample_draws_films_as_often_as_repeat_factor_sampling_says() -> None:
    """Each group of films within 4 sigma of its binomial count: a false alarm in 1 of 4,000 seeds."""
    targets = np.zeros((500, 2), np.float32)
    targets[:100, 0] = 1  # 20 % of films: factor sqrt(0.5 / 0.2)
    targets[95:105, 1] = 1  # 2 %: factor sqrt(0.5 / 0.02), also where the first finding is there, too
    factor = np.ones(500)
    factor[:95], factor[95:105] = math.sqrt(2.5), 5
    draws = np.concatenate(
        [np.concatenate(oversample(targets, 50, np.random.default_rng(seed), threshold=0.5)) for seed in range(200)]
    )
    for group in (slice(0, 95), slice(95, 105), slice(105, 500)):
        share = factor[group].sum() / factor.sum()
        sigma = math.sqrt(len(draws) * share * (1 - share))
        assert abs(np.isin(draws, np.arange(500)[group]).sum() - len(draws) * share) < 4 * sigma


def test_oversample_takes_the_prevalence_among_labelled_films() -> None:
    """4 sigma, as above."""
    targets = np.full((500, 1), NAN, np.float32)
    targets[:50, 0], targets[:5, 0] = 0, 1  # 5 of 50 labelled films: prevalence 0.1, factor 2 at threshold 0.4
    draws = np.concatenate(
        [np.concatenate(oversample(targets, 50, np.random.default_rng(seed), threshold=0.4)) for seed in range(200)]
    )
    share = 5 * 2 / (5 * 2 + 495)
    sigma = math.sqrt(len(draws) * share * (1 - share))
    assert abs((draws < 5).sum() - len(draws) * share) < 4 * sigma


def test_oversample_leaves_findings_above_the_threshold_alone() -> None:
    targets = np.zeros((400, 1), np.float32)
    targets[::2] = 1
    counts = np.bincount(
        np.concatenate([np.concatenate(oversample(targets, 50, np.random.default_rng(s))) for s in range(50)])
    )
    sigma = math.sqrt(50 * 400 * 0.25)  # half of the draws are positives, within 4 sigma
    assert abs(counts[::2].sum() - 50 * 200) < 4 * sigma
