"""What a study amounts to, counted look by look."""

import random
from dataclasses import dataclass

import pytest

from search.tally import Tally, end_of
from search.trial import Outcome
from tests.search.conftest import drawn, epoch_record

ENDS = [Outcome.FULL, Outcome.PRUNED, Outcome.DIVERGED, Outcome.ERROR]


@pytest.fixture
def study(make_space, make_study):
    """A study of trials that ended in many ways, or have not."""
    draw = random.Random(0)
    space = make_space()
    study = make_study(space)
    for _ in range(20):
        number = drawn(study, space).number
        for epoch in range(1, draw.randint(2, 4)):
            study.record(number, epoch_record(epoch, draw.random(), seconds=draw.random()))
        if draw.random() < 0.7:
            study.finish(number, draw.choice(ENDS))
    return study


def test_a_tally_of_many_looks_is_the_study_counted_at_once(make_space, make_study):
    draw = random.Random(1)
    space = make_space()
    study, tally = make_study(space), Tally(maximize=True)
    for _ in range(40):
        number = draw.randrange(10)
        if number >= len(study.trials()):
            drawn(study, space)
        elif study.trial(number).outcome is Outcome.OPEN:
            study.record(number, epoch_record(len(study.trial(number).epochs) + 1, draw.random(), draw.random()))
            if draw.random() < 0.4:
                study.finish(number, draw.choice(ENDS))
        tally.take(tally.changed(study.trials()))
    trials = study.trials()
    outcomes = [trial.outcome.value for trial in trials]
    assert {what: n for what, n in tally.counts.items() if n} == {
        what: outcomes.count(what) for what in set(outcomes) - {"open"}
    }
    assert tally.open == outcomes.count("open")
    assert tally.seconds == pytest.approx(sum(trial.seconds for trial in trials))
    assert tally.best == study.winner()
    assert tally.best is not None


def test_what_has_not_changed_is_not_looked_at_again(study, make_space):
    tally = Tally(maximize=True)
    tally.take(tally.changed(study.trials()))
    assert tally.changed(study.trials()) == []
    number = drawn(study, make_space()).number
    assert [trial.number for trial in tally.changed(study.trials())] == [number]


def test_each_end_of_a_trial_has_a_standing_in_order_of_time(study):
    ended = [trial for trial in study.trials() if trial.outcome is not Outcome.OPEN]
    standings = Tally(maximize=True).take(study.trials())
    assert [standing.ended for standing in standings] == list(range(1, len(ended) + 1))
    assert [standing.at for standing in standings] == sorted(end_of(trial) for trial in ended)


def test_the_best_of_a_standing_is_the_best_full_trial_until_then(study):
    full = [trial for trial in study.trials() if trial.outcome is Outcome.FULL]
    for standing in Tally(maximize=True).take(study.trials()):
        until_then = [trial.value for trial in full if end_of(trial) <= standing.at]
        assert (standing.best.value if standing.best else None) == max(until_then, default=None)


def test_the_best_of_a_loss_is_the_smallest(study):
    full = [trial.value for trial in study.trials() if trial.outcome is Outcome.FULL]
    tally = Tally(maximize=False)
    tally.take(study.trials())
    assert tally.best.value == min(full)


def test_the_time_of_a_standing_is_all_training_until_then(study):
    epochs = [epoch for trial in study.trials() for epoch in trial.epochs]
    for standing in Tally(maximize=True).take(study.trials()):
        until_then = sum(epoch.seconds for epoch in epochs if epoch.at <= standing.at)
        assert standing.seconds == pytest.approx(until_then)


@dataclass
class Decision:
    at: float


def test_a_trial_ends_with_its_last_decision_if_one_came_after_its_last_epoch(study):
    trial = next(trial for trial in study.trials() if trial.epochs)
    assert end_of(trial) == trial.epochs[-1].at
    object.__setattr__(trial, "decisions", (Decision(trial.epochs[-1].at + 60),))
    assert end_of(trial) == trial.epochs[-1].at + 60
