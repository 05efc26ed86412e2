"""Metrics as pure functions of whole arrays: NaN in the targets is "not labelled", NaN out is "undefined".

The functions take targets and scores of one finding, (N,), and are undefined if no film is labelled or a labelled
film's score is NaN; what else leaves one undefined is said with it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from cxr_core.confusion import count
from cxr_core.roc import Array, labelled, roc_curve

CALIBRATION_BINS = 15
"""Bins of the calibration error (Guo et al. 2017, sec. 5)."""


# Of the order of the scores


def auroc(targets: Array, scores: Array) -> float:
    """Area under the ROC curve, ties counted half (Mann & Whitney 1947); undefined without either class."""
    return roc_curve(targets, scores).area


def average_precision(targets: Array, scores: Array) -> float:
    """Area under the precision-recall curve, as a step function; undefined without positives."""
    return roc_curve(targets, scores).average_precision


# Of the scores as probabilities


def log_loss(targets: Array, scores: Array) -> float:
    """Mean negative log-likelihood of the labelled films, in nats, with scores kept 1e-7 away from 0 and 1."""
    return _mean(log_losses(*labelled(targets, scores)))


def brier(targets: Array, scores: Array) -> float:
    """Mean squared difference of score and target (Brier 1950), in its form for two classes: 0 is best, 1 worst."""
    return _mean(np.square(np.subtract(*labelled(targets, scores))))


def expected_calibration_error(targets: Array, scores: Array) -> float:
    """How far the share of positives is from the mean score, over 15 bins of the score (Guo et al. 2017, eq. 3).

    The form for one finding: bins of the probability of the finding over (0, 1], not of the confidence in the likelier
    class, so that calling it too often and too rarely both show. Bins are of equal width, closed on the right, weighted
    by their films; a score of 0 is in the first.
    """
    targets, scores = labelled(targets, scores)
    gaps = np.bincount(calibration_bin(scores), weights=targets - scores, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(targets)) if len(targets) else float("nan")


def log_losses(targets: Array, scores: Array) -> Array:
    """Negative log-likelihood of each film, in nats; arrays without NaN targets."""
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    return -np.log(np.where(targets == 1, p, 1 - p))


def calibration_bin(scores: Array) -> np.ndarray:
    """Index of each score's bin."""
    inner_edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    return np.searchsorted(inner_edges, scores, side="left")


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


# Of the calls at a threshold; `confusion.Counts` says what each is and where it is undefined


def accuracy(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Share of labelled films that are called rightly."""
    return float(count(targets, scores, threshold).accuracy)


def precision(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Share of called films that have the finding; undefined if nothing is called."""
    return float(count(targets, scores, threshold).precision)


def sensitivity(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Share of films with the finding that are called, also named recall; undefined without positives."""
    return float(count(targets, scores, threshold).sensitivity)


def specificity(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Share of films without the finding that are not called; undefined without negatives."""
    return float(count(targets, scores, threshold).specificity)


def f1(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall; undefined with neither positives nor calls."""
    return float(count(targets, scores, threshold).f1)


def bcr(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Mean of precision and recall; undefined where either is."""
    return float(count(targets, scores, threshold).bcr)


def balanced_accuracy(targets: Array, scores: Array, threshold: float = 0.5) -> float:
    """Mean of sensitivity and specificity; undefined where either is."""
    return float(count(targets, scores, threshold).balanced_accuracy)


# Over several findings


@dataclass(frozen=True)
class Metric:
    """A metric of one finding and the direction in which it improves; multilabel: may be averaged into an objective."""

    of_label: Callable[[Array, Array], float]
    direction: str
    multilabel: bool = True


OBJECTIVES: dict[str, Metric] = {
    "auroc_macro": Metric(auroc, "maximize"),
    "auprc_macro": Metric(average_precision, "maximize"),
    "log_loss": Metric(log_loss, "minimize"),
    "brier": Metric(brier, "minimize"),
    "f1": Metric(f1, "maximize"),
    "balanced_accuracy": Metric(balanced_accuracy, "maximize"),
    # Calling every film healthy is right in 92 % of entries of ChestX-ray14: no objective for several findings.
    "accuracy": Metric(accuracy, "maximize", multilabel=False),
}
"""Metrics that a search can improve, by name, as their mean over the findings; those of calls are at 0.5."""

EPOCH_METRICS: dict[str, Metric] = {
    **OBJECTIVES,
    # Each of these is perfect for a network that calls every film, or none, or gives every film the prevalence.
    "sensitivity": Metric(sensitivity, "maximize", multilabel=False),
    "specificity": Metric(specificity, "maximize", multilabel=False),
    "precision": Metric(precision, "maximize", multilabel=False),
    "bcr": Metric(bcr, "maximize", multilabel=False),
    "ece": Metric(expected_calibration_error, "minimize", multilabel=False),
}
"""Metrics shown after each epoch: the objectives, and others worth seeing that a useless network can max out."""

STRESSED: dict[str, str] = {"stressed_auroc_macro": "auroc_macro", "stressed_log_loss": "log_loss"}
"""Metrics of stressed validation, by name: the metric of which each is the mean over `stress.CHANGES`."""

KFOLD: dict[str, str] = {"kfold_auroc_macro": "auroc_macro", "kfold_log_loss": "log_loss"}
"""Metrics of k-fold validation, by name: the metric of which each is the mean over trainings on `TrainingData.fold`."""


def per_label(metric: Metric, targets: Array, scores: Array) -> list[float]:
    """The metric of each finding; targets, scores: (N, C)."""
    return [metric.of_label(targets[:, c], scores[:, c]) for c in range(targets.shape[1])]


def macro(values: Iterable[float]) -> float:
    """Unweighted mean over the findings where a metric is defined; NaN if it is defined nowhere."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def defined_labels(values: Iterable[float]) -> int:
    """Over how many findings `macro` takes its mean."""
    return sum(not np.isnan(value) for value in values)
