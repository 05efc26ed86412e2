"""What the reserve of a budget affords: finals with as many finalists and seeds as it pays for, or none."""

import logging

import pytest

from search.finals.reserve import affordable, allowance, hold_finals
from search.finals.session import begun
from search.placement import Resources
from search.trial import Outcome

SECONDS = 10.0
"""What a searched trial of the fixture takes; a baseline takes 2."""


@pytest.fixture
def trials(study, train):
    """A study of so many full trials, all of the same cost, and of baselines."""

    def make(count, baselines=0):
        for number in range(baselines):
            train(0.5, baseline=f"recipe{number}")
        for number in range(count):
            train(0.6 + number / 1000)
        assert {trial.seconds for trial in study.trials() if not trial.baseline} == {SECONDS}
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


def test_what_the_finals_trained_does_not_enlarge_their_share(trials):
    study = trials(19)
    best = max(study.trials(), key=lambda trial: trial.value)
    for _ in range(3):
        repeated = study.add(best.flat, 0, "for a test", repeats=best.number, finals=True)
        for epoch in best.last_training:
            study.record(repeated.number, epoch)
        study.finish(repeated.number, Outcome.FULL)
    assert affordable(study, 0.22) == (3, 2)  # 5.4 trainings of the search's 19; of all 22 there would be 6


def test_finals_that_were_begun_keep_their_size(trials):
    study = trials(19)
    assert begun(study) is None
    study.note("finals", {"top": 2, "seeds": 2})
    assert begun(study) == (2, 2)


def test_without_baselines_the_share_is_for_the_best_alone(trials):
    assert affordable(trials(16), 0.28) == (3, 3)  # 60 seconds of 62


def test_with_baselines_the_same_share_pays_for_less(trials):
    study = trials(16, baselines=4)
    assert affordable(study, 0.28) == (3, 2)  # with the baselines three seeds would take 76 of 65 seconds
    assert affordable(study, 0.32) == (3, 3)


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
    assert "the reserve of the budget, about 5s, is too little" in caplog.text
    study.note("test_openings", [{"at": 0.0, "reason": "for a test", "trials": [0]}])
    assert hold_finals(study, 0.9, one) is None
    assert "--reopen-test REASON" in caplog.text
