"""A tie-breaker over several folds: finalists are trained on the other folds, which breaks the tie and nothing else."""

import dataclasses
import math

import pytest

from search.checkpoints import Checkpoints
from search.finals.ensemble import candidates
from search.finals.record import _of_broken
from search.finals.repeats import Repeats, broken, choose, folds_of, seeds_of, trainings_of
from search.finals.reserve import affordable
from search.finals.ties import TieBreaker, decision, tie_breakers
from search.life import life
from search.overview import Overview
from search.placement import Resources
from search.report import write_report
from search.report.account import fate, spreads
from search.study import Study
from search.trial import Outcome, Trial
from tests.search.conftest import SPACE, Trainer, epoch_record
from tests.search.finals.conftest import save

ONE = Resources(concurrent=1)
TWO_LABELLED = SPACE.replace("direction: maximize", "tie_breakers: [kfold_auroc_macro], folds: 3")
OBJECTIVE = SPACE.replace("metric: auroc_macro, direction: maximize", "metric: kfold_auroc_macro, folds: 3")


@pytest.fixture
def space(make_space):
    return make_space(TWO_LABELLED)


@pytest.fixture
def study(make_study, space):
    """Takes the place of the one that the other tests of finals train on."""
    return make_study(space)


def numbers(trials):
    return [trial.number for trial in trials]


def run(study, space, repeats, epochs=None, value=lambda trial, epoch: 0.6):
    """Train legs as workers do; killed after a number of epochs if one is given."""
    trainer, done = Trainer(repeats.budget.slots, value), repeats.epoch_done

    def epoch_done(number, record):
        return done(number, dataclasses.replace(save(study, number, record.epoch, record.value), seconds=1.0))

    repeats.epoch_done = epoch_done
    return trainer.run(repeats, epochs), trainer


def test_each_finalist_that_may_win_is_trained_once_on_each_of_the_other_folds(study, train, space):
    for value in (0.7, 0.9, 0.5):
        train(value)
    finals = Repeats(study, space, [1, 0], 2, ONE)
    assert finals.lacking_folds() == [(1, 0), (1, 1), (0, 0), (0, 1)]
    assert finals.left == 2 + 4
    ended, trainer = run(study, space, finals)
    assert ended
    assert finals.is_complete
    for finalist in (0, 1):
        assert [trial.fold for trial in folds_of(study.trials(), finalist)] == [0, 1]
        assert all(trial.flat == study.trial(finalist).flat for trial in folds_of(study.trials(), finalist))
    assert folds_of(study.trials(), 2) == []
    told = {leg.trial: leg.fold for leg in trainer.handed_out}
    for trial in study.trials()[3:]:
        fold = told[trial.number]
        assert (fold and (fold.index, fold.of, fold.earlier)) == (None if trial.fold is None else (trial.fold, 3, ()))
    assert len({trial.seed for trial in study.trials()[3:]}) == 6


def test_seeds_come_first(study, train, space):
    for value in (0.7, 0.9):
        train(value)
    _, trainer = run(study, space, Repeats(study, space, [1, 0], 2, ONE))
    assert [leg.fold is None for leg in trainer.handed_out] == [True, True, False, False, False, False]


@pytest.mark.parametrize("epochs", [0, 1, 11, 25, 47])
def test_killed_finals_go_on_and_repeat_only_epochs_in_flight(study, train, space, epochs):
    for value in (0.7, 0.9):
        train(value)
    ended, first = run(study, space, Repeats(study, space, [1, 0], 2, ONE), epochs)
    assert not ended
    again = Study(study.folder)
    ended, second = run(again, space, Repeats(again, space, [1, 0], 2, ONE))
    assert ended
    assert len(again.trials()) == 2 + 2 + 4
    assert len(first.trained) + len(second.trained) == 6 * 10
    assert Repeats(again, space, [1, 0], 2, ONE).is_complete


def test_who_may_not_win_or_has_no_rival_is_trained_on_no_other_fold(make_study, make_space, space):
    bounded = make_space(TWO_LABELLED, "constraints={log_loss: {max: 0.75}}")
    study = make_study(bounded)
    for value in (0.9, 0.7, 0.6):
        trial = study.add({"model": "small_cnn", "epochs": 1}, 0, "for a test")
        study.record(trial.number, save(study, trial.number, 1, value))
        study.finish(trial.number, Outcome.FULL)
    assert Repeats(study, bounded, [0, 1, 2], 1, ONE).lacking_folds() == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert Repeats(study, bounded, [0, 1], 1, ONE).lacking_folds() == []


def test_without_such_a_tie_breaker_and_with_such_an_objective_there_are_none(make_study, make_space):
    for text in (SPACE, OBJECTIVE):
        space = make_space(text)
        study = make_study(space)
        assert study.objective.other_folds == 0


@pytest.fixture
def trained(study, train, space):
    """Two finalists with two seeds each, trained on the other folds, where the second one is better."""
    for value in (0.90, 0.89):
        train(value)
    finals = Repeats(study, space, [0, 1], 2, ONE)

    def reached(number, epoch):
        trial = study.trial(number)
        return 0.8 + 0.05 * trial.repeats + 0.01 * (trial.fold or 0)

    run(study, space, finals, value=reached)
    return study


def test_such_a_training_is_no_seed_no_candidate_no_finalist_and_in_no_mean(trained):
    others = [trial for trial in trained.trials() if trial.fold is not None]
    assert {trial.outcome for trial in others} == {Outcome.FOLD}
    assert len(others) == 4
    for trial in others:
        assert trial not in seeds_of(trained, trial.repeats)
        assert trial not in trainings_of(trained, trial.repeats)
        assert trial not in candidates(trained)
        assert trial not in trained.eligible()
        assert trial not in choose(trained, 9)
        assert not trial.values
        assert fate(trial) == "trained in full, on other folds"
    assert [numbers(spread.repeats) for spread in spreads(trained.trials())] == [
        [t.number for t in seeds_of(trained, finalist) if t.repeats is not None] for finalist in (0, 1)
    ]
    assert not {t.number for t in trained.optuna_study().trials if t.values} & set(numbers(others))
    assert set(life(Overview(trained), trained.trial(0))["seeds"]) == {2}


def test_its_checkpoints_are_needed_by_nothing(trained):
    trained.note("finalists", [0, 1])
    sweeper = Checkpoints(trained.folder, trained, best=9)
    sweeper.sweep(trained.trial(0))
    kept = {int(path.parent.name) for path in (trained.folder / "trials").glob("*/epoch-*.pt")}
    assert kept == {trial.number for trial in trained.trials() if trial.fold is None}


def test_the_value_of_a_finalist_is_the_mean_over_the_folds_its_own_split_by_the_mean_of_its_seeds(trained):
    trainings = {finalist: trainings_of(trained, finalist) for finalist in (0, 1)}
    (breaker,) = tie_breakers(trained.objective, trainings, trained.trials())
    own = [(0.90 + 0.80) / 2, (0.89 + 0.85) / 2]
    assert breaker.values[0] == pytest.approx((0.80 + 0.81 + own[0]) / 3)
    assert breaker.values[1] == pytest.approx((0.85 + 0.86 + own[1]) / 3)
    assert (breaker.name, breaker.folds, breaker.always) == ("kfold_auroc_macro", 3, False)
    assert breaker.cost(1) < breaker.cost(0)


def test_before_the_folds_are_trained_the_tie_breaker_is_left_out(study, train):
    for value in (0.7, 0.9, 0.8):
        train(value)
    assert tie_breakers(study.objective, {0: [study.trial(0)]}) == []
    assert numbers(choose(study, 2, lambda one, other: 0.5)) == [1, 2]


def test_a_fold_on_which_a_finalist_broke_is_not_trained_again_and_it_loses_the_tie(study, train, space):
    for value in (0.9, 0.8):
        train(value)
    finals = Repeats(study, space, [0, 1], 1, ONE)
    leg = finals.next_leg()
    finals.failed(leg.trial, Outcome.DIVERGED, "the loss is nan")
    finals.leg_ended(leg.trial)
    assert (0, 0) not in finals.lacking_folds()
    run(study, space, finals)
    assert numbers(broken(study, [0, 1])) == [2]
    trainings = {finalist: trainings_of(study, finalist) for finalist in (0, 1)}
    (breaker,) = tie_breakers(study.objective, trainings, study.trials())
    assert math.isnan(breaker.values[0])
    assert breaker.cost(0) == math.inf
    assert breaker.told(0) == "no value of trial 0"


def test_what_broke_on_a_fold_is_warned_of():
    trial = Trial(7, {"epochs": 1}, 0, repeats=3, fold=1, outcome=Outcome.DIVERGED)
    assert _of_broken(trial).startswith("Trial 7 (as 3, fold 2) ended as diverged: trial 3 has no mean over the folds")


def test_the_sentence_says_over_how_many_folds():
    breaker = TieBreaker("kfold_auroc_macro", {4: 0.91, 6: 0.93}, folds=3)
    assert decision("auroc_macro", 6, 4, [4, 6], [breaker]) == (
        "auroc_macro on validation cannot tell 2 finalists apart, so the tie-breaker kfold_auroc_macro (a mean over 3 "
        "folds) decides: 0.9300 of trial 6, against 0.9100 of trial 4. Best in auroc_macro alone is trial 4."
    )


def test_the_reserve_pays_for_the_folds(make_study, make_space):
    """A third of 190 s: for 2 more seeds of 3 trials, or, with 2 other folds, for a seed and the folds of 2."""
    for text, size in ((SPACE, (3, 3)), (TWO_LABELLED, (2, 2))):
        study = make_study(make_space(text))
        for number in range(19):
            trial = study.add({"model": "small_cnn", "epochs": 1}, 0, "for a test")
            record = dataclasses.replace(save(study, number, 1, 0.6 + number / 100), seconds=10.0)
            study.record(trial.number, record)
            study.finish(trial.number, Outcome.FULL)
        assert affordable(study, 0.25) == size


def test_a_finalist_of_several_folds_costs_the_finals_one_training(make_study, make_space):
    study = make_study(make_space(OBJECTIVE))
    for number in range(4):
        trial = study.add({"model": "small_cnn", "epochs": 1}, 0, "for a test", stages=3)
        for epoch in (1, 2, 3):
            saved = save(study, number, epoch, 0.6)
            metrics = {**saved.metrics, "kfold_auroc_macro": 0.6}
            study.record(trial.number, dataclasses.replace(saved, metrics=metrics, seconds=10.0))
        study.finish(trial.number, Outcome.FULL)
    assert affordable(study, 0.25) == (3, 2)  # a third of 120 s are 40; six trainings take 60, three 30


# The objective itself


@pytest.fixture
def folded(make_study, make_space):
    """A study over folds of two trials in full, and another seed of each that finals trained, on one split."""
    space = make_space(OBJECTIVE)
    study = make_study(space)
    for number, values in enumerate([(0.7, 0.8, 0.9), (0.9, 0.8, 0.85)]):
        study.add({"model": "small_cnn", "epochs": 1}, 0, "for a test", stages=3)
        for epoch, value in enumerate(values, 1):
            mean = sum(values[:epoch]) / epoch
            saved = save(study, number, epoch, value)
            metrics = {**saved.metrics, "kfold_auroc_macro": mean}
            study.record(number, dataclasses.replace(saved, metrics=metrics, value=mean))
        study.finish(number, Outcome.FULL)
    for number, value in ((2, 0.99), (3, 0.5)):
        study.add({"model": "small_cnn", "epochs": 1}, number, "for a test", repeats=number - 2, finals=True)
        saved = save(study, number, 1, value)
        study.record(number, dataclasses.replace(saved, metrics={**saved.metrics, "kfold_auroc_macro": value}))
        study.finish(number, Outcome.FULL)
    study.space = space
    return study


def test_the_winner_over_folds_is_that_of_the_search_whatever_other_seeds_reach(folded):
    assert numbers(choose(folded, 2)) == [1, 0]
    trainings = {finalist: trainings_of(folded, finalist) for finalist in (0, 1)}
    (breaker,) = tie_breakers(folded.objective, trainings, folded.trials())
    assert breaker.values == {0: pytest.approx(0.8), 1: pytest.approx(0.85)}
    assert breaker.always
    said = decision("auroc_macro", 1, 0, [0, 1], [breaker])
    assert said == (
        "The search improved kfold_auroc_macro (a mean over 3 folds), which chooses: 0.8500 of trial 1, against 0.8000 "
        "of trial 0."
    )


def test_a_trial_over_folds_counts_though_its_own_checkpoint_is_gone(folded):
    (folded.folder / folded.trial(0).epochs[-1].checkpoint).unlink()
    trainings = {finalist: trainings_of(folded, finalist) for finalist in (0, 1)}
    assert numbers(trainings[0]) == [2]
    (breaker,) = tie_breakers(folded.objective, trainings, folded.trials())
    assert breaker.values[0] == pytest.approx(0.8)


def test_a_training_of_the_finals_is_one_on_the_studys_own_split(folded):
    finals = Repeats(folded, folded.space, [1, 0], 3, ONE)
    assert finals.lacking_folds() == []
    leg = finals.next_leg()
    assert (leg.fold.index, leg.fold.of, leg.fold.earlier, leg.before) == (2, 3, (), 0)
    assert folded.trial(leg.trial).schedule == 1
    assert leg.fold.means(epoch_record(1, 0.7).metrics)["kfold_auroc_macro"] == pytest.approx(0.7)


def test_seeds_of_a_search_over_folds_are_told_by_what_each_training_has(folded):
    found = spreads(folded.trials(), folded.objective.judged)
    assert [spread.values for spread in found] == [[0.9, 0.99], [0.85, 0.5]]
    page = write_report(folded).read_text()
    seeds = page[page.index('<section id="seeds"') :]
    assert "How far macro AUROC moves by chance alone" in " ".join(seeds[: seeds.index("</section>")].split())
    curves = " ".join(page[page.index('<section id="curves"') :].split())
    assert "A trial of the search is trained 3 times from the start" in curves
