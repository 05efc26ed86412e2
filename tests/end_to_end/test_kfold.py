"""K-fold validation for real: a search over folds that is killed in the middle of one, and a tie broken by folds."""

import json
import signal
import sys
from statistics import fmean

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from cxr_core.checkpoint import load_checkpoint
from cxr_core.data import TrainingData
from cxr_core.train import Training
from search.space import load_space
from search.trial import Outcome
from tests.end_to_end.conftest import Search, finish
from tests.end_to_end.test_finalize import end
from tests.end_to_end.test_search import development_cache, epochs_trained
from tests.search.conftest import RECIPE

SMALL = ["space.model=small_cnn", "space.epochs=2", "--concurrent=1"]
OVER_FOLDS = ["objective={metric: kfold_auroc_macro, folds: 3}", "asha={rungs: [0.5], eta: 2}"]
OVER_FOLDS += ["budget={trials: 3, reserve: 0.6}", "baselines=[plain.yaml]"]
BY_FOLDS = ["objective={metric: auroc_macro, tie_breakers: [kfold_auroc_macro], folds: 3}", "asha.mode=none"]
BY_FOLDS += ["budget={trials: 2, reserve: 0}", "space.dropout=0.1", "space.lr={float: [0.0010, 0.0011]}"]
BY_FOLDS += ["space.schedule=cosine", "space.loss=bce", "space.sampler=uniform"]


LONG = 900
"""Seconds that a search of a few seconds may take on a machine that others keep busy."""

ROUNDING = 1e-3
"""Of an AUROC: processes round differently, and of 17,000 pairs of films a few change places."""


def settings(keys):
    return [word for key in keys for word in ((key,) if key.startswith("--") else ("--set", key))]


def kill_when(search, process, count):
    """Kill a process as soon as the study holds that many epochs."""
    try:
        search.wait_for_epochs(count, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        end(process)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, few_films):
    """A search over folds that was killed in the second fold of its first trial, went on, and held its finals."""
    search = Search(tmp_path_factory.mktemp("folds"), few_films)
    (search.folder / "plain.yaml").write_text(RECIPE.replace("epochs: 4", "epochs: 2"))
    kill_when(search, search.start(*settings([*OVER_FOLDS, *SMALL])), 3)
    left = search.study.trial(0)
    code, out, err = finish(search.resume("--concurrent", "1", "--json"), LONG)
    assert code == 0, err
    return search, left, json.loads(out.strip().splitlines()[-1]), err


def folds_by_hand(search, trial):
    """The trainings of a trial as the core alone does them, one a fold."""
    study, space = search.study, load_space(search.study.folder / "space.yaml")
    data = TrainingData.open(development_cache(search), pd.read_parquet(study.folder / "films.parquet"), ("Pneumonia",))
    torch.set_num_threads(1)
    trainings = [Training(space.config(trial.flat, trial.seed), data.fold(index, 3)) for index in range(3)]
    return [(training, [epoch.validation.metrics for epoch in training.epochs()]) for training in trainings]


def test_a_trial_is_what_three_trainings_by_hand_reach_on_its_folds(searched):
    """Of the trial that was killed within a fold, and of the winner: each epoch, and whose films the last was of."""
    search, _, told, _ = searched
    for trial in (search.study.trial(0), search.study.trial(told["finals"]["winner"])):
        by_hand = folds_by_hand(search, trial)
        metrics = [metrics for _, epochs in by_hand for metrics in epochs]
        assert [epoch.metrics["auroc_macro"] for epoch in trial.epochs] == pytest.approx(
            [of["auroc_macro"] for of in metrics], abs=ROUNDING
        )
        ends = [epochs[-1]["auroc_macro"] for _, epochs in by_hand]
        assert trial.value == trial.epochs[-1].value == pytest.approx(fmean(ends), abs=ROUNDING)
        assert trial.epochs[2].value == pytest.approx(fmean([ends[0], metrics[2]["auroc_macro"]]), abs=ROUNDING)
        assert trial.epochs[-1].metrics["kfold_log_loss"] == pytest.approx(
            fmean(epochs[-1]["log_loss"] for _, epochs in by_hand), abs=ROUNDING
        )
        offsets = [float(training.normalise.offset) for training, _ in by_hand]  # the films' mean grey level
        kept = load_checkpoint(search.study.folder / trial.epochs[-1].checkpoint)
        assert float(kept.normalise.offset) == pytest.approx(offsets[-1], abs=1e-7)
        assert len(set(offsets)) == 3


def test_a_kill_within_a_later_fold_costs_at_most_the_epoch_in_flight(searched):
    search, left, _, _ = searched
    assert left.outcome is Outcome.OPEN
    assert 3 <= len(left.epochs) < left.schedule == 6
    study = search.study
    assert max(epochs_trained(study).values()) <= 2
    assert sum(times - 1 for times in epochs_trained(study).values()) <= 1
    assert all(trial.outcome is not Outcome.OPEN for trial in study.trials())


def test_the_baseline_has_all_folds_and_a_pruned_trial_only_the_first(searched):
    study = searched[0].study
    lengths = {trial.number: len(trial.epochs) for trial in study.trials() if trial.repeats is None}
    assert lengths[0] == 6
    assert set(lengths.values()) <= {1, 2, 6}
    pruned = [trial for trial in study.trials() if trial.outcome is Outcome.PRUNED]
    assert pruned
    assert all(len(trial.epochs) <= 2 for trial in pruned)


def test_the_finals_are_won_by_the_mean_over_the_folds_of_the_search_itself(searched):
    search, _, told, err = searched
    record, study = told["finals"], search.study
    finalists = [row["trial"] for row in record["finalists"]]
    assert len(finalists) >= 2, err
    assert record["winner"] == max(finalists, key=lambda number: study.trial(number).value)
    assert record["metric"] == "auroc_macro"
    assert record["tie"].startswith("The search improved kfold_auroc_macro (a mean over 3 folds), which chooses")
    for row in record["finalists"]:
        first, *others = row["trainings"]
        assert first["trial"] == row["trial"]
        assert others
        for one in others:
            trial = study.trial(one["trial"])
            assert (len(trial.epochs), trial.value) == (2, trial.epochs[-1].metrics["auroc_macro"])
            assert one["validation"] == pytest.approx(trial.value, abs=1e-6)
        assert first["validation"] == pytest.approx(
            study.trial(row["trial"]).epochs[-1].metrics["auroc_macro"], abs=1e-6
        )
        assert not any(trial.fold is not None for trial in study.trials())


def test_the_report_status_and_mlflow_tell_of_the_folds(searched):
    search, _, told, _ = searched
    page = " ".join((search.folder / told["report"]).read_text().split())
    assert "A trial of the search is trained 3 times from the start" in page
    assert told["finals"]["tie"] in page
    code, out, err = finish(search.python([sys.executable, "-m", "search.status", "quick", "--explain", "0"]))
    assert code == 0, err
    assert "6 of 6" in out
    client = MlflowClient(told["mlflow"])
    (run,) = client.search_runs([client.get_experiment_by_name("quick").experiment_id], "tags.`cxr.trial` = '0'")
    history = client.get_metric_history(run.info.run_id, "val_kfold_auroc_macro")
    assert [(point.step, point.value) for point in history] == [
        (epoch.epoch, epoch.value) for epoch in search.study.trial(0).epochs
    ]


def test_a_dry_run_shows_the_folds_and_their_rungs(search):
    code, out, err = search.run(*settings([*OVER_FOLDS[:2], *SMALL]), "--dry-run")
    assert code == 0, err
    assert "each trial is 3 trainings, one a fold" in out
    assert "3 x 2" in out


def test_too_few_patients_for_the_folds_are_told_before_anything_is_trained(search):
    code, _, err = search.run("--set", "objective={metric: kfold_auroc_macro, folds: 700}")
    assert code == 3, err
    assert "cannot be divided into 699 parts; take fewer folds (objective.folds)" in err
    assert not (search.folder / "studies" / "quick").exists()


def test_a_tie_is_broken_by_the_other_folds_though_the_finals_were_killed_within_them(search):
    code, _, err = finish(search.start(*settings([*BY_FOLDS, *SMALL])), LONG)
    assert code == 0, err
    finalize = [sys.executable, "-m", "search.finalize", "quick", "--top", "2", "--seeds", "2", "--no-model"]
    finalize += ["--concurrent", "1", "--json"]
    kill_when(search, search.python(finalize), 2 * 2 + 2 * 2 + 3)
    assert "test_openings" not in search.study.facts
    begun = len(search.study.trials())
    code, out, err = finish(search.python(finalize), LONG)
    assert code == 0, err
    record, study = json.loads(out), search.study
    left = 2 + 2 + 4 - begun + 1  # with the one that was killed
    assert f"{left} trainings to go, {left} of them on other folds, to break a tie" in err
    others = [trial for trial in study.trials() if trial.fold is not None]
    assert sorted((trial.repeats, trial.fold) for trial in others) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {trial.outcome for trial in others} == {Outcome.FOLD}
    assert sum(times - 1 for times in epochs_trained(study).values()) <= 1

    # Nobody evaluates them, and they are part of nothing.
    numbers = {trial.number for trial in others}
    (opening,) = study.facts["test_openings"]
    assert not numbers & set(opening["trials"])
    assert not numbers & {member["trial"] for member in record["ensemble"]["members"]}
    assert [len(row["trainings"]) for row in record["finalists"]] == [2, 2]
    assert not [path for number in numbers for path in study.trial_folder(number).glob("epoch-*.pt")]

    # The mean over the folds, of which the study's own split has two seeds.
    of = {trial.number: trial.epochs[-1].metrics["auroc_macro"] for trial in study.trials()}
    means = {
        number: fmean(
            [
                *(of[t.number] for t in others if t.repeats == number),
                fmean(of[t.number] for t in study.trials() if t.fold is None and number in (t.number, t.repeats)),
            ]
        )
        for number in (0, 1)
    }
    winner = max(means, key=means.get)
    assert record["winner"] == winner
    assert "the tie-breaker kfold_auroc_macro (a mean over 3 folds) decides: " in record["tie"]
    assert f"{means[winner]:.4f} of trial {winner}, against {means[1 - winner]:.4f}" in record["tie"]

    trials = len(study.trials())
    code, again, err = finish(search.python(finalize), LONG)
    assert code == 0, err
    assert json.loads(again) == record
    assert len(search.study.trials()) == trials
