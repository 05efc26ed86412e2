"""What the model card says, and that its figures are those of the films."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from cxr_core.checkpoint import load_checkpoint
from search.evidence.split import Split
from search.hand_over.judged import METRICS, rows
from search.hand_over.statements import statement
from search.kept_scores import read_scores


@pytest.fixture(scope="module")
def card(finals):
    return (finals.model / "model_card.md").read_text()


def cells(card, *beginning):
    """The cells of the tables' rows that begin so."""
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in card.splitlines() if line[:1] == "|"]
    return [line[len(beginning) :] for line in lines if line[: len(beginning)] == list(beginning)]


def test_it_says_first_that_it_is_for_research_only(card):
    assert card.splitlines()[2].startswith("**Research only, not for clinical use.**")


def test_it_has_the_sections_of_a_model_card(card):
    found = re.findall(r"^## (.+)$", card, re.M)
    assert found == [
        "Model details",
        "Intended use",
        "Data",
        "Training procedure",
        "Metrics",
        "Thresholds",
        "Limits",
        "How to use it",
    ]


def test_the_films_patients_and_prevalences_are_those_of_the_data(finals, card):
    assert cells(card, "films") == [["150", "70", "80"]]
    counts = [int(finals.arrays[f"{part}_labels"].sum()) for part in ("train", "val", "test")]
    shares = [f"{count:,} ({count / of:.1%})" for count, of in zip(counts, (150, 70, 80), strict=True)]
    assert shares in cells(card, "Pneumonia")
    assert finals.study.facts["split_hash"] in card


def test_the_metrics_are_those_that_scikit_learn_counts(finals, card):
    record = json.loads((finals.folder / "finalists.json").read_text())
    scores = read_scores(finals.folder / "test" / f"scores-{record['delivered']:05d}.npz")
    films = pd.read_parquet(finals.folder / "test" / "films.parquet").set_index("image").loc[scores.index]
    truth, score = films["Pneumonia"].to_numpy(), scores.to_numpy()[:, 0].astype(np.float64)
    (threshold,) = load_checkpoint(finals.model / "model.pt").thresholds["youden"]
    called = score >= threshold
    expected = [
        roc_auc_score(truth, score),
        average_precision_score(truth, score),
        brier_score_loss(truth, score),
        called[truth == 1].mean(),
        (~called[truth == 0]).mean(),
    ]
    on_test = cells(card.partition("### Test")[2], "Pneumonia")[0]
    assert on_test[0] == f"{int(truth.sum())} of 80"
    for cell, value in zip(on_test[1:], expected, strict=True):
        told, interval = re.fullmatch(r"(\S+) (.+)", cell).groups()
        assert float(told) == pytest.approx(value, abs=5.1e-4)
        if interval == "(the same in all resamples)":  # what is perfect in all films is so in every resample
            assert float(told) == 1
            continue
        low, high = (float(number) for number in re.fullmatch(r"\[(\S+), (\S+)\]", interval).groups())
        assert low <= float(told) <= high
        assert 0 < high - low < 0.5


def test_the_threshold_of_each_rule_is_the_checkpoints(finals, card):
    thresholds = load_checkpoint(finals.model / "model.pt").thresholds
    header, row = (
        cells(card.partition("## Thresholds")[2])[0],
        cells(card.partition("## Thresholds")[2], "Pneumonia")[0],
    )
    assert header[1:] == list(thresholds)
    assert row == [f"{value:.4f}" for (value,) in thresholds.values()]


def test_the_openings_and_what_is_noise_are_told(finals, card):
    record = json.loads((finals.folder / "finalists.json").read_text())
    assert "The test split was opened once." in card
    assert "UTC: to evaluate the finalists; trials 0, 1" in card
    assert record["sentence"] in card


def test_the_commands_name_files_that_lie_beside_the_card(finals, card):
    commands = card.partition("## How to use it")[2]
    for name in ("model.pt", "model.onnx", "mlflow"):
        assert name in commands
        assert (finals.model / name).exists()
    assert str(finals.folder) not in card  # it may be passed on


def test_without_evidence_it_says_that_subgroups_are_not_judged(card):
    assert "Not judged: the study keeps no evidence by sex, age or view." in card


def test_the_models_for_mlflow_has_the_same_card(finals, card):
    assert (finals.model / "mlflow" / "model_card.md").read_text() == card


@pytest.mark.parametrize(
    ("data", "labels", "films", "noise"),
    [
        ("nih:/films", ("Mass", "Hernia"), "NIH Clinical Center", "mined from radiology reports"),
        ("chexpert:/films", ("Edema", "Fracture"), "Stanford", "CheXpert labeler"),
        ("kermany:/films", ("Pneumonia",), "Guangzhou", "graded by two physicians"),
        ("medmnist:/films/few.npz", ("Pneumonia",), "Guangzhou", "graded by two physicians"),
        ("medmnist:/films/chestmnist_64.npz", ("Pneumonia",), "ChestX-ray14", "mined from radiology reports"),
        ("csv:/films.csv", ("Mass",), "user's own", "not known here"),
        ("phantom", ("Mass", "Hernia"), "Synthetic", "3 %"),
    ],
)
def test_films_and_label_noise_are_stated_by_data_set(data, labels, films, noise):
    told = statement(data, labels)
    assert films in told.films
    assert noise in told.labels


def test_each_reader_has_a_statement():
    from cxr_core.data import readers

    assert all(statement(f"{kind}:x", ("Mass",)) for kind in readers)


def split(targets, scores, labels, times=1):
    """Each film so often, of other patients."""
    films = pd.DataFrame(np.repeat(np.array(targets, np.float64), times, axis=0), columns=labels)
    films["patient"] = np.arange(len(films))
    return Split(films, np.repeat(np.array(scores, np.float64), times, axis=0), labels)


def test_an_undefined_metric_is_told_with_its_reason():
    nan = float("nan")
    targets = [[1, 0, 1, nan, 1], [0, 0, 1, nan, 0], [1, 0, 1, nan, 1], [0, 0, 1, nan, 0]]
    scores = [[0.9] * 5, [0.1] * 5, [0.8] * 5, [0.3] * 5]
    films = split(targets, scores, ("Mass", "Hernia", "Edema", "Nodule", "Fibrosis"), times=5)
    told = {
        row[0]: dict(zip(("films", *METRICS), row[1:], strict=True))
        for row in rows(films, np.array([0.5, 0.5, 0.5, 0.5, nan]))
    }
    assert told["Mass"]["auroc_macro"] == "1.000 (the same in all resamples)"
    assert told["Hernia"]["auroc_macro"] == told["Hernia"]["sensitivity"] == "undefined (no film has it)"
    assert told["Hernia"]["specificity"].startswith("0.500 [")
    assert told["Edema"]["auroc_macro"] == told["Edema"]["specificity"] == "undefined (every film has it)"
    assert told["Nodule"]["brier"] == "undefined (no film is labelled)"
    assert told["Fibrosis"]["sensitivity"] == "undefined (no threshold could be fitted on validation)"
    assert told["Fibrosis"]["auroc_macro"].startswith("1.000")
    assert told["mean"]["auroc_macro"] == "1.000 over 2 of 5"
    assert (told["Hernia"]["films"], told["Nodule"]["films"]) == ("0 of 20", "0 of 0")


def test_a_split_of_one_finding_has_no_row_of_means():
    films = split([[1], [0]], [[0.9], [0.1]], ("Mass",))
    assert [row[0] for row in rows(films, np.array([0.5]))] == ["Mass"]
