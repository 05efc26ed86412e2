"""The finals in MLflow: on the study's run and in the registry, once, and rebuilt from the study."""

import json
import shutil

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from cxr_core.predict import Predictor
from search.hand_over.folder import hand_over
from search.mlflow_finals import ALIAS, model_name
from search.mlflow_sync import synchronise
from search.mlflow_view import MlflowView
from tests.cxr_core.predicted_films import content


def record_of(finals):
    return json.loads((finals.folder / "finalists.json").read_text())


def parent_of(client, finals):
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    (run,) = [run for run in client.search_runs([experiment.experiment_id]) if "cxr.trial" not in run.data.tags]
    return run


def told(uri, finals):
    """All that an MLflow has of the finals, but for ids and places."""
    client = MlflowClient(uri)
    run = parent_of(client, finals)
    points = {
        key: [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
        if key.startswith("finals/")
    }
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("cxr.")}
    versions = [(v.version, v.tags, v.description) for v in client.search_model_versions("name = 'sealed'")]
    versions += [client.get_registered_model("sealed").aliases] if versions else []
    return points, tags, versions, files(client, run.info.run_id)


def files(client, run, folder=None):
    found = []
    for item in client.list_artifacts(run, folder):
        if item.path.endswith(("__pycache__", "registered_model_meta")):
            continue  # MLflow leaves these where a test loads a model
        found += files(client, run, item.path) if item.is_dir else [item.path]
    return sorted(found)


def test_the_studys_run_has_the_winner_its_interval_and_the_openings(finals):
    client = MlflowClient(finals.mlflow)
    run, record = parent_of(client, finals), record_of(finals)
    test = next(row for row in record["finalists"] if row["trial"] == record["winner"])["test"]
    metrics = run.data.metrics
    names = ("finals/test_auroc_macro", "finals/test_auroc_macro_low", "finals/test_auroc_macro_high")
    assert [metrics[name] for name in names] == pytest.approx([test["mean"], test["low"], test["high"]])
    assert metrics["finals/test_openings"] == 1
    assert metrics["finals/gap"] == pytest.approx(record["gap"]["value"])
    tags = run.data.tags
    assert (tags["cxr.winner"], tags["cxr.delivered"]) == (str(record["winner"]), str(record["delivered"]))
    assert tags["cxr.test_openings"].startswith("1 (20")
    assert tags["cxr.test_openings"].endswith("UTC: to evaluate the finalists)")
    assert {"finalists.json", "report.html", "model/model_card.md"} <= set(files(client, run.info.run_id))


def test_the_delivered_training_is_a_registered_version_with_its_origin_and_interval(finals):
    client = MlflowClient(finals.mlflow)
    (version,) = client.search_model_versions("name = 'sealed'")
    record, study = record_of(finals), finals.study
    test = next(row for row in record["finalists"] if row["trial"] == record["winner"])["test"]
    tags = version.tags
    assert tags["cxr.study"].startswith("sealed@")
    assert tags["cxr.trial"] == str(record["delivered"])
    assert (tags["cxr.split"], tags["cxr.metric"]) == (study.facts["split_hash"], "auroc_macro")
    bounds = [float(tags[f"cxr.test_{name}"]) for name in ("mean", "low", "high")]
    assert bounds == pytest.approx([test["mean"], test["low"], test["high"]], abs=1e-6)
    assert version.run_id == parent_of(client, finals).info.run_id
    assert client.get_model_version_by_alias("sealed", ALIAS).version == version.version


def test_the_registered_model_answers_as_the_network_does(finals, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", finals.mlflow)
    served = mlflow.pyfunc.load_model(f"models:/sealed@{ALIAS}")
    (tmp_path / "film.png").write_bytes(content("PNG"))
    (alone,) = Predictor.load(finals.model / "model.pt")([str(tmp_path / "film.png")])
    (row,) = served.predict(pd.DataFrame({"image": [content("PNG")]}))
    assert row["findings"]["Pneumonia"]["probability"] == pytest.approx(
        alone.findings["Pneumonia"].probability, rel=1e-5
    )


def test_what_is_synchronised_again_is_there_once(finals):
    before = told(finals.mlflow, finals)
    assert synchronise(finals.folder) == 0
    finals.again()
    assert told(finals.mlflow, finals) == before


def test_an_empty_mlflow_is_given_the_same(finals, tmp_path):
    empty = f"sqlite:///{tmp_path}/other.db"
    assert synchronise(finals.folder, empty) == 0
    assert told(empty, finals) == told(finals.mlflow, finals)


def test_an_interruption_anywhere_registers_nothing_twice(copied):
    """The request arrives and its answer is lost, at each request of a first writing in turn."""
    view = MlflowView(copied.study)
    view.sync()
    registry = ("create_registered_model", "create_model_version", "set_registered_model_alias")
    for name in ("log_artifact", "log_artifacts", *registry, "log_batch"):
        view = MlflowView(copied.study)
        real = getattr(view.client, name)

        def lose(*args, _real=real, **kwargs):
            _real(*args, **kwargs)
            raise ConnectionError

        setattr(view.client, name, lose)
        with pytest.raises(ConnectionError):
            view.finish()
    view = MlflowView(copied.study)
    view.sync()
    view.finish()
    points, _, versions, _ = told(copied.mlflow, copied)
    (version, _, _), aliases = versions
    assert aliases == {ALIAS: version}
    assert {len(of) for of in points.values()} == {1}


def test_a_later_winner_is_another_version_and_takes_the_alias(copied):
    assert synchronise(copied.folder) == 0
    record = record_of(copied)
    first, second = record["delivered"], 1 - record["delivered"]
    record["delivered"] = second
    (copied.folder / "finalists.json").write_text(json.dumps(record))
    hand_over(copied.study, record)
    assert synchronise(copied.folder) == 0
    client = MlflowClient(copied.mlflow)
    versions = {v.tags["cxr.trial"]: v for v in client.search_model_versions("name = 'sealed'")}
    assert set(versions) == {str(first), str(second)}
    assert client.get_model_version_by_alias("sealed", ALIAS).version == versions[str(second)].version
    record["delivered"] = first  # and back: no third version
    (copied.folder / "finalists.json").write_text(json.dumps(record))
    hand_over(copied.study, record)
    assert synchronise(copied.folder) == 0
    assert len(client.search_model_versions("name = 'sealed'")) == 2
    assert client.get_model_version_by_alias("sealed", ALIAS).version == versions[str(first)].version


def test_finals_whose_mlflow_is_dead_succeed_and_name_the_command_that_makes_up_for_it(copied, capfd, caplog):
    copied.study.note("mlflow", "http://127.0.0.1:9")
    copied.again()
    assert f"python -m search.mlflow_sync {copied.folder}" in caplog.text
    assert (
        "handed_over" not in {**copied.study.facts}
        or copied.study.facts["handed_over"]["mlflow"] != "http://127.0.0.1:9"
    )
    assert (copied.model / "model_card.md").exists()


def test_finals_without_a_model_are_told_all_the_same(copied):
    shutil.rmtree(copied.model)
    assert synchronise(copied.folder) == 0
    points, tags, versions, artifacts = told(copied.mlflow, copied)
    assert "finals/test_auroc_macro" in points
    assert tags["cxr.winner"] == str(record_of(copied)["winner"])
    assert versions == []
    assert "finalists.json" in artifacts


@pytest.mark.parametrize(("study", "name"), [("first", "first"), ("a/b:c", "a_b_c"), ("it's", "it_s")])
def test_a_models_name_is_the_studys_as_mlflow_takes_it(study, name):
    assert model_name(study) == name
