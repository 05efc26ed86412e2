"""Metrics with their uncertainty: of each finding and as a mean over the findings, with intervals over patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr_core.area_intervals import Support, area_intervals
from cxr_core.bootstrap import Interval, bootstrap, macro_samples, paired_difference, percentile_interval
from cxr_core.confusion import RATIOS, count
from cxr_core.metrics import EPOCH_METRICS, defined_labels, macro, per_label
from cxr_core.roc import Array


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric on some films, with 95 % intervals over other patients.

    of_label: (C,), NaN where undefined. interval: of each finding. mean: over the `labels` findings where it is
    defined, with its interval. samples: (R, C), what each resample gave. support: of areas under curves.
    """

    of_label: Array
    interval: Interval
    mean: float
    mean_interval: Interval
    labels: int
    samples: Array
    support: Support | None

    @classmethod
    def of(cls, values: Sequence[float], samples: Array, support: Support | None = None) -> "Estimate":
        """From the metric of each finding on the films themselves, and on each resample of them.

        Intervals are `area_intervals` of an area, which has a support, and percentiles of all else.
        """
        of_label = np.asarray(values, np.float64)
        if support is None:
            intervals = percentile_interval(samples), percentile_interval(macro_samples(samples))
        else:
            intervals = area_intervals(of_label, samples, support)
        return cls(of_label, intervals[0], macro(values), intervals[1], defined_labels(values), samples, support)

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference to another one of the same films, drawn with the same seed: of paired resamples.

        Its mean is over the findings that are defined for both.
        """
        pair = np.stack([self.samples, other.samples], axis=1)
        return Estimate.of((self.of_label - other.of_label).tolist(), paired_difference(pair, 0, 1))

    def where(self, other: "Estimate") -> "Estimate":
        """The same over the findings that the other one is defined for, so that two means are of the same ones."""
        lacking = np.isnan(other.of_label)
        values = np.where(lacking, np.nan, self.of_label)
        return Estimate.of(values.tolist(), np.where(lacking, np.nan, self.samples), self.support)


def estimate(
    targets: Array,
    scores: Array,
    patients: Sequence[object] | NDArray,
    metrics: Sequence[str],
    *,
    thresholds: Array | float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each metric by its name, of EPOCH_METRICS or RATIOS; targets, scores: (N, C), patients: (N,).

    thresholds: of the calls, (C,) or one for all. ValueError as `bootstrap`.
    """
    samples = bootstrap(targets, scores, patients, metrics, thresholds=thresholds, resamples=resamples, seed=seed)
    counts = count(targets, scores, thresholds)
    return {
        name: Estimate.of(_values(name, targets, scores, counts), samples[name], Support.of(name, targets, patients))
        for name in metrics
    }


def _values(name: str, targets: Array, scores: Array, counts: object) -> Sequence[float]:
    if name in RATIOS:
        return [float(value) for value in np.atleast_1d(getattr(counts, name))]
    return per_label(EPOCH_METRICS[name], targets, scores)


def why_undefined(metric: str, targets: Array, threshold: float, called: int | None = None) -> str:
    """Why a metric of one finding is NaN on some films, in words; targets: (N,), threshold: of its calls.

    called: films that are called, for the ratios of calls.
    """
    known = targets[~np.isnan(targets)]
    positives, films = int((known == 1).sum()), len(known)
    reasons: Mapping[str, bool] = {
        "no film is labelled": not films,
        "no threshold could be fitted on validation": metric in RATIOS and np.isnan(threshold),
        "no film has it": metric in _NEEDS_POSITIVES and not positives,
        "every film has it": metric in _NEEDS_NEGATIVES and positives == films,
        "nothing is called": metric == "precision" and called == 0,
        "everything is called": metric == "npv" and called == films,
    }
    return next((reason for reason, holds in reasons.items() if holds), "a score is not a number")


_NEEDS_POSITIVES = ("auroc_macro", "auprc_macro", "sensitivity", "balanced_accuracy", "bcr")
_NEEDS_NEGATIVES = ("auroc_macro", "specificity", "balanced_accuracy")
