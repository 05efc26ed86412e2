"""Rungs: who goes on and who waits."""

import pytest

from search.objectives import Reached
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
