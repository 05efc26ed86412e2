"""Metrics as pure functions of whole arrays: NaN in the targets is "not labelled", NaN out is "undefined"."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def auroc(targets: Array, scores: Array) -> float:
    """Area under the ROC curve of one finding, ties counted half (Mann & Whitney 1947).

    targets, scores: (N,). NaN if, among the labelled films, all are positive or all are negative.
    """
    targets, scores = _labelled(targets, scores)
    positives = int(targets.sum())
    negatives = len(targets) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, tied = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(tied) - (tied - 1) / 2)[place]  # of equal scores, each has their mean rank
    above = rank[targets == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(targets: Array, scores: Array) -> float:
    """Area under the precision-recall curve of one finding, as a step function; NaN without positives."""
    targets, scores = _labelled(targets, scores)
    if not targets.sum():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order])
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    precision = (hits / np.arange(1, len(hits) + 1))[last_of_tie]
    recall_gained = np.diff(hits[last_of_tie], prepend=0) / hits[-1]
    return float((precision * recall_gained).sum())


def accuracy(targets: Array, scores: Array) -> float:
    """Share of labelled films on the right side of 0.5; NaN if none is labelled."""
    targets, scores = _labelled(targets, scores)
    return float(((scores >= 0.5) == (targets == 1)).mean()) if len(targets) else float("nan")


def log_loss(targets: Array, scores: Array) -> float:
    """Mean negative log-likelihood of the labelled films, in nats, with scores kept 1e-7 away from 0 and 1."""
    targets, scores = _labelled(targets, scores)
    if not len(targets):
        return float("nan")
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())


def _labelled(targets: Array, scores: Array) -> tuple[Array, Array]:
    labelled = ~np.isnan(targets)
    return targets[labelled].astype(np.float64), scores[labelled].astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric that can be an objective: its mean over the findings where it is defined."""

    of_label: Callable[[Array, Array], float]
    direction: str
    multilabel: bool = True


OBJECTIVES: dict[str, Metric] = {
    "auroc_macro": Metric(auroc, "maximize"),
    "auprc_macro": Metric(average_precision, "maximize"),
    "log_loss": Metric(log_loss, "minimize"),
    # Calling every film healthy is right in 92 % of entries of ChestX-ray14: no objective for several findings.
    "accuracy": Metric(accuracy, "maximize", multilabel=False),
}
"""Metrics by name, with the direction in which they improve."""


def per_label(metric: Metric, targets: Array, scores: Array) -> list[float]:
    """The metric of each finding; targets, scores: (N, C)."""
    return [metric.of_label(targets[:, c], scores[:, c]) for c in range(targets.shape[1])]


def macro(values: list[float]) -> float:
    """Unweighted mean over the findings where a metric is defined; NaN if it is defined nowhere."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
