"""A simulated search must cost what the real one would, and know no more than it would."""

import heapq
from dataclasses import replace

import numpy as np
import pytest

from search.curve_table import Curve, CurveTable, Neighbours, read_table
from search.policies import RANDOM, TWICE, read_policy
from search.simulation import simulate

POLICIES = ["tpe+promote", "random+promote", "random+stop", "tpe+none", "random+hyperband"]


@pytest.fixture(scope="module")
def table(real_data):
    """A part of the real trainings, diverged ones among them, that a search goes through in a moment."""
    whole = read_table(real_data / "curves" / "alexnet_imagenet.jsonl")
    short = [curve for curve in whole.curves if curve.schedule <= 35]
    return replace(whole, curves=tuple(short[:40]))


def search(table, policy, seed=0, workers=3, target=None):
    """A search that goes on until the table is used up, unless it has a target."""
    policy = read_policy(policy) if isinstance(policy, str) else policy
    target = (np.inf if table.maximize else -np.inf) if target is None else target
    return simulate(table, Neighbours(table), policy, seed=seed, workers=workers, until=0.0, target=target)


def flat_table(lengths, *, seconds=1.0, diverged=()):
    """Trainings with as many epochs as told, each epoch equally long; those that diverge do so in their last one."""
    curves = []
    for number, length in enumerate(lengths):
        done = length - (number in diverged)
        values = tuple((number + 1) / len(lengths) * (epoch + 1) / length for epoch in range(done))
        curves.append(Curve({"x": float(number), "epochs": length}, values, (seconds,) * done))
    return CurveTable("flat", "accuracy", True, tuple(curves), {})


def random_order(count, seed):
    """Trainings as random search draws them: one after another, of those left."""
    left = np.arange(count)
    for number in range(count):
        row = np.random.default_rng((seed, number)).choice(left)
        left = left[left != row]
        yield int(row)


def list_scheduling(table, seed, workers):
    """When each training ends that goes to the next free worker; (seconds, row) in order of their ends."""
    free = [0.0] * workers
    ends = []
    for row in random_order(len(table.curves), seed):
        curve = table.curves[row]
        lost = np.mean(curve.seconds) if curve.seconds else table.epoch_seconds
        end = heapq.heappop(free) + sum(curve.seconds) + (lost if curve.diverged else 0.0)
        heapq.heappush(free, end)
        ends.append((end, row))
    return sorted(ends)


@pytest.mark.parametrize("workers", [1, 4])
def test_random_search_in_full_costs_what_list_scheduling_says(table, workers):
    for seed in range(3):
        found = search(table, RANDOM, seed, workers)
        ends = [(at, row) for at, row in list_scheduling(table, seed, workers) if not table.curves[row].diverged]
        assert found.seconds == pytest.approx([at for at, _ in ends])
        assert found.values == tuple(table.curves[row].values[-1] for _, row in ends)
        for share in (0.02, 0.1, 0.5):
            good = [at for at, row in ends if table.curves[row].values[-1] >= table.best(share)]
            assert found.reaches(table.best(share), True) == pytest.approx(min(good))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_never_sees_what_it_has_not_trained(table, policy):
    before = search(table, policy)
    assert any(done < len(curve.values) for curve, done in zip(table.curves, before.epochs, strict=True)) or (
        "none" in policy
    )
    rng = np.random.default_rng(0)
    hidden = []
    for curve, done in zip(table.curves, before.epochs, strict=True):
        others = rng.uniform(0, 1, len(curve.values) - done)
        hidden.append(replace(curve, values=(*curve.values[:done], *map(float, others))))
    after = search(replace(table, curves=tuple(hidden)), policy)
    assert after == before


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_search_and_another_one_another(table, policy):
    assert search(table, policy, seed=1) == search(table, policy, seed=1)
    assert search(table, policy, seed=1).seconds != search(table, policy, seed=2).seconds


def test_searches_in_which_everything_ends_at_once_are_the_same_each_time():
    table = flat_table([6] * 24)
    first, again = (search(table, "random+promote", seed=3, workers=5) for _ in range(2))
    assert first == again
    assert len(set(first.seconds)) < len(first.seconds)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_training_is_used_twice_nor_beyond_its_curve(table, policy):
    found = search(table, policy)
    assert len(found.epochs) == len(table.curves)
    assert all(done <= len(curve.values) for curve, done in zip(table.curves, found.epochs, strict=True))
    in_full = [
        curve.values[-1]
        for curve, done in zip(table.curves, found.epochs, strict=True)
        if done == curve.schedule and not curve.diverged
    ]
    assert sorted(found.values) == sorted(in_full)


def test_without_rungs_every_training_is_used_in_full(table):
    assert search(table, "tpe+none").epochs == tuple(len(curve.values) for curve in table.curves)


def test_a_diverged_training_costs_its_time_and_is_no_candidate():
    table = flat_table([4, 4, 4], diverged={2})
    found = search(table, RANDOM, workers=1)
    assert max(found.values) == pytest.approx(2 / 3)
    assert len(found.values) == 2
    order = list(random_order(3, seed=0))
    assert found.seconds == tuple(4.0 * (place + 1) for place, row in enumerate(order) if row != 2)


def test_a_training_that_diverged_at_once_costs_an_average_epoch():
    table = flat_table([4, 4, 1], diverged={2}, seconds=5.0)
    order = list(random_order(3, seed=0))
    ends = np.cumsum([5.0 if row == 2 else 20.0 for row in order])
    expected = [end for end, row in zip(ends, order, strict=True) if row != 2]
    assert search(table, RANDOM, workers=1).seconds == pytest.approx(expected)


def test_twice_the_workers_are_faster_on_average(table):
    def mean_seconds(policy):
        return np.mean([search(table, policy, seed).reaches(table.best(0.05), True) for seed in range(12)])

    assert mean_seconds(TWICE) < mean_seconds(RANDOM)


def test_a_search_ends_when_it_has_found_its_target_and_the_time_is_over(table):
    target = table.best(0.3)
    found = search(table, RANDOM, target=target)
    assert found.values[-1] >= target
    assert all(value < target for value in found.values[:-1])
    until = 3 * table.mean_seconds
    longer = simulate(table, Neighbours(table), RANDOM, seed=0, workers=3, until=until, target=target)
    unending = search(table, RANDOM)
    due = sum(at <= until for at in unending.seconds)
    assert longer.seconds[:due] == unending.seconds[:due]
    assert len(found.seconds) < len(longer.seconds) < len(unending.seconds)


def test_a_search_of_a_loss_looks_for_small_values(real_data):
    table = read_table(real_data / "curves" / "alexnet_imagenet.jsonl", "train_loss")
    assert not table.maximize
    table = replace(table, curves=tuple(c for c in table.curves if c.schedule <= 35)[:40])
    target = min(curve.values[-1] for curve in table.curves if not curve.diverged)
    found = search(table, "tpe+none", target=target)
    assert found.values[-1] == target == min(found.values)
