"""A table of finished trainings: configurations with their learning curves, to replay searches on."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cxr_core.domains import Domain, Interval, OneOf, flat_domains
from cxr_core.located_yaml import SpaceError, did_you_mean
from cxr_core.metrics import EPOCH_METRICS
from cxr_core.registry import Scalar

if TYPE_CHECKING:
    from search.trial import Trial

_LOG_SPAN = 30.0
"""Ratio of the largest to the smallest value of a column from which it is taken to have been drawn on a log scale."""
_FEW = 8
"""Different values up to which a column of whole numbers is a choice and not a range."""
_NOT_PARAMETERS = {"learning_curve", "iteration", "nan_train_loss"}
_NOT_METRICS = {"epoch", "time"}


_T = TypeVar("_T")


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
    """Trainings of one space, all in full but those that diverged.

    cut_short: trainings of the study that were left out, as a search had pruned them. repeated: those left out because
    another one has the same configuration.
    """

    name: str
    metric: str
    maximize: bool
    curves: tuple[Curve, ...]
    domains: dict[str, Domain]
    cut_short: int = 0
    repeated: int = 0

    @cached_property
    def finals(self) -> np.ndarray:
        """Each training's last value, (N,); diverged ones are infinitely bad."""
        worst = -np.inf if self.maximize else np.inf
        return np.array([worst if curve.diverged else curve.values[-1] for curve in self.curves])

    def best(self, share: float) -> float:
        """The value that a training must reach to be among the best share of the table; at least one does."""
        ordered = sorted(self.finals, reverse=self.maximize)
        return float(ordered[max(1, int(share * len(ordered))) - 1])

    @cached_property
    def mean_seconds(self) -> float:
        """What a full training takes on average."""
        return fmean(sum(curve.seconds) for curve in self.curves if not curve.diverged)

    @cached_property
    def epoch_seconds(self) -> float:
        """What an epoch takes on average; a training that diverged in its first one is taken to have cost that."""
        return fmean(seconds for curve in self.curves for seconds in curve.seconds)


def read_table(path: Path, metric: str | None = None) -> CurveTable:
    """Read a table: a line a training, a JSON object with its parameters, `epochs`, and `learning_curve`.

    The curve is a list of objects with `epoch`, `time` (seconds since the start) and metrics; it ends early where the
    training diverged. metric: by default the first that is no loss. A space file of the same name beside the table
    (NAME.yaml) says what was searched; without one, ranges are taken from the columns. Raises TableError, naming the
    line.
    """
    lines = _lines(path)
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1)]
    metric = metric or _first_metric(rows)
    curves = [_located(path, number, partial(_curve, row, metric)) for number, row in enumerate(rows, 1)]
    domains = _domains_beside(path) or _domains(curves)
    return _table(path.stem, metric, direction_of(metric), curves, domains, path)


def direction_of(metric: str) -> bool:
    """Whether a metric, of ours or another's, is better when it is large."""
    if metric in EPOCH_METRICS:
        return EPOCH_METRICS[metric].direction == "maximize"
    return not metric.endswith(("loss", "error", "perplexity"))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is no text"
        raise TableError(f"{path}: cannot be read ({why}); name a table (JSON lines) or a study") from None
    if not lines:
        raise TableError(f"{path}: is empty; a table has a JSON object a line, one a training")
    return lines


def _located(path: Path, number: int, read: Callable[[], _T]) -> _T:
    """What is read from a line of a table; whatever is wrong with it, the message names the line."""
    try:
        return read()
    except (ValueError, TypeError, KeyError) as fault:
        raise TableError(f"{path}:{number}: {f'has no {fault}' if isinstance(fault, KeyError) else fault}") from None


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    row = _located(path, number, partial(json.loads, line))
    if not isinstance(row, dict):
        raise TableError(f"{path}:{number}: is no JSON object")
    for key, kind, what in (("learning_curve", list, "list of epochs"), ("epochs", int, "whole number, its schedule")):
        if not isinstance(row.get(key), kind):
            raise TableError(f"{path}:{number}: {key}: must be there, a {what}")
    return row


def _first_metric(rows: Sequence[dict[str, Any]]) -> str:
    """The first column of the first curve that is no loss, or else the first."""
    first: dict[str, Any] = next((row["learning_curve"][0] for row in rows if row["learning_curve"]), {})
    metrics = [key for key in first if key not in _NOT_METRICS]
    return next((key for key in metrics if not key.endswith("loss")), metrics[0] if metrics else "")


def _curve(row: dict[str, Any], metric: str) -> Curve:
    points = row["learning_curve"]
    missing = [point["epoch"] for point in points if metric not in point]
    if missing:
        known = sorted(set(points[0]) - _NOT_METRICS)
        raise ValueError(f"epoch {missing[0]} has no {metric!r}; {did_you_mean(metric, known)} (--metric)")
    values = [float(point[metric]) for point in points]
    flat = {key: value for key, value in row.items() if key not in _NOT_PARAMETERS}
    if len(points) > row["epochs"]:
        raise ValueError(f"{len(points)} epochs of a schedule of {row['epochs']}")
    if odd := [key for key, value in flat.items() if not isinstance(value, Scalar)]:
        raise ValueError(f"{odd[0]}: must be a number, a text, true or false")
    seconds = [after - before for before, after in pairwise([0.0, *(float(point["time"]) for point in points)])]
    if wrong := [point["epoch"] for point, spent in zip(points, seconds, strict=True) if not 0 < spent < math.inf]:
        raise ValueError(f"epoch {wrong[0]}: time must rise from epoch to epoch (seconds since the training's start)")
    # From the first value that is none on, the training had diverged, whatever was recorded after it.
    finite = next((place for place, value in enumerate(values) if not math.isfinite(value)), len(values))
    return Curve(flat, tuple(values[:finite]), tuple(seconds))


def _domains_beside(path: Path) -> dict[str, Domain]:
    from search.space import load_space

    beside = path.with_suffix(".yaml")
    if not beside.exists():
        return {}
    try:
        return load_space(beside).domains
    except SpaceError as mistakes:
        raise TableError(str(mistakes)) from None


def table_of_study(folder: Path, metric: str | None = None) -> CurveTable:
    """The trainings of a study of our own that were not cut short: in full, or diverged. Raises TableError."""
    from search.space import load_space
    from search.study import Study, StudyError
    from search.trial import Outcome

    try:
        study, space = Study(folder), load_space(folder / "space.yaml")
    except (StudyError, SpaceError) as fault:
        raise TableError(str(fault)) from None
    if space.header.asha.fidelity != "schedule":
        raise TableError(f"{folder}: its trials were trained at several sizes (asha.fidelity): that cannot be replayed")
    if (objective := space.header.objective).folds_of_a_trial > 1:
        raise TableError(
            f"{folder}: its trials were trained on several folds ({objective.metric}): no replay knows these"
        )
    searched = [trial for trial in study.trials() if trial.searched]
    ended = [trial for trial in searched if trial.outcome in (Outcome.FULL, Outcome.DIVERGED)]
    metric = metric or study.objective.metrics[0]
    curves = [_curve_of_trial(folder, trial, metric) for trial in ended]
    return _table(study.name, metric, direction_of(metric), curves, space.domains, folder, len(searched) - len(ended))


def _curve_of_trial(folder: Path, trial: "Trial", metric: str) -> Curve:
    """A trial's curve; a metric that was undefined in some epoch cannot be searched."""
    values = [epoch.metrics.get(metric) for epoch in trial.epochs]
    if None in values:
        known = did_you_mean(metric, trial.epochs[0].metrics)
        raise TableError(f"{folder}: trial {trial.number}: epoch {values.index(None) + 1} has no {metric!r}; {known}")
    return Curve(trial.flat, tuple(map(float, values)), tuple(epoch.seconds for epoch in trial.epochs))  # type: ignore[arg-type]


def _table(
    name: str,
    metric: str,
    maximize: bool,
    curves: Sequence[Curve],
    domains: Mapping[str, Domain],
    path: Path,
    cut_short: int = 0,
) -> CurveTable:
    # A search trains nothing twice, so of a configuration's repetitions only the first could be reached.
    unique = tuple({tuple(sorted(curve.flat.items())): curve for curve in reversed(curves)}.values())[::-1]
    if sum(not curve.diverged for curve in unique) < 2:
        why = f" ({cut_short} were cut short)" if cut_short else ""
        raise TableError(f"{path}: holds fewer than two trainings in full{why}: there is nothing to search. {RECORD}")
    return CurveTable(name, metric, maximize, unique, dict(domains), cut_short, len(curves) - len(unique))


RECORD = (
    "To record a table worth replaying: "
    "python -m search.run --space FILE --set asha.mode=none --set searcher.name=random"
)
"""What makes a study whose every trial was trained in full, and drawn without looking at the others."""


def _domains(curves: Sequence[Curve]) -> dict[str, Domain]:
    """Ranges and choices that the columns seem to have been drawn from; of columns that every training has."""
    shared = [key for key in curves[0].flat if all(key in curve.flat for curve in curves)]
    return {key: _domain([curve.flat[key] for curve in curves]) for key in shared}


def _domain(column: Sequence[Scalar]) -> Domain:
    values = sorted(set(column), key=lambda value: (str(type(value)), value))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    whole = all(isinstance(value, int) for value in numbers)
    if len(numbers) < len(values) or (whole and len(values) <= _FEW):
        return OneOf(tuple(values))
    low, high = float(min(numbers)), float(max(numbers))
    return Interval(low, high, log=low > 0 and high / low > _LOG_SPAN, whole=whole)


class Neighbours:
    """Finds the training nearest to a configuration among those not taken yet.

    Each number counts by its place in its range (logarithmic ranges on that scale), each choice as 0 or 1; what only
    one of two configurations has counts as 1.
    """

    def __init__(self, table: CurveTable):
        self._ranges = {name: of for name, of in flat_domains(table.domains) if isinstance(of, Interval)}
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
