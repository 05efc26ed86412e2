"""Rungs: who goes on and who waits."""

import itertools
import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.objectives import Reached, non_dominated
from search.rungs import RungPolicy, Rungs


def rungs(eta=2, fractions=(0.1, 0.5), **policy):
    return Rungs(RungPolicy(fractions, eta, **{"cohort": eta, **policy}))


def arrive(rungs, rung, values):
    for trial, value in values.items():
        rungs.record(trial, rung, Reached(0.0, (-value,)))


@pytest.mark.parametrize(
    ("schedule", "met"),
    [(100, (5, 20)), (20, (1, 4)), (15, (1, 3)), (40, (2, 8)), (4, (1, 1)), (2, (1, 1)), (1, ())],
)
def test_rungs_lie_at_fractions_of_each_trials_own_schedule(schedule, met):
    assert rungs(fractions=(0.05, 0.2)).epochs(schedule) == met


def test_rounding_error_does_not_move_a_rung_by_an_epoch():
    assert rungs(fractions=(0.07,)).epochs(100) == (7,)  # 0.07 * 100 is 7.000000000000001


def test_the_best_one_in_eta_goes_on():
    ladder = rungs(eta=3)
    arrive(ladder, 0, {0: 0.5, 1: 0.9, 2: 0.7, 3: 0.6, 4: 0.8, 5: 0.4})
    assert [trial for trial in range(6) if ladder.in_top(trial, 0)] == [1, 4]


def test_nobody_goes_on_from_a_cohort_smaller_than_eta():
    ladder = rungs(eta=4)
    arrive(ladder, 0, {0: 0.9, 1: 0.8, 2: 0.7})
    assert not any(ladder.in_top(trial, 0) for trial in range(3))


def test_of_equals_the_earlier_trial_is_better():
    ladder = rungs()
    arrive(ladder, 0, {3: 0.5, 1: 0.5})
    assert ladder.in_top(1, 0)
    assert not ladder.in_top(3, 0)


def test_a_waiting_trial_may_go_on_when_others_turn_out_worse():
    ladder = rungs()
    arrive(ladder, 0, {0: 0.6})
    assert ladder.candidates() == []
    arrive(ladder, 0, {1: 0.5})
    assert ladder.candidates() == [(0, 0)]


def test_promotions_come_from_the_highest_rung_first_and_the_best_first():
    ladder = rungs()
    arrive(ladder, 0, {trial: trial / 10 for trial in range(8)})
    for trial in (6, 7):
        ladder.promote(trial, 0)
    arrive(ladder, 1, {6: 0.8, 7: 0.9})
    assert ladder.candidates() == [(7, 1), (5, 0), (4, 0)]


def test_a_promoted_trial_waits_no_more_and_keeps_its_place():
    ladder = rungs()
    arrive(ladder, 0, {0: 0.9, 1: 0.5})
    ladder.promote(0, 0)
    assert ladder.waits_at(0) is None
    assert ladder.waits_at(1) == 0
    assert ladder.level(0) == 1
    assert ladder.candidates() == []


def test_recording_twice_changes_nothing():
    ladder = rungs()
    arrive(ladder, 0, {0: 0.9, 1: 0.5})
    arrive(ladder, 0, {1: 1.0})
    assert ladder.reached(1, 0).costs == (-0.5,)


def test_the_order_of_arrival_does_not_matter():
    values = {trial: (trial * 7 % 10) / 10 for trial in range(10)}
    forwards, backwards = rungs(), rungs()
    arrive(forwards, 0, values)
    arrive(backwards, 0, dict(reversed(values.items())))
    assert forwards.candidates() == backwards.candidates()


def test_with_nothing_new_to_come_the_best_of_a_rung_that_nobody_passed_goes_on():
    ladder = rungs(eta=4)
    arrive(ladder, 0, {0: 0.6, 1: 0.7})
    assert ladder.candidates(at_least_one=True) == [(1, 0)]
    ladder.promote(1, 0)
    assert ladder.candidates(at_least_one=True) == []


def test_the_place_of_a_trial_that_failed_after_its_promotion_is_free_again():
    ladder = rungs(eta=4)
    arrive(ladder, 0, {0: 0.6, 1: 0.7})
    ladder.promote(1, 0)
    ladder.end(1, in_full=False)
    assert ladder.candidates(at_least_one=True) == [(0, 0)]


def test_an_ended_trial_is_never_promoted_but_its_value_still_counts():
    ladder = rungs()
    arrive(ladder, 0, {0: 0.9, 1: 0.5})
    ladder.end(0, in_full=False)
    assert ladder.candidates() == []
    assert not ladder.in_top(1, 0)


# Stopping


def test_where_trials_are_stopped_the_odd_one_goes_on():
    ladder = rungs(eta=3, mode="stop")
    arrive(ladder, 0, {0: 0.5, 1: 0.9, 2: 0.7, 3: 0.6})
    assert [trial for trial in range(4) if ladder.in_top(trial, 0)] == [1, 2]


def test_where_trials_are_stopped_a_small_cohort_lets_everyone_go_on():
    ladder = rungs(eta=3, mode="stop", cohort=4)
    arrive(ladder, 0, {0: 0.5, 1: 0.9, 2: 0.7})
    assert all(ladder.in_top(trial, 0) for trial in range(3))


def test_without_pruning_no_schedule_meets_a_rung():
    ladder = rungs(mode="none")
    assert ladder.epochs(100) == ()
    assert ladder.waiting() == []


# Hyperband


def bracket_cost(eta, fractions, bracket):
    """Mean share of its schedule that a trial of a bracket is trained, when 1/eta go on from each of its rungs."""
    ends = [*fractions[bracket:], 1.0]
    return sum((end - start) * eta**-i for i, (start, end) in enumerate(zip([0.0, *ends[:-1]], ends, strict=True)))


@pytest.mark.parametrize(
    ("eta", "fractions"), [(4, (0.05, 0.2)), (3, (1 / 9, 1 / 3)), (4, (1 / 16, 1 / 4)), (2, (1 / 8, 1 / 4, 1 / 2))]
)
def test_the_brackets_of_hyperband_cost_about_the_same(eta, fractions):
    ladder = rungs(eta, fractions, mode="hyperband")
    cost = [0.0] * (len(fractions) + 1)
    for trial in range(840):
        cost[ladder.bracket(trial)] += bracket_cost(eta, fractions, ladder.bracket(trial))
    assert max(cost) <= 1.6 * min(cost)  # a bracket has a whole number of trials in each cycle


def test_a_trial_of_a_later_bracket_first_meets_a_higher_rung():
    ladder = rungs(mode="hyperband")
    for trial in range(20):
        ladder.enter(trial)
        assert ladder.level(trial) == ladder.bracket(trial)
    assert {ladder.bracket(trial) for trial in range(20)} == {0, 1, 2}


def test_trials_of_two_brackets_are_never_compared():
    ladder = rungs(mode="hyperband")
    here = [trial for trial in range(20) if ladder.bracket(trial) == 1][:2]
    others = [trial for trial in range(20) if ladder.bracket(trial) == 0][:3]
    for trial in others:
        ladder.promote(trial, 0)
    arrive(ladder, 1, dict.fromkeys(others, 0.9) | {here[0]: 0.1, here[1]: 0.2})
    assert ladder.in_top(here[1], 1)
    assert ladder.standing(here[1], 1).cohort == 2


# Families


def in_families(ladder, families):
    for trial, family in families.items():
        ladder.enter(trial, family)


def test_the_best_of_a_slow_family_goes_on_however_good_the_others_are():
    ladder = rungs(eta=4)
    in_families(ladder, {trial: "slow" if trial < 4 else "fast" for trial in range(20)})
    arrive(ladder, 0, {trial: 0.5 + trial / 100 for trial in range(20)})
    assert [trial for trial in range(20) if ladder.in_top(trial, 0)] == [3, 15, 16, 17, 18, 19]
    assert ladder.candidates() == [(19, 0), (18, 0), (17, 0), (16, 0), (15, 0), (3, 0)]


def test_a_family_is_judged_once_it_has_had_as_many_trials_as_decide_anything():
    ladder = rungs(eta=4)
    in_families(ladder, {trial: "slow" if trial < 3 else "fast" for trial in range(20)})
    arrive(ladder, 0, {trial: 0.5 + trial / 100 for trial in range(20)})
    assert not any(ladder.in_top(trial, 0) for trial in range(3))


def test_without_a_floor_a_slow_family_is_cut():
    ladder = rungs(eta=4, family_floor=0)
    in_families(ladder, {trial: "slow" if trial < 4 else "fast" for trial in range(20)})
    arrive(ladder, 0, {trial: 0.5 + trial / 100 for trial in range(20)})
    assert [trial for trial in range(20) if ladder.in_top(trial, 0)] == [15, 16, 17, 18, 19]


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=40), eta=st.integers(2, 5))
def test_a_space_of_one_family_is_not_affected_by_the_floor(values, eta):
    with_floor, without = rungs(eta, family_floor=3), rungs(eta, family_floor=0)
    for ladder in (with_floor, without):
        in_families(ladder, dict.fromkeys(range(len(values)), "the only one"))
        arrive(ladder, 0, dict(enumerate(values)))
    assert with_floor.candidates() == without.candidates()


# Several objectives


def by_brute_force(points):
    """Front of each point: 0 where no point is nowhere worse and somewhere better, and so on without those."""
    left, front, level = set(range(len(points))), {}, 0
    while left:
        beaten = {
            b
            for a, b in itertools.permutations(left, 2)
            if all(x <= y for x, y in zip(points[a], points[b], strict=True)) and points[a] != points[b]
        }
        front |= dict.fromkeys(left - beaten, level)
        left, level = beaten, level + 1
    return front


several_costs = st.lists(st.tuples(*[st.integers(0, 6)] * 2), min_size=1, max_size=25)


@given(points=several_costs)
def test_of_several_objectives_the_places_go_by_front(points):
    ladder = Rungs(RungPolicy((0.1,), 2, cohort=2), several=True)
    for trial, costs in enumerate(points):
        ladder.record(trial, 0, Reached(0.0, tuple(map(float, costs))))
    places = [ladder.standing(trial, 0).place for trial in range(len(points))]
    front = by_brute_force(points)
    by_place = sorted(range(len(points)), key=lambda trial: places[trial])
    assert [front[trial] for trial in by_place] == sorted(front.values())


@given(points=st.lists(st.tuples(*[st.floats(-1, 1)] * 3), min_size=1, max_size=25, unique=True))
def test_the_fronts_are_those_of_optunas_own_sort(points):
    study = optuna.create_study(directions=["minimize"] * 3)
    for values in points:
        study.add_trial(optuna.trial.create_trial(values=list(values)))
    expected = {tuple(trial.values) for trial in study.best_trials}
    front = non_dominated(np.array(points))
    assert {point for point, on_front in zip(points, front, strict=True) if on_front} == expected


def test_of_one_front_the_loneliest_go_on():
    ladder = Rungs(RungPolicy((0.1,), 2, cohort=2), several=True)
    # All on one front: 0 and 4 are its ends, 1 and 2 lie close together, 3 is far from its neighbours.
    for trial, costs in enumerate([(0.0, 10.0), (1.0, 9.0), (1.1, 8.9), (6.0, 4.0), (10.0, 0.0)]):
        ladder.record(trial, 0, Reached(0.0, costs))
    assert {trial for trial in range(5) if ladder.in_top(trial, 0)} == {0, 4}
    assert ladder.standing(3, 0).place == 3


# What always holds


policies = st.builds(
    RungPolicy,
    fractions=st.just((0.1, 0.5)),
    eta=st.integers(2, 4),
    mode=st.sampled_from(["promote", "stop", "hyperband"]),
    cohort=st.integers(1, 5),
    family_floor=st.just(0),
)


@given(policy=policies, values=st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_never_more_than_one_in_eta_may_go_on_from_a_cohort_that_decides(policy, values):
    ladder = Rungs(policy)
    for trial, value in enumerate(values):
        rung = ladder.bracket(trial)
        if rung == len(ladder.fractions):
            continue
        arrive(ladder, rung, {trial: value})
        standing = ladder.standing(trial, rung)
        here = [t for t in range(trial + 1) if ladder.bracket(t) == rung]
        going = sum(ladder.in_top(t, rung) for t in here)
        assert standing.cohort == len(here)
        if len(here) >= policy.cohort:
            exact = len(here) / policy.eta
            assert going == (math.ceil(exact) if policy.mode == "stop" else math.floor(exact))
        elif policy.mode != "stop":
            assert going == 0


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_places_are_one_to_n_and_the_best_value_is_first(values):
    ladder = rungs()
    arrive(ladder, 0, dict(enumerate(values)))
    places = {ladder.standing(trial, 0).place: trial for trial in range(len(values))}
    assert sorted(places) == list(range(1, len(values) + 1))
    assert [values[places[place]] for place in sorted(places)] == sorted(values, reverse=True)


@given(data=st.data(), policy=policies, several=st.booleans())
def test_who_may_go_on_does_not_depend_on_the_order_of_arrival(data, policy, several):
    costs = st.tuples(*[st.integers(0, 9).map(float)] * (2 if several else 1))
    reached = dict(enumerate(data.draw(st.lists(costs, min_size=1, max_size=25))))
    order = data.draw(st.permutations(sorted(reached)))
    one, other = Rungs(policy, several), Rungs(policy, several)
    for ladder, arrivals in ((one, sorted(reached)), (other, order)):
        for trial in arrivals:
            if (rung := ladder.bracket(trial)) < len(ladder.fractions):
                ladder.record(trial, rung, Reached(0.0, reached[trial]))
    assert one.candidates() == other.candidates()
    assert one.waiting() == other.waiting()


@given(data=st.data(), several=st.booleans())
def test_promoting_whoever_may_go_on_ends_and_leaves_nobody_who_may(data, several):
    policy = RungPolicy((0.1, 0.5), data.draw(st.integers(2, 4)), cohort=2, family_floor=1)
    ladder = Rungs(policy, several)
    costs = st.tuples(*[st.integers(0, 9).map(float)] * (2 if several else 1))
    reached = data.draw(st.lists(costs, min_size=1, max_size=20))
    for trial, its in enumerate(reached):
        ladder.enter(trial, data.draw(st.sampled_from("ab")))
        ladder.record(trial, 0, Reached(0.0, its))
    promoted = []
    while candidates := ladder.candidates():
        trial, rung = candidates[0]
        ladder.promote(trial, rung)
        promoted.append((trial, rung))
        if rung == 0:
            ladder.record(trial, 1, Reached(0.0, reached[trial]))
    assert len(set(promoted)) == len(promoted)
    assert {trial for trial, _ in ladder.waiting()} == set(range(len(reached))) - {t for t, r in promoted if r == 1}


def test_a_trial_that_breaks_a_constraint_stands_behind_all_that_keep_it():
    ladder = rungs(eta=2)
    ladder.record(0, 0, Reached(0.3, (-0.99,)))
    ladder.record(1, 0, Reached(0.1, (-0.98,)))
    ladder.record(2, 0, Reached(0.0, (-0.2,)))
    assert [ladder.standing(trial, 0).place for trial in range(3)] == [3, 2, 1]
