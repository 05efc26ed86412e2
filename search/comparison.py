"""Policies side by side: what each would have cost, with the spread over simulated searches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.curve_table import CurveTable
from search.simulation import Trajectory

HORIZONS = (5, 10, 25)
"""Times at which regret is told, in mean training times."""
TOP1, TOP2 = 0.01, 0.02
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure of all searches of a policy, with the 95 % interval of a bootstrap over seeds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """What a policy would have cost, against random search.

    Speed-ups are ratios of median times until a full training is among the best 1 or 2 % of the table; a search that
    never gets there counts as infinitely slow. Missed: the share of such searches. regret: by mean training times, how
    far the best full training so far is behind the table's best, in the metric's unit; infinite if there is none yet.
    """

    policy: str
    searches: int
    top1_speedup: Estimate
    top2_speedup: Estimate
    top1_missed: float
    top2_missed: float
    regret: dict[int, Estimate]


class Comparison:
    """The searches of several policies on one table; the first policy is the one that others are measured by."""

    def __init__(self, table: CurveTable, found: Mapping[str, Sequence[Trajectory]]):
        self.table, self.found, self.policies = table, found, tuple(found)
        self.times = {share: self._times(found, table.best(share)) for share in (TOP1, TOP2)}
        self._regrets = {name: self.regret(trajectories, HORIZONS) for name, trajectories in found.items()}

    def _times(self, found: Mapping[str, Sequence[Trajectory]], value: float) -> dict[str, np.ndarray]:
        maximize = self.table.maximize
        return {name: np.array([one.reaches(value, maximize) for one in some]) for name, some in found.items()}

    def regret(self, trajectories: Sequence[Trajectory], at: Sequence[float] | np.ndarray) -> np.ndarray:
        """How far each search is behind the table's best, (searches, times); at: in mean training times."""
        seconds = np.array(at) * self.table.mean_seconds
        best, sign = self.table.best(0), 1.0 if self.table.maximize else -1.0
        rows = []
        for one in trajectories:
            gaps = np.minimum.accumulate(np.array([np.inf, *(sign * (best - value) for value in one.values)]))
            rows.append(gaps[np.searchsorted(np.array(one.seconds), seconds, side="right")])
        return np.array(rows)

    def rows(self) -> list[Row]:
        """One a policy."""
        return [self._row(name) for name in self.policies]

    def _row(self, name: str) -> Row:
        missed = {share: float(np.isinf(self.times[share][name]).mean()) for share in (TOP1, TOP2)}
        regret = {at: _median(self._regrets[name][:, place]) for place, at in enumerate(HORIZONS)}
        one, two = self.speedup(name, TOP1), self.speedup(name, TOP2)
        return Row(name, len(self.times[TOP1][name]), one, two, missed[TOP1], missed[TOP2], regret)

    def speedup(self, name: str, share: float, over: str | None = None) -> Estimate:
        """How many times sooner a policy reaches the best share of the table than another one, in the median."""
        other = over or self.policies[0]
        if name == other:
            return Estimate(1.0, 1.0, 1.0)
        mine, theirs = self.times[share][name], self.times[share][other]
        with np.errstate(invalid="ignore"):  # where most searches of both miss it the ratio is undefined, NaN
            ratios = _resampled(theirs, 1) / _resampled(mine, 0)
            return Estimate(float(np.median(theirs) / np.median(mine)), *_interval(ratios))


def _median(values: np.ndarray) -> Estimate:
    return Estimate(float(np.median(values)), *_interval(_resampled(values, 0)))


def _resampled(values: np.ndarray, seed: int) -> np.ndarray:
    """Medians of resamples."""
    draws = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    return np.asarray(np.median(values[draws], axis=1))


def _interval(values: np.ndarray) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    # Order statistics, as infinite values cannot be interpolated.
    low, high = np.quantile(defined, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)
