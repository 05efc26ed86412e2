"""The refit: trained on the validation films, too, so that it can win nothing and is judged by nothing."""

import dataclasses
import math

import pytest

from search.checkpoints import Checkpoints
from search.finals.ensemble import candidates
from search.finals.refit import Refit, refit_of, refit_sentence
from search.finals.repeats import Repeats, choose, seeds_of, trainings_of
from search.legs import Pause
from search.placement import Resources
from search.report import write_report
from search.report.account import spreads
from search.study import Study
from search.trial import Outcome
from tests.search.conftest import SPACE, epoch_record
from tests.search.small_study import new_study, train

ONE = Resources(concurrent=1)
RECORD = {"winner": 0, "delivered": 1, "metric": "auroc_macro"}
RECORD |= {"finalists": [{"trial": 0, "test": {"mean": 0.875}}]}


@pytest.fixture
def study(tmp_path, make_space, monkeypatch):
    """A winner, trial 0, and another seed of it."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    study = new_study(tmp_path, make_space(SPACE))
    train(study, 0)
    train(study, 1, repeats=0)
    return study


def refit(study, delivered=1):
    return Refit(study, study.space, 0, delivered, ONE)


def train_leg(study, legs, epochs=1):
    """A leg as a worker trains a refit, to its end."""
    leg = legs.next_leg()
    path = study.trial_folder(leg.trial) / "epoch-0001.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"weights")
    for epoch in range(1, epochs + 1):
        record = dataclasses.replace(epoch_record(epoch, math.nan), metrics={}, auroc={})
        record = dataclasses.replace(record, checkpoint=str(path.relative_to(study.folder)))
        legs.epoch_done(leg.trial, record)
    legs.leg_ended(leg.trial)
    return study.trial(leg.trial)


def test_its_leg_is_the_winners_configuration_with_another_seed_and_takes_over_thresholds(study):
    leg = refit(study).next_leg()
    trial = study.trial(leg.trial)
    assert leg.config == dataclasses.replace(study.space.config(study.trial(0).flat, trial.seed), seed=trial.seed)
    assert leg.refit == study.trial(1).epochs[-1].checkpoint
    assert (trial.repeats, trial.refit) == (0, 1)


def test_it_is_trained_once(study):
    trained = train_leg(study, refit(study))
    assert trained.outcome is Outcome.REFIT
    assert refit(study).is_complete
    assert refit(study).next_leg() is Pause.FINISHED
    assert not refit(study, delivered=0).is_complete  # another one's thresholds are another refit


def test_a_refit_that_was_killed_goes_on_and_no_repeat_takes_it_up(study):
    leg = refit(study).next_leg()
    study = _opened(study)
    assert Repeats(study, study.space, [0], 2, ONE).is_complete
    again = refit(study)
    assert not again.is_complete
    assert again.next_leg().trial == leg.trial
    assert len(study.trials()) == 3


def _opened(study):
    """The study as the next session reads it."""
    again = Study(study.folder)
    again.space = study.space
    return again


def test_it_enters_no_mean_no_ensemble_and_no_ranking(study):
    trained = train_leg(study, refit(study))
    assert trained not in study.eligible()
    assert trained not in choose(study, 9)
    assert trained not in seeds_of(study, 0)
    assert trained not in trainings_of(study, 0)
    assert trained not in candidates(study)
    (spread,) = spreads(study.trials())
    assert [trial.number for trial in spread.repeats] == [1]


def test_no_metric_of_it_is_kept_anywhere(study):
    train_leg(study, refit(study))
    trained = _opened(study).trial(2)
    assert trained.value is None
    assert not trained.epochs[-1].metrics
    assert math.isnan(trained.epochs[-1].value)
    assert [t.number for t in study.optuna_study().trials if t.values] == [0, 1]
    assert study.optuna_study().best_trial.number in (0, 1)


def test_its_checkpoint_is_kept(study):
    trained = train_leg(study, refit(study))
    Checkpoints(study.folder, study, best=1, quota=1).sweep(trained)
    assert (study.folder / trained.epochs[-1].checkpoint).exists()


def test_what_can_be_known_of_it_is_said(study):
    assert refit_sentence(study.trials(), RECORD) == ""
    trained = train_leg(study, refit(study))
    assert refit_of(study.trials(), RECORD) == trained
    assert refit_of(study.trials(), {**RECORD, "delivered": 0}) is None
    said = refit_sentence(study.trials(), RECORD)
    assert "Trial 2 is the winner, trial 0, trained once more in the same way, on the validation films, too" in said
    assert "How good it is is not known" in said
    assert "0.8750" in said
    assert "thresholds are those of trial 1" in said


def test_the_report_of_a_study_with_a_refit_ranks_it_nowhere(study):
    train_leg(study, refit(study))
    page = write_report(study).read_text()
    assert "Best of 1 full trials" not in page
    assert 'id="leaderboard"' in page
    board = page[page.index('<section id="leaderboard"') : page.index("</section>", page.index('id="leaderboard"'))]
    assert "refit" not in board
