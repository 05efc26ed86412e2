"""From a search to its finals: repeats through Ray, killed and stopped on the way, and one opening of the split."""

import json
import shutil
import signal
import sys
from html import escape

import pandas as pd
import psutil
import pytest

from cxr_core.checkpoint import load_checkpoint
from cxr_core.data import DataName
from search.overview import Overview
from search.trial import Outcome
from tests.end_to_end.conftest import Search, finish
from tests.end_to_end.test_search import assert_mlflow_agrees, epochs_trained
from tests.search.conftest import RECIPE

THREE = ["budget.trials=3", "asha.mode=none", "space.model=small_cnn", "space.epochs=4", "baselines=[plain.yaml]"]


class Finals(Search):
    """A search of three trials and a baseline, and its finals."""

    def finalize(self, *options):
        return self.python([sys.executable, "-m", "search.finalize", "quick", "--top", "2", *options])

    def wait_for_a_new_epoch(self, process):
        """Until a training of the finals has done an epoch more than there were."""
        self.wait_for_epochs(1 + sum(len(trial.epochs) for trial in self.study.trials()), process)

    @property
    def repeats(self):
        return [trial for trial in self.study.trials() if trial.repeats is not None]


def end(process):
    """End a process that a test started, and what it started."""
    family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    for one in family:
        one.kill()
    process.communicate()


@pytest.fixture(scope="module")
def searched(tmp_path_factory, few_films):
    finals = Finals(tmp_path_factory.mktemp("finals"), few_films)
    (finals.folder / "plain.yaml").write_text(RECIPE)
    code, _, err = finals.run(*(word for key in THREE for word in ("--set", key)))
    assert code == 0, err
    finals.pristine = finals.folder / "pristine"
    shutil.copytree(finals.folder / "studies", finals.pristine)
    return finals


@pytest.fixture
def copied(searched, tmp_path):
    """The searched study before its finals, in a folder of its own."""
    copy = Finals(tmp_path, searched.films)
    shutil.copytree(searched.pristine, tmp_path / "studies")
    copy.study.note("mlflow", f"sqlite:///{tmp_path}/studies/mlflow.db")
    return copy


@pytest.fixture(scope="module")
def finalized(searched):
    """Finals of which the first run was killed in the middle: the state then, and what the second run said."""
    process = searched.finalize("--seeds", "2", "--json")
    try:
        searched.wait_for_a_new_epoch(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        facts = searched.study.facts
        open_trials = [trial for trial in searched.study.trials() if trial.outcome is Outcome.OPEN]
        process = searched.finalize("--seeds", "2", "--json")
        code, out, err = finish(process)
    finally:
        end(process)
    assert code == 0, err
    return facts, open_trials, json.loads(out)


def test_a_search_leaves_the_test_split_closed(searched):
    assert "test_openings" not in searched.study.facts
    assert not (searched.study.folder / "test").exists()
    assert "The test split has not been opened" in (searched.study.folder / "report.html").read_text()


def test_a_kill_before_all_repeats_are_done_leaves_the_test_split_closed(finalized):
    facts, open_trials, _ = finalized
    assert "test_openings" not in facts
    assert open_trials


def test_the_same_command_goes_on_and_repeats_at_most_the_epochs_in_flight(searched, finalized):
    study = searched.study
    assert all(trial.outcome is Outcome.FULL for trial in study.trials())
    assert len(searched.repeats) == len(finalized[2]["finalists"])  # two seeds each
    again = sum(times - 1 for times in epochs_trained(study).values())
    assert again <= 2  # one a slot


def test_each_finalist_has_been_trained_with_as_many_seeds_and_is_judged_by_its_own_values(searched, finalized):
    record, study = finalized[2], searched.study
    best = sorted(study.eligible(), key=lambda trial: -trial.value)[:2]
    baselines = [trial for trial in study.trials() if trial.baseline]
    assert {row["trial"] for row in record["finalists"]} == {trial.number for trial in [*best, *baselines]}
    for row in record["finalists"]:
        assert len(row["trainings"]) == 2
        assert len({training["seed"] for training in row["trainings"]}) == 2
        for training in row["trainings"]:
            assert training["validation"] == pytest.approx(study.trial(training["trial"]).value, abs=1e-6)
    means = [row["validation"]["mean"] for row in record["finalists"]]
    assert means == sorted(means, reverse=True)
    assert record["winner"] == record["finalists"][0]["trial"]
    assert record["films"]["test"]["films"] == 600


def test_the_training_that_is_handed_over_is_the_winners_best_on_validation(finalized):
    record = finalized[2]
    (winner,) = [row for row in record["finalists"] if row["trial"] == record["winner"]]
    best = max(winner["trainings"], key=lambda training: training["validation"])
    assert record["delivered"] == best["trial"]


def test_the_test_split_was_opened_once_after_every_repeat(searched, finalized):
    (opening,) = searched.study.facts["test_openings"]
    trained = {trial["trial"] for row in finalized[2]["finalists"] for trial in row["trainings"]}
    members = {member["trial"] for member in finalized[2]["ensemble"]["members"]}
    assert set(opening["trials"]) == trained | members
    assert opening["at"] > max(trial.epochs[-1].at for trial in searched.repeats)


def test_the_second_run_shows_the_same_and_opens_nothing(searched, finalized):
    code, out, err = finish(searched.finalize("--seeds", "2", "--json"))
    assert code == 0, err
    assert json.loads(out) == finalized[2]
    assert len(searched.study.facts["test_openings"]) == 1


def test_the_report_has_the_sentence_and_the_number_of_openings(searched, finalized):
    page = (searched.folder / "studies" / "quick" / "report.html").read_text()
    assert finalized[2]["sentence"] in page
    assert "The test split was opened once." in page


def test_the_search_has_ended_as_it_had_before_its_finals(searched, finalized):
    assert Overview(searched.study).state.word == "ended"


def test_mlflow_has_the_repeats(searched, finalized):
    assert_mlflow_agrees(searched, searched.study.facts["mlflow"])


def test_an_ensemble_is_chosen_on_validation_and_judged_in_the_same_opening(searched, finalized):
    ensemble, study = finalized[2]["ensemble"], searched.study
    (opening,) = study.facts["test_openings"]
    assert [[number, count] for number, count in ensemble["basis"]["members"]] == opening["ensemble"]
    values = [member["validation"] for member in ensemble["members"]]
    assert values == pytest.approx([study.trial(member["trial"]).value for member in ensemble["members"]], abs=1e-6)
    assert ensemble["validation"]["value"] >= max(trial.value for trial in study.trials()) - 1e-6
    gain = ensemble["gain"]["test"]["delivered"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    page = (searched.folder / "studies" / "quick" / "report.html").read_text()
    assert escape(ensemble["sentences"][0], quote=False) in page


def test_a_refit_learns_from_the_validation_films_and_nothing_else_changes(searched, finalized):
    """By what the normalisation took from its films: their mean grey level."""
    record = finalized[2]
    for _ in range(2):
        code, out, err = finish(searched.finalize("--seeds", "2", "--refit", "--json"))
        assert code == 0, err
    study, told = searched.study, json.loads(out)
    (refit,) = [trial for trial in study.trials() if trial.refit is not None]
    assert refit.outcome is Outcome.REFIT
    assert refit.flat == study.trial(record["winner"]).flat
    saved, delivered = (
        load_checkpoint(study.folder / study.trial(number).epochs[-1].checkpoint)
        for number in (refit.number, record["delivered"])
    )
    assert saved.thresholds == delivered.thresholds
    films, source = pd.read_parquet(study.folder / "films.parquet"), DataName.parse(study.facts["data"]).open()
    levels = films["image"].map(lambda image: source.read(image).mean() / 255)
    assert float(delivered.normalise.offset) == pytest.approx(levels[films["split"] == "train"].mean(), abs=1e-6)
    assert float(saved.normalise.offset) == pytest.approx(levels.mean(), abs=1e-6)
    assert saved.normalise.offset != delivered.normalise.offset
    assert f"Trial {refit.number} is the winner" in told.pop("refit")
    assert told == {key: record[key] for key in told}


def test_sigterm_drains_the_finals_and_the_same_command_goes_on_where_the_films_lie_now(copied, tmp_path):
    process = copied.finalize("--seeds", "2", "--no-model")
    try:
        copied.wait_for_a_new_epoch(process)
        process.send_signal(signal.SIGTERM)
        code, _, err = finish(process, 120)
        assert code == 5, err
        assert "stopped by SIGTERM. Nothing is lost; the same command goes on" in err
        assert "test_openings" not in copied.study.facts
        moved = f"medmnist:{shutil.copy(copied.films, tmp_path / 'moved.npz')}"
        copied.study.note("data", f"medmnist:{tmp_path}/gone.npz")
        process = copied.finalize("--seeds", "2", "--no-model", "--data", moved)
        code, out, err = finish(process)
    finally:
        end(process)
    assert code == 0, err
    assert copied.study.facts["data"] == moved
    assert "The test split was opened once." in out
    assert max(epochs_trained(copied.study).values()) == 1  # drained: not one epoch twice


def test_a_search_holds_its_finals_from_the_reserve_and_a_longer_search_does_not_open_the_split_again(search, result):
    flat = [word for key in (*THREE[1:4], "baselines=[]", "budget.reserve=0.7") for word in ("--set", key)]
    code, out, err = search.run("--trials", "3", *flat, "--json")
    assert code == 0, err
    finals = result(out)["finals"]
    assert [len(row["trainings"]) for row in finals["finalists"]] == [3, 3, 3]
    assert len(search.study.facts["test_openings"]) == 1
    code, out, err = finish(search.resume("--trials", "4"))
    assert code == 0, err
    assert "to open it again: python -m search.finalize with --reopen-test REASON" in err
    assert "next     python -m search.finalize" not in out
    assert sum(trial.searched for trial in search.study.trials()) == 4
    assert len(search.study.facts["test_openings"]) == 1
