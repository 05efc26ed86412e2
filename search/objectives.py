"""What a search improves: one metric or several, within constraints, and who is better than whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from cxr_core.located_yaml import did_you_mean
from cxr_core.metrics import KFOLD, OBJECTIVES, STRESSED
from cxr_core.space_file import ObjectiveSection, Section

Direction = Literal["maximize", "minimize"]

COSTS: dict[str, str] = {
    "parameters": "trainable and frozen weights of the network",
    "gflops": "floating-point operations of one film, with all its views, in 10^9",
    "latency_ms": "median time for one film on the device that trains, in milliseconds",
}
"""What a network costs in use: to be kept small, as a second objective or within a constraint."""

WORST = "auroc_worst"
"""The AUROC of the finding that a network does worst."""

_BASE = {**STRESSED, **KFOLD}
"""By name of a stressed or k-fold metric: the plain metric that it is the mean of."""
_FOLDS = 5
"""Of k-fold validation where the space does not say how many."""


def direction(metric: str) -> Direction:
    """Whether a metric, or a cost, is better when it is large."""
    if metric == WORST:
        return "maximize"
    metric = _BASE.get(metric, metric)
    maximized = metric in OBJECTIVES and OBJECTIVES[metric].direction == "maximize"
    return "maximize" if maximized else "minimize"


class SearchObjective(ObjectiveSection):
    """One `metric`, or `metrics`: then the search looks for the Pareto front, and the first one names the winner.

    tie_breakers: metrics that decide among trials which the first one cannot tell apart, the next one where the last
    is equal, too: those of `OBJECTIVES` and, under declared changes of the films, of `STRESSED`, or over several folds,
    of `KFOLD`. folds: how many these are, the study's own split one of them.
    """

    metrics: Annotated[tuple[str, ...], Field(strict=False)] = ()
    tie_breakers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    folds: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _first_is_the_metric(cls, section: Any) -> Any:
        if not isinstance(section, dict) or not (metrics := section.get("metrics")):
            return section
        if "metric" in section or "direction" in section:
            raise ValueError("name one metric, or several under `metrics`; not both")
        if not isinstance(metrics, list | tuple) or len(metrics) < 2 or len(set(metrics)) < len(metrics):
            raise ValueError("`metrics` lists two or more different ones")
        known = [*OBJECTIVES, WORST, *COSTS]
        for metric in metrics:
            if metric in KFOLD:
                raise ValueError(f"a search for several metrics has no folds; take {KFOLD[metric]}, or {metric} alone")
            if metric not in known:
                raise ValueError(f"there is no metric {metric!r}; {did_you_mean(str(metric), known)}")
        if metrics[0] not in OBJECTIVES:
            raise ValueError(f"the first metric names the winner and cannot be {metrics[0]}; put a quality first")
        return {**section, "metric": metrics[0]}

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in (known := [*OBJECTIVES, *_BASE]):
            raise ValueError(f"there is no metric {metric!r}; {did_you_mean(metric, known)}")
        return metric

    @field_validator("direction")
    @classmethod
    def _agrees(cls, towards: str | None, info: ValidationInfo) -> str | None:
        metric = info.data.get("metric")
        if metric and towards and towards != direction(metric):
            raise ValueError(f"{metric} is better when it is {direction(metric)}d")
        return towards

    @model_validator(mode="after")
    def _can_decide(self) -> "SearchObjective":
        known = [*OBJECTIVES, *_BASE]
        for name in self.tie_breakers:
            if name not in known:
                raise ValueError(f"there is no tie-breaker {name!r}; {did_you_mean(name, known)}")
        if len({self.metric, *self.tie_breakers}) <= len(self.tie_breakers):
            raise ValueError("`tie_breakers` lists different metrics, and not the first objective")
        if self.folds and not KFOLD.keys() & {self.metric, *self.tie_breakers}:
            raise ValueError(f"`folds` are of {' or '.join(KFOLD)}: name one as `metric` or under `tie_breakers`")
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """Every metric that is improved, the one that names the winner first."""
        return self.metrics or (self.metric,)

    @property
    def folds_of_a_trial(self) -> int:
        """How many trainings a trial of the search is: one for each fold, if the objective is a mean over them."""
        return (self.folds or _FOLDS) if self.metric in KFOLD else 1


class Bound(Section):
    """A limit that a trial must keep: `min` or `max`."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _one(self) -> "Bound":
        if (self.min is None) == (self.max is None):
            raise ValueError("a constraint has either `min` or `max`")
        return self


class Reached(NamedTuple):
    """What a trial has reached, in an order in which the smaller is the better.

    violation: sum of how far each constraint is missed, relative to its bound; 0 within all of them. costs: the
    objectives, with the sign that makes less better. A trial that violates less is better, whatever it reaches (Deb
    2000, Comput. Methods Appl. Mech. Eng. 186).
    """

    violation: float
    costs: tuple[float, ...]


@dataclass(frozen=True)
class Objective:
    """The objectives and constraints of a study, and how a trial's metrics meet them.

    tie_breakers: metrics that decide where the first objective cannot tell trials apart. folds: of k-fold validation,
    where one of them asks for it.
    """

    metrics: tuple[str, ...]
    maximize: tuple[bool, ...]
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    tie_breakers: tuple[str, ...] = ()
    folds: int = _FOLDS

    @classmethod
    def of_space(cls, tree: Mapping[str, Any]) -> "Objective":
        """The objective of a resolved space file."""
        section = SearchObjective.model_validate(tree["objective"])
        metrics = section.all
        bounds = {name: Bound.model_validate(bound) for name, bound in (tree.get("constraints") or {}).items()}
        upward = tuple(direction(metric) == "maximize" for metric in metrics)
        return cls(metrics, upward, bounds, section.tie_breakers, section.folds or _FOLDS)

    @property
    def stressed(self) -> bool:
        """Whether full trainings are also to be judged under stress."""
        return any(name in STRESSED for name in self.tie_breakers)

    @property
    def divisions(self) -> int:
        """Into how many folds the patients are divided; 1 if nothing asks for k-fold validation."""
        return self.folds if not KFOLD.keys().isdisjoint((*self.metrics, *self.tie_breakers)) else 1

    @property
    def other_folds(self) -> int:
        """On how many folds, beside the study's own split, finalists are to be trained to break a tie; 0 if none asks.

        Where the objective itself is a mean over folds, their trials have been trained on all of them.
        """
        return self.divisions - 1 if self.metrics[0] not in KFOLD else 0

    @property
    def judged(self) -> str:
        """The metric of paired comparisons: the first objective, or of a stressed or k-fold one the plain metric."""
        return _BASE.get(self.metrics[0], self.metrics[0])

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs that must be measured for it."""
        return tuple(name for name in COSTS if name in self.metrics or name in self.bounds)

    def undefined(self, metrics: Mapping[str, float | None]) -> str:
        """The objectives that these metrics lack, or that are not finite, separated by commas."""
        return ", ".join(name for name in self.metrics if not _is_finite(metrics.get(name)))

    def values(self, metrics: Mapping[str, float | None]) -> tuple[float, ...]:
        """The objectives of a trial with these metrics; KeyError if one is missing."""
        return tuple(float(metrics[name]) for name in self.metrics)  # type: ignore[arg-type]

    def violations(self, metrics: Mapping[str, float | None]) -> tuple[float, ...]:
        """How far each constraint is missed, relative to its bound: at most 0 where it is kept."""
        return tuple(_missed(bound, metrics.get(name)) for name, bound in self.bounds.items())

    def reached(self, metrics: Mapping[str, float | None]) -> Reached:
        """What decides at a rung, and at the end."""
        values = zip(self.values(metrics), self.maximize, strict=True)
        missed = sum(max(0.0, violation) for violation in self.violations(metrics))
        return Reached(missed, tuple(-value if up else value for value, up in values))

    def broken(self, metrics: Mapping[str, float | None]) -> list[str]:
        """The constraints that are missed, in words."""
        names = zip(self.bounds.items(), self.violations(metrics), strict=True)
        return [f"{name} {_words(bound, metrics.get(name))}" for (name, bound), missed in names if missed > 0]


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _missed(bound: Bound, value: float | None) -> float:
    if value is None or not math.isfinite(value):
        return 1.0  # undefined: neither kept nor far off
    limit, gap = (bound.min, bound.min - value) if bound.min is not None else (bound.max, value - (bound.max or 0.0))
    return gap / (abs(limit or 0.0) or 1.0)


def _words(bound: Bound, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "is undefined"
    return f"{value:.4g} is below {bound.min:g}" if bound.min is not None else f"{value:.4g} is above {bound.max:g}"


def ranked(reached: Mapping[int, Reached]) -> list[int]:
    """Trials from best to worst: within the constraints first, then by front, then by loneliness on the front.

    Non-dominated sorting and crowding distance are those of NSGA-II (Deb et al. 2002, IEEE TEC 6(2)); of equals, the
    earlier trial is better.
    """
    numbers = sorted(reached, key=lambda number: (reached[number].violation, number))
    kept = [number for number in numbers if reached[number].violation == 0]
    order: list[int] = []
    while kept:
        costs = np.array([reached[number].costs for number in kept])
        front = non_dominated(costs)
        lonely = _crowding(costs[front])
        members = [kept[index] for index in np.flatnonzero(front)]
        order += [number for _, number in sorted(zip(-lonely, members, strict=True))]
        kept = [number for number, on_front in zip(kept, front, strict=True) if not on_front]
    return order + [number for number in numbers if reached[number].violation > 0]


def non_dominated(costs: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates: is nowhere worse and somewhere better. costs: (N, M); returns (N,) bool."""
    left, at = np.lexsort(costs.T[::-1]), 0  # a row is dominated by none that comes after it
    while at < len(left):
        row = costs[left[at]]
        kept = (costs[left] < row).any(axis=1) | (costs[left] == row).all(axis=1)
        kept[: at + 1] = True
        left, at = left[kept], at + 1
    return np.isin(np.arange(len(costs)), left)


def _crowding(costs: np.ndarray) -> np.ndarray:
    """Distance between the neighbours of each row along each objective, summed; infinite at the ends."""
    distance = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def check_constraints(bounds: Mapping[str, Bound]) -> Mapping[str, Bound]:
    """Raises ValueError if a constraint names nothing that is measured."""
    known: Sequence[str] = [*OBJECTIVES, WORST, *COSTS]
    for name in bounds:
        if name not in known:
            raise ValueError(f"there is no metric {name!r} to constrain; {did_you_mean(name, known)}")
    return bounds
