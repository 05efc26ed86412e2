"""What the reserve of a budget affords: finals with as many finalists and seeds as it pays for, or none."""

import logging

import pytest

from search.finals.reserve import affordable, allowance, hold_finals
from search.placement import Resources

SECONDS = 2.0
"""What a trial of the fixture takes: two epochs of a second."""


@pytest.fixture
def trials(study, train):
    """A study of so many full trials, all of the same cost."""

    def make(count, baselines=0):
        for number in range(baselines):
            train(0.5, baseline=f"recipe{number}")
        for number in range(count - baselines):
            train(0.6 + number / 1000)
        assert {trial.seconds for trial in study.trials()} == {SECONDS}
        return study

    return make


@pytest.mark.parametrize(
    ("reserve", "size"),
    [
        (0.25, (3, 3)),  # a third of 19 trainings more: six, for three finalists with three seeds
        (0.20, (3, 2)),  # 4.75 trainings: three finalists with two seeds, no more
        (0.10, (2, 2)),  # 2.1
        (0.09, None),  # 1.9
        (0.0, None),
    ],
)
def test_finals_are_as_large_as_their_share_of_all_training_allows(trials, reserve, size):
    study = trials(19)
    assert affordable(study, reserve) == size


def test_the_share_is_of_search_and_finals_together(trials):
    study = trials(8)
    assert allowance(study, 0.2) / (allowance(study, 0.2) + 8 * SECONDS) == pytest.approx(0.2)


def test_baselines_are_repeated_too_and_cost_as_much(trials):
    study = trials(20, baselines=4)  # of 5 trainings left, two finalists take 2 and the baselines 4
    assert affordable(study, 0.2) is None
    assert affordable(study, 0.25) == (2, 2)


def test_a_search_says_why_it_holds_no_finals(trials, caplog):
    study, one = trials(2), Resources(concurrent=1)
    caplog.set_level(logging.INFO, "search")
    assert hold_finals(study, 0.0, one) is None
    assert "no finals: budget.reserve is 0" in caplog.text
    study.note("films", {"train": 10, "val": 10})
    assert hold_finals(study, 0.2, one) is None
    assert "has no test split" in caplog.text
    study.note("films", {"train": 10, "val": 10, "test": 10})
    assert hold_finals(study, 0.2, one) is None
    assert "the reserve, about 1s, is too little" in caplog.text
    study.note("test_openings", [{"at": 0.0, "reason": "for a test", "trials": [0]}])
    assert hold_finals(study, 0.9, one) is None
    assert "--reopen-test REASON" in caplog.text
