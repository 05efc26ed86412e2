"""Every registered batch sampler keeps the same rules; each known one draws as its source says."""

import math

import numpy as np
import pytest

from cxr_core.config import SEARCHABLE
from cxr_core.registry import Chosen
from cxr_core.samplers import balanced_batch, class_aware, oversample, samplers, uniform

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
    elif kind == "all positive":
        targets[:, 0] = 1
    elif kind == "no positives":
        targets[:] = 0
    elif kind == "one positive film":
        targets[:] = 0
        targets[films // 2] = 1
    elif kind == "positive or not labelled":
        targets[targets == 0] = NAN
    return targets


KINDS = [
    "all labelled",
    "some not labelled",
    "a finding never labelled",
    "a finding never positive",
    "one finding",
    "all positive",
    "no positives",
    "one positive film",
    "positive or not labelled",
]
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
@every_kind
@sizes
def test_an_epoch_draws_no_more_films_than_there_are(name: str, kind: str, films: int, batch_size: int) -> None:
    assert 2 <= sum(map(len, draw(name, labels(kind, films), batch_size))) <= films


@every_sampler
@every_kind
@sizes
def test_batches_differ_by_at_most_a_pair_of_films(name: str, kind: str, films: int, batch_size: int) -> None:
    lengths = list(map(len, draw(name, labels(kind, films), batch_size)))
    assert max(lengths) - min(lengths) <= 2


@every_sampler
@every_kind
@sizes
def test_a_batch_is_never_larger_than_asked_for(name: str, kind: str, films: int, batch_size: int) -> None:
    lengths = list(map(len, draw(name, labels(kind, films), batch_size)))
    assert max(lengths) <= batch_size
    assert len(lengths) == math.ceil(sum(lengths) / batch_size)  # and there are no more of them than needed


@every_sampler
@every_kind
def test_no_batch_that_may_be_asked_for_is_too_small_for_batch_norm(name: str, kind: str) -> None:
    """Two films: of one, a network whose last grid is a single pixel has no variance."""
    smallest = int(SEARCHABLE["batch_size"].range.low)
    lengths = [len(batch) for films in range(2, 60) for batch in draw(name, labels(kind, films), smallest)]
    assert min(lengths) >= 2


@pytest.mark.parametrize("name", ["uniform", "oversample", "class_aware"])
@every_kind
@sizes
def test_an_epoch_has_as_many_draws_as_there_are_films(name: str, kind: str, films: int, batch_size: int) -> None:
    assert sum(map(len, draw(name, labels(kind, films), batch_size))) == films


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


# balanced_batch


def sides(targets: np.ndarray) -> tuple[set[int], set[int]]:
    """Films with a finding, and films without one of which at least one finding is known to be absent."""
    rows = [set(row[~np.isnan(row)]) for row in targets]
    return {i for i, row in enumerate(rows) if 1 in row}, {i for i, row in enumerate(rows) if row == {0}}


@pytest.mark.parametrize("kind", ["all labelled", "some not labelled", "one finding", "one positive film"])
@sizes
def test_a_balanced_batch_has_as_many_films_without_a_finding_as_with_one(
    kind: str, films: int, batch_size: int
) -> None:
    targets = labels(kind, films)
    positives, negatives = sides(targets)
    for batch in balanced_batch(targets, batch_size, np.random.default_rng(0)):
        assert len(positives & set(batch)) == len(negatives & set(batch)) == len(batch) / 2


@pytest.mark.parametrize("positives", [10, 80])
def test_a_balanced_epoch_holds_the_smaller_side_whole_and_no_film_twice(positives: int) -> None:
    targets = (np.arange(100) < positives).astype(np.float32)[:, None]
    drawn = np.concatenate(balanced_batch(targets, 16, np.random.default_rng(0)))
    assert len(set(drawn)) == len(drawn) == 2 * min(positives, 100 - positives)
    assert min(sides(targets), key=len) <= set(drawn)


def test_the_surplus_that_a_balanced_epoch_leaves_out_is_drawn_anew() -> None:
    """Ten of 90 negatives an epoch: over 100 epochs one is never drawn in 1 of 1,400 seeds."""
    targets = (np.arange(100) < 10).astype(np.float32)[:, None]
    drawn = [np.concatenate(balanced_batch(targets, 16, np.random.default_rng(seed))) for seed in range(100)]
    assert set(np.concatenate(drawn)) == set(range(100))


@pytest.mark.parametrize("kind", ["all positive", "no positives", "positive or not labelled"])
def test_a_balanced_epoch_visits_every_film_once_where_there_is_nothing_to_balance(kind: str) -> None:
    order = np.concatenate(balanced_batch(labels(kind, 97), 32, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.sort(order), np.arange(97))


# class_aware


def exclusive(*counts: int) -> np.ndarray:
    """Films of one finding each, so many of each, and the last of the counts without any."""
    return np.eye(len(counts), dtype=np.float32).repeat(counts, axis=0)[:, :-1]


def test_class_aware_draws_every_finding_and_no_finding_equally_often() -> None:
    order = np.concatenate(class_aware(exclusive(70, 20, 1, 109), 32, np.random.default_rng(0)))
    drawn = np.bincount(np.repeat(range(4), (70, 20, 1, 109))[order], minlength=4)
    np.testing.assert_array_equal(drawn, [50, 50, 50, 50])


def test_class_aware_has_each_finding_once_in_as_many_draws_as_there_are_findings() -> None:
    targets = exclusive(70, 20, 1, 109)
    order = np.concatenate(class_aware(targets, 32, np.random.default_rng(0)))
    kinds = np.repeat(range(4), (70, 20, 1, 109))[order].reshape(-1, 4)
    np.testing.assert_array_equal(np.sort(kinds, axis=1), np.tile(range(4), (50, 1)))
    assert len(set(map(tuple, kinds))) > 4  # in an order of their own


def test_class_aware_draws_no_film_of_a_finding_again_before_all_others() -> None:
    order = np.concatenate(class_aware(exclusive(70, 20, 1, 109), 32, np.random.default_rng(0)))
    seconds = order[(order >= 70) & (order < 90)]  # 50 draws of 20 films: two rounds and a half
    assert sorted(seconds[:20]) == sorted(seconds[20:40]) == list(range(70, 90))
    assert seconds[:20].tolist() != seconds[20:40].tolist()
    assert len(set(seconds[40:])) == 10


def test_class_aware_draws_a_film_for_each_of_its_findings() -> None:
    """Of 10 films with both of two findings and 90 with the first alone; 60 draws for each of three classes."""
    targets = np.zeros((180, 2), np.float32)
    targets[:100, 0], targets[:10, 1] = 1, 1
    order = np.concatenate(class_aware(targets, 32, np.random.default_rng(0)))
    assert (order < 100).sum() == 120
    assert 60 <= (order < 10).sum() <= 70


def test_class_aware_never_draws_a_film_without_any_label() -> None:
    targets = exclusive(10, 10, 20)
    targets[30:] = NAN
    order = np.concatenate(class_aware(targets, 8, np.random.default_rng(0)))
    assert set(order) == set(range(30))


def test_class_aware_does_not_take_what_is_not_labelled_for_no_finding() -> None:
    targets = exclusive(10, 10, 20)
    targets[20:] = [0, NAN]  # one finding is known to be absent: such a film stands for no finding
    targets[:10, 1] = NAN
    order = np.concatenate(class_aware(targets, 8, np.random.default_rng(0)))
    assert 13 <= (order >= 20).sum() <= 14
    assert 13 <= ((order >= 10) & (order < 20)).sum() <= 14
