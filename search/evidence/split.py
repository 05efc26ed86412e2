"""Judged films: what is known of them, what a network makes of them, and how a metric of it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_core.bootstrap import Interval, percentile_interval, sensitivity_samples
from cxr_core.confusion import RATIOS, called
from cxr_core.estimates import Estimate, estimate, why_undefined

Array = NDArray[np.floating]

RESAMPLES = 2000
_RATES = np.linspace(0, 1, 101)
"""False positive rates of a ROC curve's band."""
_FEWEST = 5
"""Patients with a finding, or without it, below which an interval over patients would pretend to know something."""
_FEW = f"fewer than {_FEWEST} patients"
_CONSTANT = "the same in all resamples"


@dataclass(frozen=True, eq=False)
class Split:
    """Films, (N,) rows of patient, labels and what else is known, and a network's scores of them, (N, C).

    resamples: of the patients, for intervals.
    """

    films: pd.DataFrame
    scores: Array
    labels: tuple[str, ...]
    resamples: int = RESAMPLES

    @cached_property
    def targets(self) -> Array:
        """(N, C) in {0, 1, NaN}."""
        return self.films[list(self.labels)].to_numpy(np.float64)

    @cached_property
    def patients(self) -> NDArray:
        """(N,), equal for films of one patient."""
        return self.films["patient"].to_numpy()

    def part(self, members: NDArray[np.bool_]) -> "Split":
        """Some of the films."""
        return replace(self, films=self.films[members], scores=self.scores[members])

    def scored(self, scores: Array) -> "Split":
        """The same films with other scores."""
        return replace(self, scores=scores)

    def estimate(self, metrics: Sequence[str], thresholds: Array | float = 0.5) -> dict[str, Estimate]:
        """Metrics by name, with intervals over patients."""
        known = self.targets, self.scores, self.patients
        return estimate(*known, metrics, thresholds=thresholds, resamples=self.resamples)

    def count(self) -> dict[str, int]:
        """Films and patients."""
        return {"films": len(self.films), "patients": int(self.films["patient"].nunique())}

    def positives(self) -> dict[str, int]:
        """Films with each finding."""
        return dict(zip(self.labels, (self.targets == 1).sum(axis=0).tolist(), strict=True))

    def tell(self, metric: str, estimate: Estimate, thresholds: Array | None = None) -> dict[str, Any]:
        """A metric as the record has it: `mean` over `labels` findings, and of each; `value`, `low`, `high`, and `why`
        one is undefined. An interval is told only of findings that some patients have and some have not, and not
        where every resample gave the same: that nothing varied does not mean that nothing would.
        """
        of_label = {}
        for c, label in enumerate(self.labels):
            told = _interval(estimate.of_label[c], estimate.interval, c)
            threshold = float("nan") if thresholds is None else float(thresholds[c])
            if np.isnan(told["value"]):
                told["why"] = self._why(metric, c, threshold)
            elif self._rests_on_few(metric, c) or told["low"] == told["high"]:
                why = _FEW if self._rests_on_few(metric, c) else _CONSTANT
                told |= {"low": float("nan"), "high": float("nan"), "why": why}
            of_label[label] = told
        mean = {"value": estimate.mean, "labels": estimate.labels}
        interval = estimate.mean_interval
        known = any(told["low"] is not None and not np.isnan(told["low"]) for told in of_label.values())
        bounds = (float(interval.low), float(interval.high)) if known else (float("nan"), float("nan"))
        return {"mean": {**mean, "low": bounds[0], "high": bounds[1]}, "labels": of_label}

    def roc_band(self, label: int) -> dict[str, Array]:
        """Between which sensitivities the ROC curve of a finding lies at each false positive rate, 95 % at each rate;
        empty where `tell` would give the area no interval for want of patients.
        """
        if self._rests_on_few("auroc_macro", label):
            return {name: np.empty(0) for name in ("fpr", "low", "high")}
        known = self.targets[:, label], self.scores[:, label], self.patients
        interval = percentile_interval(sensitivity_samples(*known, _RATES, resamples=self.resamples))
        return {"fpr": _RATES, "low": interval.low, "high": interval.high}

    def _why(self, metric: str, label: int, threshold: float) -> str:
        calls = None
        if metric in RATIOS:
            known = ~np.isnan(self.targets[:, label])
            calls = int(called(self.scores[known, label], threshold).sum())
        return why_undefined(metric, self.targets[:, label], threshold, calls)

    def _rests_on_few(self, metric: str, label: int) -> bool:
        having, lacking = ({*self.patients[self.targets[:, label] == kind]} for kind in (1, 0))
        asked = {"sensitivity": (having,), "specificity": (lacking,)}.get(metric, (having, lacking))
        return any(len(patients) < _FEWEST for patients in asked)


def of_each(labels: Sequence[str], tell: Callable[[int], Any]) -> dict[str, Any]:
    """Something told of each finding by its place, by its name."""
    return {label: tell(c) for c, label in enumerate(labels)}


def _interval(value: float, interval: Interval, label: int) -> dict[str, Any]:
    return {"value": float(value), "low": float(interval.low[label]), "high": float(interval.high[label])}
