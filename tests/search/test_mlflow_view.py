"""MLflow as a view of the study, on a real MLflow database."""

import time

import pytest
from mlflow import MlflowClient

from search.mlflow_view import MlflowView, default_uri
from search.rungs import Rungs
from search.study import Outcome
from tests.search.conftest import epoch_record

RUNGS = Rungs((0.1, 0.5), 3, maximize=True)


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
    number = study.propose(space, 0, RUNGS).number
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
