"""K-fold validation as an objective: a trial is a training on each fold, and its value the mean over them."""

import dataclasses
import math
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from cxr_core.located_yaml import SpaceError
from cxr_core.recipe import load_recipe
from search.credibility import Credibility
from search.curve_table import TableError, table_of_study
from search.fidelity import Fidelities, Stage
from search.folds import Fold
from search.kept_scores import scores_path
from search.ledger import rung_epochs
from search.leg import Leg
from search.space import fidelities_of, rungs_of
from search.study import Study, StudyError
from search.trial import Outcome, Step
from tests.search.conftest import RECIPE, SPACE, Trainer, legs_on

KFOLD = SPACE.replace("metric: auroc_macro, direction: maximize", "metric: kfold_auroc_macro, folds: 3")
SHORT = ("space.epochs=4", "asha={rungs: [0.25, 0.5], eta: 2}", "budget.trials=6")


class FoldTrainer(Trainer):
    """Reports as workers do: beside what is reached in a fold, the means over the folds so far."""

    def run(self, legs, epochs=None):
        handed_out, next_leg, epoch_done = {}, legs.next_leg, legs.epoch_done

        def noted():
            leg = next_leg()
            if isinstance(leg, Leg):
                handed_out[leg.trial] = leg
            return leg

        def done(number, record):
            metrics = {**record.metrics, **handed_out[number].fold.means(record.metrics)}
            value = metrics[legs.journal.objective.metrics[0]]
            return epoch_done(number, dataclasses.replace(record, metrics=metrics, value=value))

        legs.next_leg, legs.epoch_done = noted, done
        return super().run(legs, epochs)


def value(trial, epoch):
    """What a trial of 4 epochs a fold reaches: each fold is as hard for all, and rises alike."""
    fold, within = divmod(epoch - 1, 4)
    return 0.5 + 0.02 * (trial * 5 % 7) + 0.1 * fold + 0.01 * within


@pytest.fixture
def search(make_space, make_study):
    """A search over folds on a new study, and its trainer."""

    def make(*overrides, slots=2):
        space = make_space(KFOLD, *SHORT, *overrides)
        trainer = FoldTrainer(slots, value)
        return legs_on(make_study(space), space, trainer.clock, slots=slots), trainer

    return make


# The space


def test_a_search_over_folds_is_of_one_metric_in_its_own_direction(make_space):
    objective = make_space(KFOLD).objective
    assert (objective.metrics, objective.maximize, objective.folds) == (("kfold_auroc_macro",), (True,), 3)
    assert objective.judged == "auroc_macro"
    loss = make_space(SPACE, "objective={metric: kfold_log_loss}").objective
    assert (loss.maximize, loss.folds, loss.judged) == ((False,), 5, "log_loss")


@pytest.mark.parametrize(
    ("overrides", "where", "why"),
    [
        (["objective.folds=1"], "--set objective.folds=1: objective.folds", "greater than or equal to 2"),
        (["objective.metric=auroc_macro"], "objective", "`folds` are of kfold_auroc_macro or kfold_log_loss"),
        (["asha.fidelity=data_share"], "asha.fidelity", "take `fidelity: schedule`, or auroc_macro"),
        (["objective={metrics: [kfold_auroc_macro, gflops]}"], "objective", "several metrics has no folds"),
        (["objective.metric=kfold_auroc"], "objective.metric", "did you mean 'kfold_auroc_macro'"),
        (["objective.direction=minimize"], "objective.direction", "kfold_auroc_macro is better when it is maximized"),
        (["constraints={kfold_log_loss: {max: 1}}"], "constraints", "no metric 'kfold_log_loss' to constrain"),
    ],
)
def test_a_mistake_about_folds_is_told_with_its_place_and_remedy(make_space, overrides, where, why):
    with pytest.raises(SpaceError) as mistake:
        make_space(KFOLD, *overrides)
    assert where in str(mistake.value)
    assert why in str(mistake.value)


def test_a_mistake_in_the_file_is_told_with_its_line(make_space):
    text = KFOLD.replace("eta: 3}", "eta: 3, fidelity: image_size}")
    with pytest.raises(SpaceError, match=r"space0\.yaml:7: asha\.fidelity: the trainings of kfold_auroc_macro"):
        make_space(text)


def test_a_recipe_has_no_folds(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("auroc_macro", "kfold_auroc_macro"))
    with pytest.raises(SpaceError, match="there is no metric 'kfold_auroc_macro'"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("change", ["objective.folds=4", "objective.metric=kfold_log_loss"])
def test_the_folds_of_a_study_hold_for_its_life(make_space, make_study, change):
    text = KFOLD.replace(", direction: maximize", "")
    study = make_study(make_space(text))
    with pytest.raises(StudyError, match="differs from the study's in objective"):
        study.adopt(make_space(text, change))


# Stages and rungs


def test_each_fold_is_a_stage_and_rungs_lie_in_the_first_and_at_its_end():
    fidelities = Fidelities("schedule", (0.25, 0.5), 28, folds=3)
    assert fidelities.stages == 3
    assert fidelities.fractions == pytest.approx((0.25 / 3, 0.5 / 3, 1 / 3))
    assert [fidelities.stage(done, 4) for done in (0, 3, 4, 11, 12)] == [
        Stage(28, 1.0, 0, 0),
        Stage(28, 1.0, 0, 0),
        Stage(28, 1.0, 4, 1),
        Stage(28, 1.0, 8, 2),
        Stage(28, 1.0, 8, 2),
    ]
    assert fidelities.stage(2, 4, in_full=True) == Stage(28, 1.0, 0, 2)


@pytest.mark.parametrize("schedule", [1, 3, 7, 10, 40])
@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_rungs_lie_where_they_would_lie_in_a_single_training(make_space, schedule, folds):
    rungs = rungs_of(make_space(KFOLD, f"objective.folds={folds}").header)
    alone = rungs_of(make_space(SPACE).header)
    within = tuple(max(1, math.ceil(fraction * schedule - 1e-9)) for fraction in (0.1, 0.5))
    assert rungs.epochs(schedule * folds) == (*within, schedule)
    assert set(alone.epochs(schedule)) <= set(within)


def test_where_nobody_is_judged_there_are_folds_all_the_same(make_space):
    header = make_space(KFOLD, "asha.mode=none").header
    assert fidelities_of(header).stages == 3
    assert rungs_of(header).epochs(30) == ()


def test_a_mean_is_over_the_folds_so_far_and_undefined_where_one_is():
    earlier = ({"auroc_macro": 0.7, "log_loss": 0.4}, {"auroc_macro": 0.8, "log_loss": None})
    means = Fold(2, 3, earlier).means({"auroc_macro": 0.9, "log_loss": 0.2})
    assert means["kfold_auroc_macro"] == pytest.approx(0.8)
    assert math.isnan(means["kfold_log_loss"])


# The search


def test_a_trial_is_a_training_from_the_start_on_each_fold_and_ends_on_the_studys_own(search):
    legs, trainer = search("asha.mode=none", "budget.trials=1", slots=1)
    assert trainer.run(legs)
    assert [(leg.fold.index, leg.fold.of, leg.before, leg.checkpoint) for leg in trainer.handed_out] == [
        (0, 3, 0, None),
        (1, 3, 4, None),
        (2, 3, 8, None),
    ]
    assert trainer.handed_out[0].config == trainer.handed_out[1].config == trainer.handed_out[2].config
    trial = legs.journal.trial(0)
    assert (trial.outcome, len(trial.epochs), trial.schedule) == (Outcome.FULL, 12, 12)


def test_the_value_of_an_epoch_is_the_mean_of_the_last_of_each_fold_and_of_the_present_one(search):
    legs, trainer = search("asha.mode=none", "budget.trials=2")
    trainer.run(legs)
    for trial in legs.journal.trials():
        for epoch in trial.epochs:
            ends = [end for end in (4, 8) if end < epoch.epoch]
            assert epoch.value == pytest.approx(fmean(value(trial.number, at) for at in (*ends, epoch.epoch)))
            assert epoch.metrics["auroc_macro"] == value(trial.number, epoch.epoch)
        assert trial.value == pytest.approx(fmean(value(trial.number, at) for at in (4, 8, 12)))


def test_only_who_passes_the_end_of_the_first_fold_is_trained_on_the_others(search):
    legs, trainer = search("budget.trials=9", slots=1)
    trainer.run(legs)
    legs.close()
    trials = legs.journal.trials()
    assert {len(trial.epochs) for trial in trials if trial.outcome is Outcome.PRUNED} <= {1, 2, 4}
    assert {len(trial.epochs) for trial in trials if trial.outcome is Outcome.FULL} == {12}
    held = [d.evidence["epoch"] for t in trials for d in t.decisions if d.step is Step.WAITS]
    assert 4 in held
    for trial in trials:
        assert rung_epochs(trial, legs.rungs) == (1, 2, 4)


@pytest.mark.parametrize("epochs", [1, 3, 4, 5, 7, 8, 9, 11, 17, 29])
def test_a_killed_search_goes_on_in_the_fold_where_it_was_with_what_the_earlier_ones_reached(
    search, make_space, epochs
):
    whole, trainer = search("asha.mode=none", "budget.trials=3")
    assert trainer.run(whole)
    legs, first = search("asha.mode=none", "budget.trials=3")
    assert not first.run(legs, epochs)
    folder = legs.journal.folder
    again = FoldTrainer(2, value)
    assert again.run(legs_on(Study(folder), legs.space, again.clock, slots=2))
    study = Study(folder)
    assert [[e.value for e in t.epochs] for t in study.trials()] == [
        pytest.approx([e.value for e in t.epochs]) for t in whole.journal.trials()
    ]
    assert len(first.trained) + len(again.trained) == 3 * 12
    for leg in {leg.trial: leg for leg in reversed(again.handed_out)}.values():
        done = len([1 for trial, _ in first.trained if trial == leg.trial])
        assert leg.fold.index == done // 4
        assert (leg.checkpoint is None) == (done % 4 == 0)
        assert len(leg.fold.earlier) == leg.fold.index


def test_baselines_and_other_seeds_of_the_search_are_trained_on_as_many_folds(make_space, make_study, tmp_path):
    (tmp_path / "plain.yaml").write_text(RECIPE)
    space = make_space(KFOLD, *SHORT, "baselines=[plain.yaml]", "space={model: small_cnn, epochs: 4}", "asha.eta=2")
    trainer = FoldTrainer(1, value)
    legs = legs_on(make_study(space), space, trainer.clock)
    trainer.run(legs)
    trials = legs.journal.trials()
    assert trials[0].baseline == "plain"
    assert any(trial.repeats is not None for trial in trials)  # a space of one configuration: its other seeds
    assert {trial.stages for trial in trials} == {3}
    assert len(trials[0].epochs) == 12
    assert [d.step for d in trials[0].decisions if d.step in (Step.WAITS, Step.PROMOTED)] == []


def test_a_forecast_counts_the_epochs_of_all_folds(search):
    legs, trainer = search("asha.mode=none", "budget.trials=1", slots=1)
    trainer.run(legs, epochs=5)
    assert legs.forecast(legs.journal.trial(0)) == 7.0


def test_a_search_over_folds_is_not_replayed(search):
    legs, trainer = search()
    trainer.run(legs)
    with pytest.raises(TableError, match=r"trained on several folds \(kfold_auroc_macro\)"):
        table_of_study(legs.journal.folder)


def test_trials_within_the_first_fold_are_compared_on_the_films_that_judge_there(make_space, tmp_path):
    """These are training films of the study: a comparison that knew validation films alone would find none of them."""
    ill = np.arange(200) % 3 == 0
    films = pd.DataFrame({"image": [f"{film}.png" for film in range(200)], "patient": [str(f) for f in range(200)]})
    films = films.assign(split=["train"] * 150 + ["val"] * 50, Pneumonia=ill.astype(float))
    space = make_space(KFOLD, "asha={rungs: [0.1], eta: 2, confidence: 0.9}")
    study = Study.create(tmp_path / "compared", space, {"seed": 0}, films)
    noise = np.random.default_rng(0).normal(size=75)
    for separation in (3.0, 0.0):
        trial = study.add({"model": "small_cnn", "epochs": 10}, 0, "for a test", stages=3)
        path = scores_path(study.folder, trial.number, 1)
        path.parent.mkdir(parents=True)
        np.savez(path, images=films["image"].to_numpy(str)[:75], scores=(ill[:75] * separation + noise)[:, None])
    good, poor = ((study.trial(number), 1) for number in (0, 1))
    credible = Credibility(study, ("Pneumonia",))
    assert (credible(good, poor), credible(poor, good)) == (1.0, 0.0)
    leg = legs_on(study, space, compare=credible).next_leg()
    assert leg.scored == (1, 10)


def test_the_last_training_of_a_trial_is_what_its_epochs_since_the_last_start_are(search):
    legs, trainer = search("asha.mode=none", "budget.trials=1", slots=1)
    trainer.run(legs, epochs=6)
    trial = legs.journal.trial(0)
    assert [epoch.epoch for epoch in trial.last_training] == [5, 6]
    assert [e.epoch for e in dataclasses.replace(trial, epochs=trial.epochs[:4]).last_training] == [1, 2, 3, 4]
    assert dataclasses.replace(trial, epochs=()).last_training == ()
