"""The full account of a split: every metric of every finding, at every threshold, as JSON takes it."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from cxr_core.scorecard import scorecard

LABELS = ("Mass", "Nodule", "Hernia")


@pytest.fixture
def films() -> tuple[np.ndarray, np.ndarray]:
    """Two findings of which one is not labelled on every film, and one without positives."""
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 3)) < 0.4).astype(np.float32)
    targets[:, 2] = 0
    targets[::5, 1] = np.nan
    return targets, rng.random((60, 3)).astype(np.float32)


def test_each_finding_has_its_own_values_and_macro_is_their_mean(films) -> None:
    targets, scores = films
    card = scorecard(targets, scores, LABELS, {})
    known = ~np.isnan(targets[:, 1])
    areas = [roc_auc_score(targets[:, 0], scores[:, 0]), roc_auc_score(targets[known, 1], scores[known, 1])]
    assert card["films"] == 60
    assert [card["labels"][label]["auroc"] for label in LABELS[:2]] == pytest.approx(areas, abs=1e-12)
    assert card["macro"]["auroc_macro"] == pytest.approx(np.mean(areas), abs=1e-12)


def test_calls_are_told_at_a_half_and_at_each_rules_thresholds(films) -> None:
    targets, scores = films
    card = scorecard(targets, scores, LABELS, {"youden": [0.3, 0.5, 0.5], "f1": [0.8, 0.5, 0.5]})
    truth, score = targets[:, 0], scores[:, 0]
    assert card["labels"]["Mass"]["sensitivity"] == pytest.approx(recall_score(truth, score >= 0.5))
    for rule, threshold in (("youden", 0.3), ("f1", 0.8)):
        told = card["at_thresholds"][rule]["labels"]["Mass"]
        assert told["sensitivity"] == pytest.approx(recall_score(truth, score >= threshold))
        assert told["f1"] == pytest.approx(f1_score(truth, score >= threshold))


def test_what_is_undefined_is_null_in_json(films) -> None:
    told = json.loads(json.dumps(scorecard(*films, LABELS, {"youden": [0.5, 0.5, np.nan]}), allow_nan=False))
    assert told["labels"]["Hernia"]["auroc"] is None
    assert told["at_thresholds"]["youden"]["labels"]["Hernia"]["specificity"] is None
    assert told["at_thresholds"]["youden"]["macro"]["specificity"] is not None
