"""K-fold validation: on which films a training is judged, and what a trial has reached over its folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cxr_core.metrics import KFOLD
from search.trial import Trial

Reached = Mapping[str, float | None]
"""What a training has reached on the films that judge it, by metric; None where one is undefined."""


@dataclass(frozen=True)
class Fold:
    """One of the trainings of k-fold validation, as `TrainingData.fold` divides the films; the last is the study's own.

    earlier: what the trial reached at the end of each fold before this one.
    """

    index: int
    of: int
    earlier: tuple[Reached, ...] = ()

    def means(self, here: Reached) -> dict[str, float]:
        """The metrics of KFOLD over the folds so far, NaN where undefined; here: what is reached in this one."""
        return {name: mean_over((*self.earlier, here), metric) for name, metric in KFOLD.items()}


def mean_over(folds: Sequence[Reached], metric: str) -> float:
    """The mean of a metric over folds; NaN if it is undefined in one."""
    values = [reached.get(metric) for reached in folds]
    return fmean(math.nan if value is None else value for value in values)


def fold_of(trial: Trial, index: int, folds: int) -> Fold:
    """The fold that a trial of several trainings is in, with what it reached in those before it."""
    ends = [trial.epochs[(earlier + 1) * trial.stage_schedule - 1] for earlier in range(index)]
    bases = set(KFOLD.values())
    reached = tuple({name: end.metrics.get(name) for name in sorted(bases)} for end in ends)
    return Fold(index, folds, reached)
