"""Tie-breakers: who goes first among trials that the objective cannot tell apart."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from search.objectives import Objective, direction
from search.trial import Trial

_CREDIBLE = 0.05
"""Share of resamples in which a trial must be as good as the leader, at least, not to be credibly worse."""


@dataclass(frozen=True)
class TieBreaker:
    """A metric on validation that decides a tie. values: by trial, of several trainings the mean; NaN is the worst.

    always: it decides whether there is a tie or not, as the objective of the search was this one.
    """

    name: str
    values: Mapping[int, float]
    always: bool = False

    def cost(self, number: int) -> float:
        """What is best when it is small."""
        value = self.values[number]
        if math.isnan(value):
            return math.inf
        return -value if direction(self.name) == "maximize" else value


def tie_breakers(objective: Objective, trainings: Mapping[int, Sequence[Trial]]) -> list[TieBreaker]:
    """The tie-breakers of an objective, in their order; trainings: by the trial that they are of.

    An objective under stress stands before them: trainings can be compared film by film without stress only.
    """
    names = [*([objective.metrics[0]] if objective.judged != objective.metrics[0] else []), *objective.tie_breakers]
    means = {n: {number: fmean(_reached(one, n) for one in of) for number, of in trainings.items()} for n in names}
    return [TieBreaker(name, values, always=name == objective.metrics[0]) for name, values in means.items()]


def _reached(trial: Trial, name: str) -> float:
    value = trial.epochs[-1].metrics.get(name)
    return math.nan if value is None else value


def best_of(numbers: Collection[int], breakers: Sequence[TieBreaker]) -> int:
    """The first of trials that are otherwise equal; without a tie-breaker that of the lowest number."""
    return min(numbers, key=lambda number: (*(breaker.cost(number) for breaker in breakers), number))


def with_ties_broken(
    ranked: Sequence[Trial], objective: Objective, compare: Callable[[tuple[Trial, int], tuple[Trial, int]], float]
) -> list[Trial]:
    """Full trials from the best down, where those not credibly worse than the first stand by the tie-breakers.

    ranked: by the objective. compare: as `Credibility`. The others follow in their order.
    """
    if not ranked or not objective.tie_breakers:
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
    values = ", ".join(f"{breaker.values[number]:.4f} of trial {number}" for number in others)
    if breaker.always:
        reached = f"{breaker.values[winner]:.4f} of trial {winner}"
        return f"The search improved {breaker.name}, which chooses: {reached}, against {values}."
    first = f" It has the best {metric}, too." if winner == leader else f" Best in {metric} alone is trial {leader}."
    return (
        f"{metric} on validation cannot tell {len(tied)} finalists apart, so the tie-breaker {breaker.name} decides: "
        f"{breaker.values[winner]:.4f} of trial {winner}, against {values}.{first}"
    )
