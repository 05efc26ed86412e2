"""Metrics with intervals: scikit-learn's values, the bootstrap's quantiles, and paired differences."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from cxr_core.bootstrap import bootstrap, macro_samples
from cxr_core.estimates import estimate, why_undefined

NAN = math.nan
OPTIONS = {"resamples": 200, "seed": 3}


@pytest.fixture(scope="module")
def films() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """240 films of 80 patients with three findings, of which no film has the last."""
    rng = np.random.default_rng(0)
    targets = (rng.random((240, 3)) < 0.4).astype(float)
    targets[:, 2] = 0
    return targets, 1 / (1 + np.exp(-(targets + rng.normal(size=targets.shape)))), np.repeat(np.arange(80), 3)


def test_values_are_scikit_learns(films) -> None:
    targets, scores, patients = films
    metrics = ("auroc_macro", "auprc_macro", "sensitivity", "npv")
    found = estimate(targets, scores, patients, metrics, thresholds=np.array([0.4, 0.6, 0.5]), **OPTIONS)
    for c, threshold in ((0, 0.4), (1, 0.6)):
        truth, score = targets[:, c], scores[:, c]
        calls = score >= threshold
        assert found["auroc_macro"].of_label[c] == pytest.approx(roc_auc_score(truth, score))
        assert found["auprc_macro"].of_label[c] == pytest.approx(average_precision_score(truth, score))
        assert found["sensitivity"].of_label[c] == pytest.approx(recall_score(truth, calls))
        assert found["npv"].of_label[c] == pytest.approx(precision_score(truth, calls, pos_label=0))


def test_the_mean_is_over_the_findings_that_are_defined_and_says_how_many(films) -> None:
    area = estimate(*films, ("auroc_macro",), **OPTIONS)["auroc_macro"]
    assert np.isnan(area.of_label[2])
    assert area.mean == pytest.approx(np.mean(area.of_label[:2]))
    assert area.labels == 2


def test_intervals_are_quantiles_of_the_patient_bootstrap(films) -> None:
    area = estimate(*films, ("auroc_macro",), **OPTIONS)["auroc_macro"]
    samples = bootstrap(*films, ("auroc_macro",), **OPTIONS)["auroc_macro"]
    np.testing.assert_allclose(area.interval.low[:2], np.quantile(samples[:, :2], 0.025, axis=0))
    np.testing.assert_allclose(area.mean_interval.high, np.quantile(macro_samples(samples), 0.975))


def test_a_difference_is_of_the_same_patients(films) -> None:
    """Of a network and itself it is exactly nothing; to a worse one, narrower than two intervals side by side."""
    targets, scores, patients = films
    worse = scores + np.random.default_rng(1).normal(0, 0.3, scores.shape)
    first, second = (estimate(targets, of, patients, ("auroc_macro",), **OPTIONS) for of in (scores, worse))
    area, other = first["auroc_macro"], second["auroc_macro"]
    same = area.minus(area)
    assert (same.mean, float(same.mean_interval.low), float(same.mean_interval.high)) == (0, 0, 0)
    gained = area.minus(other)
    assert gained.mean == pytest.approx(area.mean - other.mean)
    widths = [float(of.mean_interval.high - of.mean_interval.low) for of in (gained, area, other)]
    assert widths[0] < widths[1] + widths[2]


@pytest.mark.parametrize(
    ("metric", "targets", "threshold", "calls", "why"),
    [
        ("auroc_macro", [0, 0, NAN], 0.5, None, "no film has it"),
        ("auroc_macro", [1, 1, NAN], 0.5, None, "every film has it"),
        ("brier", [NAN, NAN], 0.5, None, "no film is labelled"),
        ("sensitivity", [0, 0], 0.5, 1, "no film has it"),
        ("specificity", [1, 1], 0.5, 1, "every film has it"),
        ("sensitivity", [0, 1], NAN, 0, "no threshold could be fitted on validation"),
        ("precision", [0, 1], 0.5, 0, "nothing is called"),
        ("npv", [0, 1], 0.5, 2, "everything is called"),
    ],
)
def test_what_is_undefined_says_why(metric, targets, threshold, calls, why) -> None:
    assert why_undefined(metric, np.array(targets, float), threshold, calls) == why
