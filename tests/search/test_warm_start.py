"""What an earlier study tells the searcher of a new one."""

from functools import partial

import numpy as np
import pytest
from optuna.trial import TrialState

from search.priors import load_prior
from search.proposer import Proposer
from search.study import Study, StudyError
from search.trial import Outcome
from search.warm_start import read_earlier
from tests.search.conftest import SPACE, Trainer, drawn, epoch_record, legs_on, quality


@pytest.fixture
def earlier(search):
    """A finished study."""
    legs, trainer = search("asha={rungs: [0.1, 0.5], eta: 3}")
    trainer.run(legs)
    legs.close()
    return legs.journal


def test_it_tells_of_every_trial_that_came_to_a_result(earlier):
    known = read_earlier(str(earlier.folder), ["auroc_macro"])
    assert [k.number for k in known] == [trial.number for trial in earlier.trials()]
    for k in known:
        trial = earlier.trial(k.number)
        assert k.flat == trial.flat
        assert (k.state == TrialState.COMPLETE) == (trial.outcome is Outcome.FULL)
        assert k.values == (trial.epochs[-1].value,)
        assert k.rung == {1: 0, 5: 1, 10: 2}[len(trial.epochs)]


def test_a_study_that_improved_something_else_is_refused(earlier):
    with pytest.raises(StudyError, match="that study improved auroc_macro, this one improves log_loss"):
        read_earlier(str(earlier.folder), ["log_loss"])


def test_a_study_without_a_result_is_refused(make_study):
    with pytest.raises(StudyError, match="no trial of that study came to a result"):
        read_earlier(str(make_study().folder), ["auroc_macro"])


def test_a_study_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StudyError, match="there is no study here"):
        read_earlier(str(tmp_path / "nowhere"), ["auroc_macro"])


def test_failures_and_trials_in_flight_tell_nothing(make_space, make_study):
    space = make_space()
    study = make_study(space)
    for outcome in (Outcome.DIVERGED, Outcome.ERROR, Outcome.OPEN, Outcome.PRUNED):
        number = drawn(study, space).number
        study.record(number, epoch_record(1, 0.6))
        if outcome is not Outcome.OPEN:
            study.finish(number, outcome)
    assert [known.number for known in read_earlier(str(study.folder), ["auroc_macro"])] == [3]


def of_its_learning_rate(legs):
    """Curves whose height is decided by the learning rate: best at 0.001."""

    def value(trial, epoch):
        lr = legs.journal.trial(trial).flat["lr"]
        return (0.9 - 0.2 * abs(np.log10(lr / 1e-3))) * (1 - 0.5**epoch)

    return value


def searched(study, space, prior, trials, seed=0):
    legs = legs_on(study, space, proposer=partial(Proposer, prior=prior), seed=seed)
    Trainer(1, of_its_learning_rate(legs)).run(legs)
    return [abs(np.log10(trial.flat["lr"] / 1e-3)) for trial in study.trials()[:trials]]


def test_a_study_of_other_films_and_another_space_makes_the_first_trials_better(make_space, make_study):
    """What was best on other films is tried early: decades from the best learning rate, means of 10 trials, 6 seeds.

    Each trial's distance is spread over 0 to 2 decades with a deviation of about .6, so a mean of 60 has one of .08.
    """
    space = make_space(SPACE.replace("float: [1e-4, 1e-2]", "float: [1e-5, 1e-1]"), "budget.trials=10")
    # the earlier study's own space is another: it lacks the dropout
    first = make_study(make_space(SPACE.replace("  dropout: {float: [0.0, 0.5]}\n", ""), "budget.trials=40"))
    before = make_space(SPACE.replace("  dropout: {float: [0.0, 0.5]}\n", ""), "budget.trials=40")
    searched(first, before, [], 40)
    prior = read_earlier(str(first.folder), ["auroc_macro"])
    with_prior = [searched(make_study(space), space, prior, 10, seed) for seed in range(6)]
    without = [searched(make_study(space), space, [], 10, seed) for seed in range(6)]
    assert np.mean(with_prior) < np.mean(without)


def test_a_new_study_keeps_what_it_was_told_so_that_the_earlier_one_may_go(make_space, make_study, earlier, tmp_path):
    import pandas as pd

    prior = read_earlier(str(earlier.folder), ["auroc_macro"])
    films = pd.DataFrame({"image": ["a"], "patient": ["a"], "split": ["train"]})
    study = Study.create(tmp_path / "new", make_space(), {"seed": 0}, films, prior)
    kept = load_prior(study.folder)
    assert [(k.flat, k.state, k.values, k.rung) for k in kept] == [(k.flat, k.state, k.values, k.rung) for k in prior]


def test_a_warm_started_search_that_is_killed_proposes_what_it_would_have(make_space, make_study, earlier):
    space, prior = make_space(SPACE, "budget.trials=8"), read_earlier(str(earlier.folder), ["auroc_macro"])
    warm = partial(Proposer, prior=prior)
    whole, killed = make_study(space), make_study(space)
    Trainer(1, quality).run(legs_on(whole, space, proposer=warm))
    for _ in range(4):
        trainer = Trainer(1, quality)
        trainer.run(legs_on(Study(killed.folder), space, proposer=warm), epochs=4)
    Trainer(1, quality).run(legs_on(Study(killed.folder), space, proposer=warm))
    assert [t.flat for t in Study(killed.folder).trials()] == [t.flat for t in whole.trials()]
