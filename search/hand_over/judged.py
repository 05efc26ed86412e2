"""What a training reaches on a split: metrics of each finding with their intervals, or why they are undefined."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cxr_core.bootstrap import bootstrap, macro_samples, percentile_interval
from cxr_core.confusion import count
from cxr_core.metrics import EPOCH_METRICS, defined_labels, macro, per_label
from search.finals.verdict import Scored

Array = NDArray[np.floating]

METRICS = {
    "auroc_macro": "AUROC",
    "auprc_macro": "AUPRC",
    "brier": "Brier score",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
"""What is told, by the names of EPOCH_METRICS, and how a reader knows it; the last two are of calls at a threshold."""
_OF_CALLS = ("sensitivity", "specificity")
_OF_BOTH = ("auroc_macro", "specificity")
"""Metrics that need films without the finding."""
_OF_POSITIVES = ("auroc_macro", "auprc_macro", "sensitivity")


def rows(split: Scored, labels: Sequence[str], thresholds: Array) -> Iterator[tuple[str, ...]]:
    """The finding, its films, and each of METRICS; of several findings a last row of their means.

    split: of one training. thresholds: (C,), NaN where none could be fitted. Intervals are 95 % of 2,000 resamples of
    the patients.
    """
    ((scores,),) = split.scores.values()
    samples = bootstrap(split.targets, scores, split.patients, tuple(METRICS), thresholds=thresholds)
    values = {name: _values(name, split.targets, scores, thresholds) for name in METRICS}
    for c, label in enumerate(labels):
        column = split.targets[:, c]
        positives, labelled = int((column == 1).sum()), int((~np.isnan(column)).sum())
        cells = [
            _in_words(values[name][c], samples[name][:, c], _why(name, positives, labelled, thresholds[c]))
            for name in METRICS
        ]
        yield label, f"{positives:,} of {labelled:,}", *cells
    if len(labels) > 1:
        yield "mean", "", *(_mean(values[name], samples[name]) for name in METRICS)


def _values(name: str, targets: Array, scores: Array, thresholds: Array) -> list[float]:
    if name in _OF_CALLS:
        of_label: list[float] = getattr(count(targets, scores, thresholds), name).tolist()
        return of_label
    return per_label(EPOCH_METRICS[name], targets, scores)


def _in_words(value: float, samples: Array, why: str) -> str:
    if math.isnan(value):
        return f"undefined: {why}"
    interval = percentile_interval(samples)
    if not interval.defined:
        return f"{value:.3f}"
    return f"{value:.3f} [{float(interval.low):.3f}, {float(interval.high):.3f}]"


def _mean(values: Sequence[float], samples: Array) -> str:
    defined = defined_labels(values)
    over = f" over {defined} of {len(values)}" if 0 < defined < len(values) else ""
    return _in_words(macro(values), macro_samples(samples), "for every finding") + over


def _why(name: str, positives: int, labelled: int, threshold: float) -> str:
    """Why a metric is undefined, if it is."""
    if not labelled:
        return "no film is labelled"
    if name in _OF_POSITIVES and not positives:
        return "no film has it"
    if name in _OF_BOTH and positives == labelled:
        return "every film has it"
    return "no threshold could be fitted" if math.isnan(threshold) else "scores are not finite"
