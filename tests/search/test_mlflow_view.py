"""MLflow as a view of the study, on a real MLflow database."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.mlflow_notes import study_note, trial_note
from search.mlflow_view import MlflowView, default_uri
from search.tally import Tally
from search.trial import Decision, Outcome, Step
from tests.search.conftest import drawn, epoch_record


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One database for all tests: making its tables takes seconds."""
    return default_uri(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def study(make_space, make_study, database):
    study = make_study(make_space())
    study.note("mlflow", database)
    return study


@pytest.fixture
def client(database):
    return MlflowClient(database)


def runs_of(client, view):
    found = client.search_runs([view.experiment], f"tags.`cxr.study` = '{view._identity}'")
    children = [run for run in found if "cxr.trial" in run.data.tags]
    return [run for run in found if run not in children], sorted(
        children, key=lambda run: int(run.data.tags["cxr.trial"])
    )


def train(study, space, epochs, outcome=None, reason=""):
    number = drawn(study, space).number
    for epoch in range(1, epochs + 1):
        study.record(number, epoch_record(epoch, 0.5 + epoch / 20))
    if outcome:
        study.finish(number, outcome, reason)
    return number


def test_a_study_is_one_parent_run_with_a_child_run_for_each_trial(study, make_space, client):
    for _ in range(3):
        train(study, make_space(), 2)
    view = MlflowView(study)
    view.sync()
    (parent,), children = runs_of(client, view)
    assert [run.data.tags["mlflow.parentRunId"] for run in children] == [parent.info.run_id] * 3
    assert parent.info.run_name == study.name


def test_a_child_run_has_flat_parameters_and_metrics_by_epoch(study, make_space, client):
    number = train(study, make_space(), 3)
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    flat = study.trial(number).flat
    assert {key: child.data.params[key] for key in flat} == {key: str(value) for key, value in flat.items()}
    history = client.get_metric_history(child.info.run_id, "val_auroc_macro")
    assert [(point.step, point.value) for point in history] == [(1, 0.55), (2, 0.6), (3, 0.65)]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Outcome.FULL, "FINISHED"), (Outcome.PRUNED, "KILLED"), (Outcome.DIVERGED, "FAILED"), (None, "RUNNING")],
)
def test_a_child_run_has_the_state_of_its_trial_and_the_reason(study, make_space, client, outcome, status):
    train(study, make_space(), 1, outcome, "a reason" if outcome else "")
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert child.info.status == status
    assert child.data.tags["cxr.state"] == (outcome or Outcome.OPEN).value
    assert child.data.tags.get("cxr.reason") == ("a reason" if outcome else None)


def test_nothing_is_logged_twice_however_often_a_view_is_made_anew(study, make_space, client):
    space = make_space()
    first = train(study, space, 2)
    assert MlflowView(study).sync() == 2
    assert MlflowView(study).sync() == 0
    study.record(first, epoch_record(3, 0.65))
    train(study, space, 1)
    view = MlflowView(study)
    assert view.sync() == 2
    parents, children = runs_of(client, view)
    assert (len(parents), len(children)) == (1, 2)
    assert [point.step for point in client.get_metric_history(children[0].info.run_id, "train_loss")] == [1, 2, 3]


def test_an_epoch_whose_acknowledgement_was_lost_is_not_logged_again(study, make_space, client):
    """The request arrived, the answer did not: the view is given up, and a new one finds the epoch there."""
    train(study, make_space(), 2)
    view = MlflowView(study)
    log_batch = view.client.log_batch

    def lose_the_answer(run_id, metrics=(), **rest):
        log_batch(run_id, metrics=metrics, **rest)
        if metrics:
            raise ConnectionError

    view.client.log_batch = lose_the_answer
    with pytest.raises(ConnectionError):
        view.sync()
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert [point.step for point in client.get_metric_history(child.info.run_id, "system/epoch")] == [1, 2]


def test_a_finished_study_has_its_space_report_and_winner_as_artifacts(study, make_space, client):
    number = train(study, make_space(), 2, Outcome.FULL)
    checkpoint = study.folder / study.trial(number).epochs[-1].checkpoint
    checkpoint.write_bytes(b"weights")
    (study.folder / "report.html").write_text("<p>report</p>")
    (study.folder / "data.html").write_text("<p>films</p>")
    study.note("ended", {"at": time.time(), "why": "budget"})
    view = MlflowView(study)
    view.sync()
    view.finish()
    (parent,), _ = runs_of(client, view)
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"space.yaml", "report.html", "data.html", "winner"} <= names
    assert [item.path for item in client.list_artifacts(parent.info.run_id, "winner")] == [f"winner/{checkpoint.name}"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["cxr.best_trial"] == str(number)


def test_a_resumed_study_reopens_its_run(study, make_space, client):
    train(study, make_space(), 1, Outcome.FULL)
    view = MlflowView(study)
    view.sync()
    view.finish()
    view = MlflowView(study)
    view.sync()
    (parent,), _ = runs_of(client, view)
    assert parent.info.status == "RUNNING"


def test_the_default_database_is_an_absolute_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = default_uri(tmp_path.relative_to(tmp_path))
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"


def artifact(client, run, name, folder):
    return json.loads(Path(client.download_artifacts(run.info.run_id, name, str(folder))).read_text())


def test_the_areas_of_all_labels_are_one_table_of_an_ended_trial(study, make_space, client, database, monkeypatch):
    number = drawn(study, make_space()).number
    for epoch in (1, 2):
        areas = {"Pneumonia": 0.7 + epoch / 10, "Hernia": None}
        study.record(number, replace(epoch_record(epoch, 0.5), auroc=areas))
    study.finish(number, Outcome.FULL)
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    table = MlflowClient().load_table(view.experiment, "per_label.json", [child.info.run_id])
    assert list(table.columns) == ["epoch", "Pneumonia", "Hernia"]
    assert table["Pneumonia"].tolist() == pytest.approx([0.8, 0.9])
    assert table["Hernia"].isna().all()
    assert not [key for key in child.data.metrics if "Pneumonia" in key or "Hernia" in key]


def test_an_open_trial_has_its_table_when_the_search_ends_and_waits_to_go_on(study, make_space, client, tmp_path):
    number = train(study, make_space(), 2)
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert client.list_artifacts(child.info.run_id) == []
    view.finish()
    _, (child,) = runs_of(client, view)
    assert child.info.status == "SCHEDULED"
    assert [row[0] for row in artifact(client, child, "per_label.json", tmp_path)["data"]] == [1, 2]
    study.record(number, epoch_record(3, 0.65))  # resumed
    study.finish(number, Outcome.FULL)
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert child.info.status == "FINISHED"
    assert [row[0] for row in artifact(client, child, "per_label.json", tmp_path)["data"]] == [1, 2, 3]


def test_the_studys_run_shows_the_best_so_far_by_ended_trials(study, make_space, client):
    space = make_space()
    view = MlflowView(study)
    values = [0.6, 0.9, 0.7]
    for value in values:
        number = drawn(study, space).number
        study.record(number, epoch_record(1, value, seconds=1800.0))
        study.finish(number, Outcome.FULL)
        view.sync()
    train(study, space, 1, Outcome.DIVERGED, "loss is nan")
    view = MlflowView(study)  # another writer goes on
    view.sync()
    (parent,), _ = runs_of(client, view)
    history = client.get_metric_history(parent.info.run_id, "search/best_auroc_macro")
    assert [(point.step, point.value) for point in history] == [(1, 0.6), (2, 0.9), (3, 0.9), (4, 0.9)]
    hours = client.get_metric_history(parent.info.run_id, "search/cpu_hours")
    assert [point.value for point in hours] == pytest.approx([0.5, 1.0, 1.5, 1.5 + 1 / 3600])
    assert (parent.data.metrics["search/trials_full"], parent.data.metrics["search/trials_diverged"]) == (3, 1)


def test_the_hours_of_a_search_on_gpus_are_gpu_hours(study, make_space, client):
    number = drawn(study, make_space()).number
    study.record(number, replace(epoch_record(1, 0.6, seconds=3600.0), peak_memory=2**30))
    study.finish(number, Outcome.FULL)
    view = MlflowView(study)
    view.sync()
    (parent,), (child,) = runs_of(client, view)
    assert parent.data.metrics["search/gpu_hours"] == 1.0
    assert child.data.metrics["system/peak_memory_gib"] == 1.0


def test_a_look_that_finds_nothing_new_asks_mlflow_nothing(study, make_space):
    train(study, make_space(), 2, Outcome.FULL)
    train(study, make_space(), 2)
    view = MlflowView(study)
    view.sync()
    view.client = None  # any request would raise
    assert view.sync() == 0


def test_a_catch_up_of_one_trial_is_one_request_of_metrics_for_each_thousand(study, make_space, client):
    train(study, make_space(), 200)
    view = MlflowView(study)
    sizes = []
    log_batch = view.client.log_batch

    def count(run_id, metrics=(), **rest):
        sizes.append(len(metrics))
        log_batch(run_id, metrics=metrics, **rest)

    view.client.log_batch = count
    view.sync()
    _, (child,) = runs_of(client, view)
    points = sum(len(client.get_metric_history(child.info.run_id, key)) for key in child.data.metrics)
    assert sum(sizes) == points == 200 * len(child.data.metrics)
    assert max(sizes) == 1000
    assert len([size for size in sizes if size]) == math.ceil(points / 1000)


def test_parameters_too_many_or_too_long_for_a_request_are_split_and_cut(study, make_space, client):
    flat = {f"key_{index}": index for index in range(250)} | {"long": "x" * 9000, "epochs": 10}
    study.add(flat, seed=0, why="drawn")
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert {key: child.data.params[key] for key in flat if key != "long"} == {
        key: str(value) for key, value in flat.items() if key != "long"
    }
    assert len(child.data.params["long"]) == 500
    assert child.data.params["long"].endswith("…")


def test_a_run_whose_writer_was_killed_before_its_parameters_has_them_from_the_next(study, make_space, client):
    number = train(study, make_space(), 1)
    view = MlflowView(study)
    view._create_child(study.trial(number))
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert child.data.params.keys() == {*study.trial(number).flat, "seed"}


def test_a_run_that_a_slow_server_made_twice_is_one_again(study, make_space, client):
    number = train(study, make_space(), 2)
    view = MlflowView(study)
    view._create_child(study.trial(number))
    view._create_child(study.trial(number))
    view._create_parent()
    view = MlflowView(study)
    view.sync()
    (parent,), (child,) = runs_of(client, view)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert len(client.get_metric_history(child.info.run_id, "train_loss")) == 2


def test_an_infinite_value_is_left_out_and_an_undefined_one_too(study, make_space, client):
    number = drawn(study, make_space()).number
    metrics = {"auroc_macro": 0.5, "log_loss": math.inf, "f1": None}
    study.record(number, replace(epoch_record(1, 0.5), metrics=metrics))
    view = MlflowView(study)
    view.sync()
    _, (child,) = runs_of(client, view)
    assert {key for key in child.data.metrics if key.startswith("val_")} == {"val_auroc_macro"}


def test_a_deleted_experiment_is_restored_for_a_study_that_writes_there(study, make_space, client):
    train(study, make_space(), 1)
    view = MlflowView(study)
    client.delete_experiment(view.experiment)
    view = MlflowView(study)
    view.sync()
    assert client.get_experiment(view.experiment).lifecycle_stage == "active"
    assert len(runs_of(client, view)[1]) == 1


@pytest.mark.parametrize(
    ("ended", "status"),
    [(None, "KILLED"), ("SIGTERM", "KILLED"), ("mistake", "FAILED"), ("budget", "FINISHED"), ("time", "FINISHED")],
)
def test_the_studys_run_has_the_status_of_its_search(study, make_space, client, ended, status):
    train(study, make_space(), 1, Outcome.FULL)
    if ended:
        study.note("ended", {"at": time.time(), "why": ended})
    view = MlflowView(study)
    view.sync()
    view.finish()
    (parent,), _ = runs_of(client, view)
    assert parent.info.status == status


def test_a_search_killed_after_it_had_been_resumed_is_not_finished(study, make_space, client):
    study.note("ended", {"at": time.time() - 60, "why": "budget"})
    train(study, make_space(), 1, Outcome.FULL)
    view = MlflowView(study)
    view.sync()
    view.finish()
    (parent,), _ = runs_of(client, view)
    assert parent.info.status == "KILLED"


# Descriptions


def test_a_studys_description_says_how_far_it_is_and_how_to_go_on(study, make_space):
    train(study, make_space(), 2, Outcome.FULL)
    train(study, make_space(), 1)
    study.note("forecast", 1_800_000_000.0)
    tally = Tally(maximize=True)
    tally.take(study.trials())
    note = study_note(study.name, study.folder, study.facts, tally)
    assert "best so far: trial 000" in note
    assert "**0.6000**" in note
    assert "trials: 1 full, 1 open" in note
    assert "expected end: 2027-01-15 08:00 UTC" in note
    assert "data set: `phantom`" in note
    for command in (f"run --study {study.folder} --resume", f"status {study.folder}\n", "--explain TRIAL"):
        assert f"python -m search.{command}" in note or command in note


def test_a_study_without_a_forecast_promises_no_end(study):
    assert "expected end" not in study_note(study.name, study.folder, study.facts, Tally(maximize=True))


def test_a_trials_description_lists_its_decisions_and_the_command_that_explains_it(study, make_space):
    trial = study.trial(train(study, make_space(), 1, Outcome.PRUNED, "waited at 10 %"))
    decision = Decision(1_800_000_000.0, Step.WAITS, "3rd of 9 | top 3 go on", {"value": 0.55})
    object.__setattr__(trial, "decisions", (decision,))
    note = trial_note(trial, study.folder)
    assert "**pruned**, waited at 10 %" in note
    assert r'| 2027-01-15 08:00 UTC | waits | 3rd of 9 \| top 3 go on | {"value": 0.55} |' in note
    assert f"python -m search.status {study.folder} --explain {trial.number}" in note


def test_a_long_history_keeps_its_last_decisions_and_the_command(study, make_space):
    trial = study.trial(train(study, make_space(), 1))
    decisions = tuple(Decision(at, Step.WAITS, f"reason {at}: " + "because " * 20) for at in range(100))
    object.__setattr__(trial, "decisions", decisions)
    note = trial_note(trial, study.folder)
    assert len(note) <= 5000
    assert "reason 99:" in note
    assert "reason 0:" not in note
    assert f"--explain {trial.number}" in note
