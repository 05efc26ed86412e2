"""Tie-breakers: who goes first among trials that the objective cannot tell apart."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cxr_core.metrics import KFOLD
from search.folds import mean_over
from search.objectives import Objective, direction
from search.trial import Outcome, Trial

_CREDIBLE = 0.05
"""Share of resamples in which a trial must be as good as the leader, at least, not to be credibly worse."""


@dataclass(frozen=True)
class TieBreaker:
    """A metric on validation that decides a tie. values: by trial, of several trainings the mean; NaN is the worst.

    always: it decides even where there is no tie, as it is the search's own objective. folds: over how many
    it is a mean.
    """

    name: str
    values: Mapping[int, float]
    always: bool = False
    folds: int = 1

    def cost(self, number: int) -> float:
        """What is best when it is small."""
        value = self.values[number]
        if math.isnan(value):
            return math.inf
        return -value if direction(self.name) == "maximize" else value

    def told(self, number: int) -> str:
        """A trial's value in words."""
        value = self.values[number]
        return f"{'no value' if math.isnan(value) else f'{value:.4f}'} of trial {number}"

    def __str__(self) -> str:
        return self.name if self.folds == 1 else f"{self.name} (a mean over {self.folds} folds)"


def tie_breakers(
    objective: Objective, trainings: Mapping[int, Sequence[Trial]], trials: Sequence[Trial] = ()
) -> list[TieBreaker]:
    """The tie-breakers of an objective, in their order; trainings: by the trial that they are of.

    An objective under stress, or over several folds, stands before them: trainings can be compared film by film on one
    split without stress only. Over several folds it counts as the search had it, for the trial alone.
    trials: all of the study, once finalists are trained on other folds; before, a tie-breaker of folds is left out.
    """
    names = [*([objective.metrics[0]] if objective.judged != objective.metrics[0] else []), *objective.tie_breakers]
    found = []
    for name in names:
        if name not in KFOLD:
            values = {number: fmean(_reached(one, name) for one in of) for number, of in trainings.items()}
        elif not objective.other_folds:
            values = {number: _reached(_itself(number, of, trials), name) for number, of in trainings.items()}
        elif trials:
            values = {
                number: _over_folds(objective, KFOLD[name], number, of, trials) for number, of in trainings.items()
            }
        else:
            continue
        folds = objective.folds if name in KFOLD else 1
        found.append(TieBreaker(name, values, always=name == objective.metrics[0], folds=folds))
    return found


def _reached(trial: Trial, name: str) -> float:
    value = trial.epochs[-1].metrics.get(name)
    return math.nan if value is None else value


def _itself(number: int, trainings: Sequence[Trial], trials: Sequence[Trial]) -> Trial:
    """The trial that trainings are of, though its checkpoint may be gone."""
    return next((trial for trial in trainings if trial.number == number), None) or trials[number]


def _over_folds(
    objective: Objective, metric: str, number: int, seeds: Sequence[Trial], trials: Sequence[Trial]
) -> float:
    """A trial's mean over the folds, of which the study's own split has several seeds; NaN if a fold is not known."""
    folds = {t.fold: t.epochs[-1].metrics for t in trials if t.repeats == number and t.outcome is Outcome.FOLD}
    own = {metric: fmean(_reached(seed, metric) for seed in seeds)}
    return mean_over([*(folds.get(index, {}) for index in range(objective.other_folds)), own], metric)


def best_of(numbers: Collection[int], breakers: Sequence[TieBreaker]) -> int:
    """The first of trials that are otherwise equal; without a tie-breaker that of the lowest number."""
    return min(numbers, key=lambda number: (*(breaker.cost(number) for breaker in breakers), number))


def with_ties_broken(
    ranked: Sequence[Trial], objective: Objective, compare: Callable[[tuple[Trial, int], tuple[Trial, int]], float]
) -> list[Trial]:
    """Full trials from the best down, where those not credibly worse than the first stand by the tie-breakers.

    ranked: by the objective. compare: as `Credibility`. The others follow in their order.
    """
    if not ranked or not objective.tie_breakers or not tie_breakers(objective, {}):
        return list(ranked)
    at = lambda trial: (trial, trial.epochs[-1].epoch)  # noqa: E731
    tied = [trial for trial in ranked if trial is ranked[0] or compare(at(trial), at(ranked[0])) > _CREDIBLE]
    breakers = tie_breakers(objective, {trial.number: [trial] for trial in tied})
    tied.sort(key=lambda trial: [*(breaker.cost(trial.number) for breaker in breakers), trial.number])
    numbers = {trial.number for trial in tied}
    return [*tied, *(trial for trial in ranked if trial.number not in numbers)]


def decision(metric: str, winner: int, leader: int, tied: Collection[int], breakers: Sequence[TieBreaker]) -> str:
    """Why a winner is the winner, where the main metric leaves it open."""
    breaker = breakers[0]
    others = sorted((number for number in tied if number != winner), key=lambda number: (breaker.cost(number), number))
    reached, values = breaker.told(winner), ", ".join(map(breaker.told, others))
    if breaker.always:
        return f"The search improved {breaker}, which chooses: {reached}, against {values}."
    first = f" It has the best {metric}, too." if winner == leader else f" Best in {metric} alone is trial {leader}."
    return (
        f"{metric} on validation cannot tell {len(tied)} finalists apart, so the tie-breaker {breaker} decides: "
        f"{reached}, against {values}.{first}"
    )
