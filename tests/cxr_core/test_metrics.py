"""The metrics equal scikit-learn's where they are defined, and say NaN where they are not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics

from cxr_core.metrics import (
    EPOCH_METRICS,
    OBJECTIVES,
    Metric,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    bcr,
    brier,
    defined_labels,
    expected_calibration_error,
    f1,
    log_loss,
    macro,
    per_label,
    precision,
    sensitivity,
    specificity,
)

NAN = math.nan


def of_calls(truth: Callable, **options: object) -> Callable:
    return lambda targets, scores: truth(targets, scores >= 0.5, **options)


def calibration_error(targets: np.ndarray, scores: np.ndarray) -> float:
    # Guo et al. 2017, eq. 3, bin by bin as it is written; no score is 0.
    bins = [(scores > (m - 1) / 15) & (scores <= m / 15) for m in range(1, 16)]
    gaps = [b.sum() / len(scores) * abs(targets[b].mean() - scores[b].mean()) for b in bins if b.any()]
    return float(sum(gaps))


def mean_of_precision_and_recall(targets: np.ndarray, calls: np.ndarray) -> float:
    values = [score(targets, calls) for score in (sklearn.metrics.precision_score, sklearn.metrics.recall_score)]
    return sum(values) / 2


TRUTH = {
    auroc: sklearn.metrics.roc_auc_score,
    average_precision: sklearn.metrics.average_precision_score,
    log_loss: sklearn.metrics.log_loss,
    brier: sklearn.metrics.brier_score_loss,
    expected_calibration_error: calibration_error,
    accuracy: of_calls(sklearn.metrics.accuracy_score),
    precision: of_calls(sklearn.metrics.precision_score),
    sensitivity: of_calls(sklearn.metrics.recall_score),
    specificity: of_calls(sklearn.metrics.recall_score, pos_label=0),
    f1: of_calls(sklearn.metrics.f1_score),
    bcr: of_calls(mean_of_precision_and_recall),
    balanced_accuracy: of_calls(sklearn.metrics.balanced_accuracy_score),
}
every_metric = pytest.mark.parametrize("metric", TRUTH, ids=lambda metric: metric.__name__)
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def films(seed: int, prevalence: float, levels: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Targets, a fifth of them NaN, and scores with `levels` different values, so that many are tied."""
    rng = np.random.default_rng(seed)
    targets = (rng.random(count) < prevalence).astype(float)
    targets[:2] = 0, 1
    scores = np.round((0.3 * targets + 0.7 * rng.random(count)) * levels) / levels
    targets[2:][rng.random(count - 2) < 0.2] = NAN
    scores[1] = 0.75  # something is called, so that no metric is undefined
    return targets, scores.clip(1e-6, 1 - 1e-6)


@every_metric
@pytest.mark.parametrize("levels", [3, 20, 10**9])
@pytest.mark.parametrize("prevalence", [0.002, 0.1, 0.5, 0.97])
def test_a_metric_equals_scikit_learns_on_the_labelled_films(metric: Callable, levels: int, prevalence: float) -> None:
    for seed in range(5):
        targets, scores = films(seed, prevalence, levels)
        labelled = ~np.isnan(targets)
        assert metric(targets, scores) == pytest.approx(TRUTH[metric](targets[labelled], scores[labelled]), abs=1e-12)


@every_metric
def test_scores_in_single_precision_lose_nothing(metric: Callable) -> None:
    targets, scores = films(0, 0.3, 10**9)
    targets, scores = targets.astype(np.float32), scores.astype(np.float32)
    labelled = ~np.isnan(targets)
    expected = TRUTH[metric](targets[labelled].astype(int), scores[labelled].astype(float))
    assert metric(targets, scores) == pytest.approx(expected, abs=1e-12)


@every_metric
@pytest.mark.parametrize("targets", [np.full(4, NAN), np.empty(0)], ids=["not labelled", "no films"])
def test_a_metric_of_nothing_is_undefined(metric: Callable, targets: np.ndarray) -> None:
    assert math.isnan(metric(targets, np.full(len(targets), 0.3)))


@every_metric
def test_a_metric_of_a_score_that_is_no_number_is_undefined(metric: Callable) -> None:
    assert math.isnan(metric(np.array([0.0, 1, 0, 1]), np.array([0.1, 0.9, 0.6, NAN])))


@every_metric
def test_the_score_of_a_film_without_a_label_changes_nothing(metric: Callable) -> None:
    targets, scores = np.array([0.0, 1, 0, 1, NAN]), np.array([0.1, 0.9, 0.6, 0.4, NAN])
    assert metric(targets, scores) == metric(targets[:4], scores[:4])


ONE_CLASS = {"all negative": [0, 0, NAN], "all positive": [1, 1, NAN]}


@pytest.mark.parametrize(
    ("metric", "classes"),
    [
        (auroc, ["all negative", "all positive"]),
        (average_precision, ["all negative"]),
        (sensitivity, ["all negative"]),
        (specificity, ["all positive"]),
        (balanced_accuracy, ["all negative", "all positive"]),
        (bcr, ["all negative"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_needs_a_class_that_is_not_there_is_undefined(metric: Callable, classes: list[str]) -> None:
    scores = np.array([0.1, 0.6, 0.9])
    assert [name for name, targets in ONE_CLASS.items() if math.isnan(metric(np.array(targets), scores))] == classes


@pytest.mark.parametrize(("metric", "value"), [(precision, NAN), (bcr, NAN), (f1, 0), (sensitivity, 0)])
def test_without_a_call_precision_is_undefined_but_a_missed_finding_counts(metric: Callable, value: float) -> None:
    np.testing.assert_equal(metric(np.array([0.0, 1, 0]), np.array([0.1, 0.2, 0.3])), value)


def test_f1_with_neither_positives_nor_calls_is_undefined() -> None:
    assert math.isnan(f1(np.array([0.0, 0]), np.array([0.1, 0.2])))


def test_auroc_of_equal_scores_is_one_half() -> None:
    assert auroc(np.array([0.0, 1, 1, 0, 1]), np.full(5, 0.7)) == 0.5


def test_average_precision_of_equal_scores_is_the_prevalence() -> None:
    assert average_precision(np.array([0.0, 1, 1, 0, 1]), np.full(5, 0.7)) == pytest.approx(0.6, abs=1e-15)


def test_a_score_of_one_half_is_a_positive_call() -> None:
    assert accuracy(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == 0.5
    assert accuracy(np.array([1.0]), np.array([0.5])) == 1


def test_a_metric_of_calls_takes_another_threshold() -> None:
    targets, scores = np.array([0.0, 1, 1, 0]), np.array([0.1, 0.2, 0.3, 0.25])
    assert (sensitivity(targets, scores), specificity(targets, scores)) == (0, 1)
    assert (sensitivity(targets, scores, 0.25), specificity(targets, scores, 0.25)) == (0.5, 0.5)


def test_log_loss_of_a_wrong_certainty_is_finite() -> None:
    assert log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7), rel=1e-12)


def test_calibration_bins_are_closed_on_the_right_and_zero_is_in_the_first() -> None:
    # 0 and 1/15 share a bin, whose error cancels; just above 1/15 is the next bin, with an error of its own.
    targets = np.array([1.0, 0.0])
    assert expected_calibration_error(targets, np.array([0, 1 / 15])) == pytest.approx((1 - 1 / 15) / 2, abs=1e-15)
    assert expected_calibration_error(targets, np.array([0, 0.07])) == pytest.approx((1 + 0.07) / 2, abs=1e-15)


def test_scores_that_are_the_prevalence_are_calibrated() -> None:
    assert expected_calibration_error(np.array([1.0, 0, 0, 0]), np.full(4, 0.25)) == 0


# Over several findings


@every_objective
def test_an_objective_prefers_the_truth_to_its_opposite(name: str) -> None:
    metric, targets = OBJECTIVES[name], np.array([0.0, 1, 1, 0, 0])
    right, wrong = metric.of_label(targets, targets), metric.of_label(targets, 1 - targets)
    assert right > wrong if metric.direction == "maximize" else right < wrong


def test_accuracy_is_no_objective_for_several_findings() -> None:
    assert [name for name, metric in OBJECTIVES.items() if not metric.multilabel] == ["accuracy"]


def test_every_objective_is_shown_after_an_epoch() -> None:
    assert OBJECTIVES.items() <= EPOCH_METRICS.items()


def test_per_label_scores_each_finding_alone() -> None:
    first, second = films(0, 0.3, 20), films(1, 0.1, 20)
    targets, scores = np.stack([first[0], second[0]], axis=1), np.stack([first[1], second[1]], axis=1)
    assert per_label(Metric(auroc, "maximize"), targets, scores) == [auroc(*first), auroc(*second)]


def test_the_macro_mean_leaves_undefined_findings_out() -> None:
    assert macro([0.5, NAN, 1.0, NAN]) == 0.75


def test_the_findings_of_the_macro_mean_are_counted() -> None:
    assert defined_labels([0.5, NAN, 1.0, NAN]) == 2


def test_the_macro_mean_of_undefined_findings_is_undefined() -> None:
    assert math.isnan(macro([NAN, NAN]))
