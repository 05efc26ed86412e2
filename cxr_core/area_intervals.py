"""Intervals of areas under curves (AUROC, AUPRC), of each finding and of their mean, from a bootstrap of the patients.

They are normal on the logit scale (AUROC: Qin & Hotilovac 2008, Stat. Methods Med. Res. 17:207; AUPRC: Boyd et al.
2013, ECML PKDD, sec. 4). Percentiles of the resamples lie too high where few patients have a finding or its area is
near 1: no resample holds a patient who is harder than those at hand. The spread of the resamples is too small besides,
as its square is n - 1 in n of what n patients should give (Hesterberg 2015, The American Statistician 69:371), and of
one patient it is nothing. `benchmarks/interval_coverage.md` has how often the intervals hold the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from cxr_core.bootstrap import Interval, divide, macro_samples
from cxr_core.metrics import macro
from cxr_core.roc import Array


@dataclass(frozen=True, eq=False)
class Support:
    """What areas rest on. patients: (C,) with a finding or without it, whichever are fewer.

    steps: (C,) by how much a perfect area falls when the last positive film and the first negative change places, NaN
    where the area is undefined.
    """

    patients: NDArray[np.int64]
    steps: Array

    @classmethod
    def of(cls, metric: str, targets: Array, patients: Sequence[object] | NDArray) -> "Support | None":
        """targets: (N, C), patients: (N,); None for a metric that is no area under a curve."""
        films = [(targets == kind).sum(axis=0) for kind in (1, 0)]
        pairs = {"auroc_macro": films[0] * films[1], "auprc_macro": films[0] * (films[0] + 1)}
        if metric not in pairs:
            return None
        names = np.unique(np.asarray(patients), return_inverse=True)[1]
        of_kind = [[len(np.unique(names[column == kind])) for column in targets.T] for kind in (1, 0)]
        return cls(np.min(of_kind, axis=0), divide(np.ones(targets.shape[1]), pairs[metric]))


def area_intervals(values: Array, samples: Array, support: Support, level: float = 0.95) -> tuple[Interval, Interval]:
    """Of each finding, and of their mean over the findings that are defined.

    values: (C,) on the films themselves. samples: (R, C). On the logit scale an area stays half a step away from 0 and
    1. In a resample without a finding the mean takes its value: the mean of the others is that of another question. A
    patient who alone has a finding, or alone lacks it, adds to the mean's variance what one patient of the other
    findings does (their median), and has no interval by himself. Where all resamples gave the same, both bounds are the
    value; NaN where there is no interval.
    """
    known, n = ~np.isnan(values), support.patients
    variance, widened = _variance(samples), divide(n, n - 1)
    several = known & (n > 1)
    lone = np.median((variance * widened * n)[several]) if several.any() else np.nan
    lacking = np.select([n > 1, n == 1], [variance * (widened - 1), lone - variance])  # none where all have a finding
    in_mean = np.maximum(lacking[known], 0).sum() / max(known.sum(), 1) ** 2

    filled = np.where(np.isnan(samples), values, samples)
    means = macro_samples(filled)
    middle, edge = (np.asarray(macro(of[known])) for of in (values, support.steps / 2))
    unmoved = known & (filled == values).all(axis=0)
    return (
        _interval(values, samples, support.steps / 2, widened, unmoved, level),
        _interval(middle, means, edge, 1 + divide(np.asarray(in_mean), _variance(means)), unmoved[known].all(), level),
    )


def _interval(
    values: Array, samples: Array, edge: Array, widened: Array, unmoved: NDArray[np.bool_] | np.bool_, level: float
) -> Interval:
    """edge: how near 0 and 1 areas may be. widened: by how much the variance of the resamples is too small."""
    edge = np.minimum(edge, 0.5)
    middle, drawn = (logit(np.clip(areas, edge, 1 - edge)) for areas in (values, samples))
    reach = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(widened * _variance(drawn))
    low, high = (np.where(unmoved, values, expit(bound)) for bound in (middle - reach, middle + reach))
    return Interval(low, high, np.asarray((~np.isnan(samples)).sum(axis=0)))


def _variance(samples: Array) -> Array:
    """Of the defined resamples, the first axis; NaN of fewer than two."""
    known = ~np.isnan(samples)
    count = known.sum(axis=0)
    mean = divide(np.where(known, samples, 0).sum(axis=0), count)
    return divide(np.square(np.where(known, samples - mean, 0)).sum(axis=0), count - 1)
