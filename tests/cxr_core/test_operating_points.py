"""Thresholds of validation films, judged on others."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score, roc_curve

from cxr_core.operating_points import operating_point


def split(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 2)) < 0.3).astype(float)
    return targets, 1 / (1 + np.exp(-(1.5 * targets + rng.normal(size=targets.shape))))


VALIDATION, TEST = split(0), split(1)
PATIENTS = np.arange(300) // 2


def test_the_threshold_keeps_its_level_on_validation_and_is_judged_on_test() -> None:
    point = operating_point(VALIDATION, TEST, PATIENTS, "sensitivity", 0.9, resamples=50)
    for c in range(2):
        truth, score = (of[:, c] for of in VALIDATION)
        _, tpr, thresholds = roc_curve(truth, score, drop_intermediate=False)
        assert point.thresholds[c] == thresholds[np.argmax(tpr >= 0.9)]
        truth, score = (of[:, c] for of in TEST)
        calls = score >= point.thresholds[c]
        counts = [int(getattr(point.counts, name)[c]) for name in ("tn", "fp", "fn", "tp")]
        assert counts == confusion_matrix(truth, calls).ravel().tolist()
        expected = {
            "sensitivity": recall_score(truth, calls),
            "specificity": recall_score(truth, calls, pos_label=0),
            "precision": precision_score(truth, calls),
            "npv": precision_score(truth, calls, pos_label=0),
        }
        assert {name: ratio.of_label[c] for name, ratio in point.ratios.items()} == pytest.approx(expected)


def test_test_films_do_not_move_the_threshold() -> None:
    others = operating_point(VALIDATION, split(2), PATIENTS, "youden", resamples=5)
    here = operating_point(VALIDATION, TEST, PATIENTS, "youden", resamples=5)
    assert (here.thresholds == others.thresholds).all()
    assert here.ratios["sensitivity"].mean != others.ratios["sensitivity"].mean


def test_intervals_hold_the_value_and_are_those_of_fixed_thresholds() -> None:
    """A binomial's: with one film a patient the bootstrap's deviation is sqrt(p (1 - p) / n)."""
    point = operating_point(VALIDATION, TEST, np.arange(300), "youden", resamples=2000)
    found = point.ratios["specificity"]
    negatives = (TEST[0] == 0).sum(axis=0)
    deviation = np.sqrt(found.of_label * (1 - found.of_label) / negatives)
    np.testing.assert_allclose(found.interval.high - found.interval.low, 2 * 1.96 * deviation, rtol=0.1)
    assert ((found.interval.low < found.of_label) & (found.of_label < found.interval.high)).all()


def test_without_a_positive_on_validation_there_is_no_threshold_and_no_ratio() -> None:
    targets = VALIDATION[0].copy()
    targets[:, 1] = 0
    point = operating_point((targets, VALIDATION[1]), TEST, PATIENTS, "youden", resamples=5)
    assert np.isnan(point.thresholds[1])
    assert all(np.isnan(ratio.of_label[1]) for ratio in point.ratios.values())
    assert point.ratios["sensitivity"].labels == 1
