"""The metrics equal scikit-learn's where they are defined, and say NaN where they are not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics

from cxr_core.metrics import OBJECTIVES, Metric, accuracy, auroc, average_precision, log_loss, macro, per_label

NAN = math.nan
TRUTH = {
    auroc: sklearn.metrics.roc_auc_score,
    average_precision: sklearn.metrics.average_precision_score,
    log_loss: sklearn.metrics.log_loss,
    accuracy: lambda targets, scores: sklearn.metrics.accuracy_score(targets, scores >= 0.5),
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
    expected = TRUTH[metric](targets[labelled], scores[labelled].astype(float))
    assert metric(targets, scores) == pytest.approx(expected, abs=1e-12)


@every_metric
@pytest.mark.parametrize("targets", [np.full(4, NAN), np.empty(0)], ids=["not labelled", "no films"])
def test_a_metric_of_nothing_is_undefined(metric: Callable, targets: np.ndarray) -> None:
    assert math.isnan(metric(targets, np.full(len(targets), 0.3)))


@pytest.mark.parametrize("targets", [[0, 0, NAN], [1, 1, NAN]], ids=["all negative", "all positive"])
def test_auroc_of_one_class_is_undefined(targets: list[float]) -> None:
    assert math.isnan(auroc(np.array(targets), np.array([0.1, 0.6, 0.9])))


def test_average_precision_without_positives_is_undefined() -> None:
    assert math.isnan(average_precision(np.array([0, 0, NAN]), np.array([0.1, 0.6, 0.9])))


def test_auroc_of_equal_scores_is_one_half() -> None:
    assert auroc(np.array([0.0, 1, 1, 0, 1]), np.full(5, 0.7)) == 0.5


def test_average_precision_of_equal_scores_is_the_prevalence() -> None:
    assert average_precision(np.array([0.0, 1, 1, 0, 1]), np.full(5, 0.7)) == pytest.approx(0.6, abs=1e-15)


def test_a_score_of_one_half_is_a_positive_call() -> None:
    assert accuracy(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == 0.5
    assert accuracy(np.array([1.0]), np.array([0.5])) == 1


def test_log_loss_of_a_wrong_certainty_is_finite() -> None:
    assert log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7), rel=1e-12)


# Over several findings


@every_objective
def test_an_objective_prefers_the_truth_to_its_opposite(name: str) -> None:
    metric, targets = OBJECTIVES[name], np.array([0.0, 1, 1, 0, 0])
    right, wrong = metric.of_label(targets, targets), metric.of_label(targets, 1 - targets)
    assert right > wrong if metric.direction == "maximize" else right < wrong


def test_accuracy_is_no_objective_for_several_findings() -> None:
    assert [name for name, metric in OBJECTIVES.items() if not metric.multilabel] == ["accuracy"]


def test_per_label_scores_each_finding_alone() -> None:
    first, second = films(0, 0.3, 20), films(1, 0.1, 20)
    targets, scores = np.stack([first[0], second[0]], axis=1), np.stack([first[1], second[1]], axis=1)
    assert per_label(Metric(auroc, "maximize"), targets, scores) == [auroc(*first), auroc(*second)]


def test_the_macro_mean_leaves_undefined_findings_out() -> None:
    assert macro([0.5, NAN, 1.0, NAN]) == 0.75


def test_the_macro_mean_of_undefined_findings_is_undefined() -> None:
    assert math.isnan(macro([NAN, NAN]))
