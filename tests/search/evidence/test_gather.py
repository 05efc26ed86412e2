"""The evidence of a finalised study, against scikit-learn on the scores that it keeps."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    multilabel_confusion_matrix,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from search.evidence.gather import evidence_of, gather_evidence
from search.evidence.record import read_evidence
from search.evidence.split import Split
from search.evidence.words import calibrated
from search.finals.record import read_record
from search.finals.sealed_test import SealedTest
from search.study import Study
from tests.search.clinic import LABELS
from tests.search.small_study import new_study, train

MASS, THICKENING, HERNIA = LABELS


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def record(finalized):
    return read_record(finalized.folder)


@pytest.fixture(scope="module")
def evidence(finalized):
    return json.loads((finalized.folder / "evidence.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def films(finalized, record):
    """Validation and test films with the labels, and the delivered training's scores as `score Mass` and so on."""
    tables = []
    kept = f"test/scores-{record['delivered']:05d}.npz", f"trials/{record['delivered']:05d}/scores-0001.npz"
    known = pd.concat(pd.read_parquet(finalized.folder / name) for name in ("films.parquet", "test/films.parquet"))
    for name in reversed(kept):
        with np.load(finalized.folder / name) as file:
            scores = pd.DataFrame(file["scores"], index=file["images"], columns=[f"score {one}" for one in LABELS])
        tables.append(known.set_index("image").join(scores, how="inner"))
    return tables


def value(told, label):
    return told["labels"][label]["value"]


def test_it_is_of_the_training_that_is_delivered(evidence, record, films):
    assert evidence["trial"] == record["delivered"]
    assert evidence["labels"] == list(LABELS)
    test = films[1]
    assert evidence["films"]["test"] == {"films": len(test), "patients": test["patient"].nunique()}
    assert evidence["positives"]["test"] == {label: int(test[label].sum()) for label in LABELS}


def test_areas_under_the_curves_are_scikit_learns_on_the_test_films(evidence, films):
    found, test = evidence["discrimination"], films[1]
    for label in (MASS, THICKENING):
        truth, score = test[label], test[f"score {label}"]
        assert value(found["auroc"], label) == pytest.approx(roc_auc_score(truth, score))
        assert value(found["auprc"], label) == pytest.approx(average_precision_score(truth, score))
        curves = found["curves"][label]
        assert np.trapezoid(curves["tpr"], curves["fpr"]) == pytest.approx(roc_auc_score(truth, score), abs=0.01)
        band = curves["band"]
        assert (np.array(band["low"]) <= band["high"]).all()
        assert np.mean(band["low"]) < roc_auc_score(truth, score) < np.mean(band["high"])
        assert found["auroc"]["labels"][label]["low"] < value(found["auroc"], label)
        assert found["auroc"]["labels"][label]["high"] > value(found["auroc"], label)
    areas = [value(found["auroc"], label) for label in (MASS, THICKENING)]
    assert found["auroc"]["mean"]["value"] == pytest.approx(np.mean(areas))
    assert found["auroc"]["mean"]["labels"] == 2


def test_what_a_finding_without_positives_leaves_undefined_is_null_and_says_why(evidence):
    area = evidence["discrimination"]["auroc"]["labels"][HERNIA]
    assert area == {"value": None, "low": None, "high": None, "why": "no film has it"}
    assert evidence["operating_points"]["youden"]["sensitivity"]["labels"][HERNIA]["why"] == "no film has it"


def test_thresholds_are_of_validation_and_judged_on_test(evidence, films):
    validation, test = films
    for rule, point in evidence["operating_points"].items():
        for label in (MASS, THICKENING):
            told = point["labels"][label]
            calls = test[f"score {label}"] >= told["threshold"]
            counts = [told[name] for name in ("tn", "fp", "fn", "tp")]
            assert counts == confusion_matrix(test[label], calls, labels=[0, 1]).ravel().tolist()
            assert value(point["sensitivity"], label) == pytest.approx(recall_score(test[label], calls))
            fpr, tpr, thresholds = roc_curve(validation[label], validation[f"score {label}"], drop_intermediate=False)
            if rule == "youden":
                assert told["threshold"] in thresholds[np.isclose(tpr - fpr, (tpr - fpr).max())]
            if rule == "sensitivity 0.90":
                assert told["threshold"] == thresholds[np.argmax(tpr >= 0.9)]
    assert list(evidence["operating_points"]) == ["youden", "f1", "sensitivity 0.90"]


def test_calibration_is_told_before_and_after_on_test(evidence, films):
    test, told = films[1], evidence["calibration"]
    for label in (MASS, THICKENING):
        fitted = told["fitted"][label]
        before = test[f"score {label}"].to_numpy(np.float64)
        after = 1 / (1 + np.exp(-(fitted["slope"] * np.log(before / (1 - before)) + fitted["intercept"])))
        for side, scores in (("before", before), ("after", after)):
            assert value(told[side]["brier"], label) == pytest.approx(brier_score_loss(test[label], scores))
            share, score = calibration_curve(test[label], scores, n_bins=15)
            assert told[side]["bins"][label]["share"] == pytest.approx(share)
            assert told[side]["bins"][label]["score"] == pytest.approx(score)


def test_means_before_and_after_calibration_are_of_the_findings_that_could_be_fitted(finalized, record):
    """No validation film shows a hernia: it has a Brier score before, and none after."""
    films = pd.read_parquet(finalized.folder / "films.parquet")
    kept = SealedTest(finalized).told_of(finalized.trial(record["delivered"]))
    validation, test = (Split(table, scores, LABELS, resamples=20) for table, scores in kept)
    validation = replace(validation, films=validation.films.assign(**{HERNIA: 0}))
    told = evidence_of(films[films["split"] == "train"], validation, test)
    assert value(told["calibration"]["before"]["brier"], HERNIA) > 0
    for side in ("before", "after"):
        errors = told["calibration"][side]["brier"]
        assert errors["mean"]["value"] == pytest.approx(np.mean([value(errors, label) for label in (MASS, THICKENING)]))
    assert calibrated(told | {"labels": LABELS}).endswith(
        "after, over the 2 of 3 findings that validation films could fit."
    )


def test_what_is_fitted_does_not_know_the_test_labels(finalized, record):
    """With other answers on the test films, thresholds and calibration are what they were."""
    films = pd.read_parquet(finalized.folder / "films.parquet")
    kept = SealedTest(finalized).told_of(finalized.trial(record["delivered"]))
    validation, test = (Split(table, scores, LABELS, resamples=20) for table, scores in kept)
    turned = replace(test, films=test.films.assign(**{label: 1 - test.films[label] for label in LABELS}))
    told = [evidence_of(films[films["split"] == "train"], validation, of) for of in (test, turned)]
    assert told[0]["calibration"]["fitted"] == told[1]["calibration"]["fitted"]
    thresholds = [[of["operating_points"][r]["labels"][MASS]["threshold"] for r in ("youden", "f1")] for of in told]
    assert thresholds[0] == thresholds[1]
    areas = [of["discrimination"]["auroc"]["labels"][MASS]["value"] for of in told]
    assert areas[0] == pytest.approx(1 - areas[1])
    alone = [of["metadata"]["auroc"]["alone"]["labels"][MASS]["value"] for of in told]
    assert alone[0] == pytest.approx(1 - alone[1])


def test_the_matrices_of_calls_agree_with_each_other_and_with_scikit_learn(evidence, films):
    test, told = films[1], evidence["confusion"]
    truth = test[list(LABELS)].to_numpy() == 1
    thresholds = [evidence["operating_points"]["youden"]["labels"][label]["threshold"] for label in LABELS]
    calls = test[[f"score {label}" for label in LABELS]].to_numpy() >= [np.inf if t is None else t for t in thresholds]
    right = multilabel_confusion_matrix(truth, calls)[:, 1, 1]
    for name, size in (("calls", 3), ("calls_or_none", 4), ("mistakes", 4)):
        matrix = np.array(told[name])
        assert matrix.shape == (size, size)
        assert matrix.diagonal()[:3].tolist() == right.tolist()
    assert np.array(told["calls_or_none"])[:3, :3].tolist() == told["calls"]
    assert told["calls_or_none"][3][3] == int((~truth.any(axis=1) & ~calls.any(axis=1)).sum())


def test_each_group_has_the_figures_of_its_own_films(evidence, films):
    test = films[1]
    groups = {(group["kind"], group["name"]): group for group in evidence["groups"]["groups"]}
    assert evidence["groups"]["unknown"] == []
    members = {("sex", "female"): test["sex"] == "F", ("sex", "male"): test["sex"] == "M"}
    members |= {("view", view): test["view"] == view for view in ("AP", "PA")}
    members[("age", "60 to 79")] = (test["age"] >= 60) & (test["age"] < 80)
    for name, inside in members.items():
        group, own = groups[name], test[inside]
        assert (group["films"], group["patients"]) == (len(own), own["patient"].nunique())
        assert group["positives"] == {label: int(own[label].sum()) for label in LABELS}
        assert value(group["auroc"], MASS) == pytest.approx(roc_auc_score(own[MASS], own[f"score {MASS}"]))
        threshold = evidence["operating_points"]["youden"]["labels"][MASS]["threshold"]
        sensitivity = recall_score(own[MASS], own[f"score {MASS}"] >= threshold)
        assert value(group["sensitivity"], MASS) == pytest.approx(sensitivity)
    for kind in ("sex", "age", "view"):
        assert sum(group["films"] for (of, _), group in groups.items() if of == kind) == len(test)


def test_an_interval_that_would_rest_on_few_patients_is_not_told(evidence, films):
    young = films[1][films[1]["age"] < 40]
    patients = young.loc[young[MASS] == 1, "patient"].nunique()
    assert 0 < patients < 5
    group = next(group for group in evidence["groups"]["groups"] if group["name"] == "18 to 39")
    area = group["auroc"]["labels"][MASS]
    assert area["value"] is not None
    assert (area["low"], area["high"], area["why"]) == (None, None, "fewer than 5 patients")


def test_what_no_resample_moves_has_no_interval():
    """A network that is right on every film of 20 patients is not known to be right on the next ones."""
    truth = np.arange(20) % 2
    films = pd.DataFrame({"patient": np.arange(20), "Mass": truth})
    split = Split(films, truth[:, None].astype(float), ("Mass",), resamples=50)
    found = split.estimate(("auroc_macro",))["auroc_macro"]
    told = split.tell("auroc_macro", found)["labels"]["Mass"]
    assert (told["value"], told["why"]) == (1, "the same in all resamples")
    assert np.isnan([told["low"], told["high"]]).all()


def test_the_calibration_error_has_no_interval_as_resamples_lie_above_it(evidence):
    for side in ("before", "after"):
        told = evidence["calibration"][side]
        assert told["ece"]["labels"][MASS].keys() == {"value", "low", "high"}
        assert told["ece"]["labels"][MASS]["low"] is None
        assert told["brier"]["labels"][MASS]["low"] is not None


def test_metadata_alone_find_what_was_planted_in_them_and_the_networks_gain_is_paired(evidence):
    told = evidence["metadata"]
    assert told["columns"] == ["age", "sex", "view"]
    for label in (MASS, THICKENING):
        alone, network, gained = (value(told["auroc"][side], label) for side in ("alone", "network", "gained"))
        assert alone > 0.6
        assert gained == pytest.approx(network - alone)
        assert network == pytest.approx(value(evidence["discrimination"]["auroc"], label))


def test_a_data_set_without_metadata_has_no_groups_and_no_such_baseline(tmp_path, make_space, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    study = new_study(tmp_path, make_space())
    trial, sealed = train(study), SealedTest(study)
    sealed.evaluate([trial], study.prepared, torch.device("cpu"), stopped=lambda: False)
    gather_evidence(study, {"delivered": trial.number}, study.space.task.labels)
    evidence = read_evidence(study.folder, {"delivered": trial.number})
    assert evidence["groups"] == {"unknown": ["age", "sex", "view"], "groups": []}
    assert evidence["metadata"] == {"columns": [], "missing": ["age", "sex", "view"]}
    assert evidence["confusion"]["calls"] is None
    assert evidence["discrimination"]["auroc"]["labels"]["Pneumonia"]["value"] is not None


def test_it_is_gathered_again_only_if_the_finals_have_changed(finalized, record, tmp_path):
    folder = shutil.copytree(finalized.folder, tmp_path / "copy")
    study, path = Study(folder), folder / "evidence.json"
    written = path.stat().st_mtime_ns
    gather_evidence(study, record, LABELS)
    assert path.stat().st_mtime_ns == written
    other = {**record, "delivered": 1 - record["delivered"]}
    assert read_evidence(folder, other) is None
    gather_evidence(study, other, LABELS)
    assert read_evidence(folder, other)["trial"] == other["delivered"]
    assert read_evidence(folder, record) is None
    gather_evidence(study, record, LABELS)
    assert path.read_bytes() == (finalized.folder / "evidence.json").read_bytes()
