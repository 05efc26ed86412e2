"""A table of finished trainings: configurations with their learning curves, to replay searches on."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from cxr_core.domains import Branches, Domain, Interval, OneOf
from cxr_core.located_yaml import SpaceError
from cxr_core.registry import Scalar

_LOG_SPAN = 30.0
"""Ratio of the largest to the smallest value of a column from which it is taken to have been drawn on a log scale."""
_FEW = 8
"""Different values up to which a column of whole numbers is a choice and not a range."""
_NOT_PARAMETERS = {"learning_curve", "iteration", "nan_train_loss"}


class TableError(Exception):
    """A table of learning curves cannot be read; the message says where and why."""


@dataclass(frozen=True)
class Curve:
    """One training: its configuration, and after each epoch the metric and the seconds that the epoch took.

    Shorter than its schedule, `flat["epochs"]`, it diverged in the epoch that would have been next.
    """

    flat: dict[str, Scalar]
    values: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def schedule(self) -> int:
        return int(self.flat["epochs"])  # type: ignore[arg-type]

    @property
    def diverged(self) -> bool:
        return len(self.values) < self.schedule


@dataclass(frozen=True)
class CurveTable:
    """Trainings of one space, all in full but those that diverged."""

    name: str
    metric: str
    maximize: bool
    curves: tuple[Curve, ...]
    domains: dict[str, Domain]

    @property
    def finals(self) -> np.ndarray:
        """Each training's last value, (N,); diverged ones are infinitely bad."""
        worst = -np.inf if self.maximize else np.inf
        return np.array([worst if curve.diverged else curve.values[-1] for curve in self.curves])

    def best(self, share: float) -> float:
        """The value that a training must reach to be among the best share of the table; at least one does."""
        ordered = sorted(self.finals, reverse=self.maximize)
        return float(ordered[max(1, int(share * len(ordered))) - 1])

    @property
    def mean_seconds(self) -> float:
        """What a full training takes on average."""
        return fmean(sum(curve.seconds) for curve in self.curves if not curve.diverged)

    @property
    def epoch_seconds(self) -> float:
        """What an epoch takes on average; a training that diverged in its first one is taken to have cost that."""
        return fmean(seconds for curve in self.curves for seconds in curve.seconds)


def read_table(path: Path, metric: str) -> CurveTable:
    """Read a table: a line a training, a JSON object with its parameters, `epochs`, and `learning_curve`.

    The curve is a list of objects with `epoch`, `time` (seconds since the start) and the metric; it ends early where
    the training diverged. Raises TableError, naming the line.
    """
    curves = []
    for number, line in enumerate(_lines(path), 1):
        try:
            curves.append(_curve(json.loads(line), metric))
        except (ValueError, KeyError, TypeError) as fault:
            what = f"has no {fault}" if isinstance(fault, KeyError) else str(fault)
            raise TableError(f"{path}:{number}: {what}") from None
    return _table(path.stem, metric, not metric.endswith("loss"), curves, {}, path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise TableError(f"{path}: cannot be read ({fault}); name a table (JSON lines) or a study's folder") from None


def _curve(row: dict[str, Any], metric: str) -> Curve:
    points = row["learning_curve"]
    missing = [point["epoch"] for point in points if metric not in point]
    if missing:
        known = ", ".join(sorted(set(points[0]) - {"epoch", "time"}))
        raise ValueError(f"epoch {missing[0]} has no {metric!r}; choose --metric from {known}")
    times = [0.0, *(float(point["time"]) for point in points)]
    flat = {key: value for key, value in row.items() if key not in _NOT_PARAMETERS}
    if len(points) > int(flat["epochs"]):
        raise ValueError(f"{len(points)} epochs of a schedule of {flat['epochs']}")
    seconds = tuple(after - before for before, after in pairwise(times))
    return Curve(flat, tuple(float(point[metric]) for point in points), seconds)


def table_of_study(folder: Path) -> CurveTable:
    """The trainings of a study of our own that were not cut short: in full, or diverged. Raises TableError."""
    from search.space import load_space
    from search.study import Study, StudyError
    from search.trial import Outcome

    try:
        study, space = Study(folder), load_space(folder / "space.yaml")
    except (StudyError, SpaceError) as fault:
        raise TableError(str(fault)) from None
    ended = [t for t in study.trials() if t.searched and t.outcome in (Outcome.FULL, Outcome.DIVERGED)]
    curves = [Curve(t.flat, tuple(e.value for e in t.epochs), tuple(e.seconds for e in t.epochs)) for t in ended]
    metric, maximize = study.objective.metrics[0], study.objective.maximize[0]
    return _table(study.name, metric, maximize, curves, space.domains, folder)


def _table(
    name: str, metric: str, maximize: bool, curves: Sequence[Curve], domains: Mapping[str, Domain], path: Path
) -> CurveTable:
    if sum(not curve.diverged for curve in curves) < 2:
        raise TableError(f"{path}: holds fewer than two trainings in full: there is nothing to search")
    return CurveTable(name, metric, maximize, tuple(curves), dict(domains) or _domains(curves))


def _domains(curves: Sequence[Curve]) -> dict[str, Domain]:
    """Ranges and choices that a table's columns seem to have been drawn from."""
    return {key: _domain([curve.flat[key] for curve in curves]) for key in curves[0].flat}


def _domain(column: Sequence[Scalar]) -> Domain:
    values = sorted(set(column), key=lambda value: (str(type(value)), value))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    whole = all(isinstance(value, int) for value in numbers)
    if len(numbers) < len(values) or (whole and len(values) <= _FEW):
        return OneOf(tuple(values))
    low, high = float(numbers[0]), float(numbers[-1])
    return Interval(low, high, log=low > 0 and high / low > _LOG_SPAN, whole=whole)


class Neighbours:
    """Finds the training nearest to a configuration among those not taken yet.

    Each number counts by its place in its range (logarithmic ranges on that scale), each choice as 0 or 1; what only
    one of two configurations has counts as 1.
    """

    def __init__(self, table: CurveTable):
        self._ranges = dict(_ranges(table.domains))
        self._names = sorted({name for curve in table.curves for name in curve.flat})
        self._codes: dict[Scalar, float] = {}
        self._rows = np.array([self._row(curve.flat) for curve in table.curves])
        self._numeric = np.array([name in self._ranges for name in self._names])

    def _row(self, flat: Mapping[str, Scalar]) -> list[float]:
        return [self._coordinate(name, flat[name]) if name in flat else math.nan for name in self._names]

    def _coordinate(self, name: str, value: Scalar) -> float:
        interval = self._ranges.get(name)
        if interval is None:
            return self._codes.setdefault(value, float(len(self._codes)))
        scale = math.log if interval.log else float
        low, high = scale(interval.low), scale(interval.high)
        return (scale(float(value)) - low) / ((high - low) or 1.0)  # type: ignore[arg-type]

    def nearest(self, flat: Mapping[str, Scalar], free: np.ndarray) -> int:
        """The index of the nearest training; free: (N,) bool, at least one of them true."""
        row = np.array(self._row(flat))
        apart = np.abs(self._rows - row)
        apart[:, ~self._numeric] = apart[:, ~self._numeric] != 0
        absent = np.isnan(self._rows) != np.isnan(row)
        apart = np.where(absent, 1.0, np.nan_to_num(apart, nan=0.0))
        return int(np.argmin(np.where(free, (apart**2).sum(axis=1), np.inf)))


def _ranges(domains: Mapping[str, Domain], prefix: str = "") -> list[tuple[str, Interval]]:
    found = []
    for key, domain in domains.items():
        if isinstance(domain, Interval):
            found.append((prefix + key, domain))
        elif isinstance(domain, Branches):
            for branch, below in domain.branches.items():
                found += _ranges(below, f"{prefix}{key}.{branch}.")
    return found
