"""The folder `model` of a study: whole, the delivered training's, and made once."""

import json
import shutil
import time

import numpy as np
import onnxruntime
import pytest
import torch

from cxr_core.data import Films
from cxr_core.predict import Predictor
from cxr_core.runtimes import ExportError
from search.evidence.record import keep_evidence
from search.hand_over import folder as hand_over_folder
from search.hand_over.folder import hand_over, handed_over
from search.report import write_report
from tests.search.small_study import train


def record_of(finals):
    return json.loads((finals.folder / "finalists.json").read_text())


def state(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_checkpoint_is_that_of_the_training_that_the_finals_deliver(finals):
    delivered = finals.study.trial(record_of(finals)["delivered"])
    checkpoint = finals.folder / delivered.epochs[-1].checkpoint
    assert (finals.model / "model.pt").read_bytes() == checkpoint.read_bytes()


def test_the_agreement_that_is_stated_is_that_of_the_validation_films(finals):
    stated = handed_over(finals.folder).known["agreement"]
    prepared = finals.prepared
    films = Films.open(prepared.cache, prepared.films[prepared.films["split"] == "val"], prepared.task.labels)
    pixels = films.pixels(np.arange(len(films)))
    session = onnxruntime.InferenceSession(str(finals.model / "model.onnx"))
    answered = session.run(None, {"films": pixels[:, None]})[0]
    differences = np.abs(answered - Predictor.load(finals.model / "model.pt").probabilities(pixels))
    assert stated["file"] == "model.onnx"
    assert stated["films"] == 64
    assert stated["largest"] <= stated["tolerance"] == 1e-4
    assert differences.max() <= max(2 * stated["largest"], 1e-6)


def test_finals_that_are_told_again_change_nothing_and_are_quick(finals):
    before, started = state(finals.model), time.process_time()
    finals.again()
    assert state(finals.model) == before
    # Of CPU time, as the machine may be busy: making the model takes many times as long.
    assert time.process_time() - started < 8


def test_the_terminal_says_where_it_is_and_how_to_serve_it(finals, capsys):
    finals.again()
    out = capsys.readouterr().out
    assert f"model    {finals.model}: trial {record_of(finals)['delivered']}" in out
    assert f"mlflow models serve -m {finals.model}/mlflow --env-manager local" in out
    assert "differs by" in out


def test_without_a_model_nothing_is_made_or_told(finals, copied, capsys):
    shutil.rmtree(copied.model)
    copied.again("--no-model", "--json")
    assert json.loads(capsys.readouterr().out)["model"] is None
    assert not copied.model.exists()


def test_the_report_leads_to_the_model_card(finals):
    page = (finals.folder / "report.html").read_text()
    assert '<a href="model/model_card.md">model card</a>' in page
    assert "mlflow models serve -m studies/sealed/model/mlflow" in page
    assert (finals.folder / "model" / "model_card.md").exists()


def test_a_study_without_finals_has_no_such_section(copied):
    shutil.rmtree(copied.model)
    assert 'id="model"' not in write_report(copied.study).read_text()


def test_new_evidence_changes_the_card_and_nothing_else(copied):
    before = state(copied.model)
    undefined = {"mean": {"value": None, "low": None, "high": None}}
    group = {
        "kind": "sex",
        "name": "female",
        "films": 1234,
        "patients": 56,
        "auroc": {"mean": {"value": 0.8125, "low": 0.75, "high": 0.875}},
        "sensitivity": undefined,
        "specificity": undefined,
    }
    keep_evidence(copied.folder, record_of(copied), {"groups": {"groups": [group]}})
    hand_over(copied.study, record_of(copied))
    after = state(copied.model)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"model_card.md", "mlflow/model_card.md", "hand_over.json"}
    card = (copied.model / "model_card.md").read_text()
    assert "| sex: female | 1,234 | 56 | 0.812 [0.750, 0.875] | undefined | undefined |" in card


def test_evidence_of_other_finals_is_left_out_of_the_card(copied):
    group = {"kind": "sex", "name": "female", "films": 1, "patients": 1}
    keep_evidence(copied.folder, {**record_of(copied), "openings": []}, {"groups": {"groups": [group]}})
    hand_over(copied.study, record_of(copied))
    assert "sex: female" not in (copied.model / "model_card.md").read_text()


def test_an_interruption_leaves_what_was_there(copied, monkeypatch):
    before = state(copied.model)
    other = {**record_of(copied), "delivered": 1 - record_of(copied)["delivered"]}

    def stop(checkpoint, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("search.hand_over.mlflow_model.save_mlflow_model", stop)
        with pytest.raises(KeyboardInterrupt):
            hand_over(copied.study, other)
    assert state(copied.model) == before
    made = hand_over(copied.study, other)
    assert made.known["trial"] == other["delivered"]
    assert {path.name for path in copied.folder.iterdir() if path.name.startswith(".model")} == set()


def test_without_the_films_there_is_no_onnx_until_they_are_back(copied, monkeypatch):
    from search.preflight import PreflightError

    def gone(study):
        raise PreflightError("films.npz is gone")

    (copied.model / "model.onnx").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(hand_over_folder, "_validation_films", gone)
        made = hand_over(copied.study, record_of(copied))
    assert made.known["agreement"] is None
    assert "films.npz is gone" in made.known["not_written"]["model.onnx"]
    assert "There is no `model.onnx`" in (copied.model / "model_card.md").read_text()
    assert not (copied.model / "model.onnx").exists()
    again = hand_over(copied.study, record_of(copied))
    assert again.known["not_written"] == {}
    assert (copied.model / "model.onnx").exists()


def test_a_network_that_onnx_cannot_express_is_handed_over_as_a_program_of_pytorch(copied, monkeypatch):
    from cxr_core import runtimes

    def fail(self):
        raise ExportError("an operator is unknown")

    (copied.model / "model.onnx").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(runtimes._Onnx, "_translate", fail)
        made = hand_over(copied.study, record_of(copied))
    assert made.known["agreement"]["file"] == "model.pt2"
    assert "an operator is unknown" in made.known["not_written"]["model.onnx"]
    assert torch.export.load(copied.model / "model.pt2")
    before = state(copied.model)
    hand_over(copied.study, record_of(copied))  # it would fail again
    assert state(copied.model) == before


def test_a_training_that_wins_later_takes_the_place(copied):
    before = record_of(copied)["delivered"]
    for seed in range(2, 6):
        train_more(copied, seed)
    copied.again("--reopen-test", "more seeds", "--top", "9")
    record = record_of(copied)
    made = handed_over(copied.folder)
    assert made.known["trial"] == record["delivered"]
    checkpoint = copied.folder / copied.study.trial(record["delivered"]).epochs[-1].checkpoint
    assert (copied.model / "model.pt").read_bytes() == checkpoint.read_bytes()
    assert f"trial {record['delivered']}" in (copied.model / "model_card.md").read_text()
    assert "more seeds" in (copied.model / "model_card.md").read_text()
    assert before in [row["trial"] for row in record["finalists"]]


def train_more(finals, seed):
    study = finals.study
    study.prepared, study.space = finals.prepared, finals.space
    return train(study, seed)
