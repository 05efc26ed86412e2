"""Metrics with intervals: scikit-learn's values, the spread of the bootstrap, and paired differences."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from cxr_core.area_intervals import Support, area_intervals
from cxr_core.bootstrap import bootstrap, macro_samples
from cxr_core.estimates import Estimate, estimate, why_undefined

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
    found = estimate(*films, ("brier",), **OPTIONS)["brier"]
    samples = bootstrap(*films, ("brier",), **OPTIONS)["brier"]
    np.testing.assert_allclose(found.interval.low, np.quantile(samples, 0.025, axis=0))
    np.testing.assert_allclose(found.mean_interval.high, np.quantile(macro_samples(samples), 0.975))


@pytest.mark.parametrize("metric", ["auroc_macro", "auprc_macro"])
def test_intervals_of_areas_are_normal_on_the_logit_scale(films, metric) -> None:
    targets, _, patients = films
    area = estimate(*films, (metric,), **OPTIONS)[metric]
    support = Support.of(metric, targets, patients)
    assert support is not None
    of_label, of_mean = area_intervals(area.of_label, bootstrap(*films, (metric,), **OPTIONS)[metric], support)
    np.testing.assert_array_equal([area.interval.low, area.interval.high], [of_label.low, of_label.high])
    assert (area.mean_interval.low, area.mean_interval.high) == (of_mean.low, of_mean.high)
    assert np.isnan([area.interval.low[2], area.interval.high[2]]).all()


def test_over_fewer_findings_an_area_keeps_its_kind_of_interval(films) -> None:
    """As in a comparison with a network that is undefined for the first one."""
    area = estimate(*films, ("auroc_macro",), **OPTIONS)["auroc_macro"]
    less = area.where(Estimate.of([NAN, 0.5, NAN], np.full((200, 3), 0.5)))
    assert less.labels == 1
    assert less.mean == area.of_label[1]
    bounds = [area.interval.low[1], area.interval.high[1]]
    np.testing.assert_allclose([less.mean_interval.low, less.mean_interval.high], bounds)


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
