"""Asynchronous successive halving with promotion, as a pure class: it serves the search, its replay and simulation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class _Rung:
    values: dict[int, float] = field(default_factory=dict)
    promoted: set[int] = field(default_factory=set)


class Rungs:
    """Who goes on and who waits (ASHA: Li et al. 2020, arXiv:1810.05934, with rungs at fractions of each schedule).

    A trial that reaches a rung goes on at once if it is in the best 1/eta of all that reached it; else it waits there,
    and may be promoted when others turn out worse. Rungs lie at fractions of a trial's own schedule, so that short and
    long schedules are compared at equal progress.
    """

    def __init__(self, fractions: Sequence[float], eta: int, maximize: bool):
        self.fractions = tuple(fractions)
        self.eta = eta
        self._sign = 1.0 if maximize else -1.0
        self._rungs = [_Rung() for _ in self.fractions]
        self._ended: set[int] = set()

    def epochs(self, schedule: int) -> tuple[int, ...]:
        """The epochs at which a schedule of that many epochs meets the rungs; rungs at its very end are left out."""
        # ceil of a product such as 0.2 * 15 = 3.0000000000000004 must not add an epoch
        met = [max(1, math.ceil(fraction * schedule - 1e-9)) for fraction in self.fractions]
        return tuple(epoch for epoch in met if epoch < schedule)

    def level(self, trial: int) -> int:
        """How many rungs a trial has been promoted from: the index of the rung it meets next."""
        return sum(trial in rung.promoted for rung in self._rungs)

    def waits_at(self, trial: int) -> int | None:
        """The rung where a trial waits, if it does."""
        level = self.level(trial)
        reached = level < len(self._rungs) and trial in self._rungs[level].values
        return level if reached and trial not in self._ended else None

    def value(self, trial: int, rung: int) -> float | None:
        """What a trial reached at a rung."""
        signed = self._rungs[rung].values.get(trial)
        return None if signed is None else self._sign * signed

    def record(self, trial: int, rung: int, value: float) -> None:
        """A trial has reached a rung; a second value for the same rung is ignored, so that replays change nothing."""
        self._rungs[rung].values.setdefault(trial, self._sign * value)

    def promote(self, trial: int, rung: int) -> None:
        """Let a trial pass a rung."""
        self._rungs[rung].promoted.add(trial)

    def end(self, trial: int, in_full: bool) -> None:
        """A trial has ended: it waits no more. What it reached still counts, but a place it did not use is free."""
        self._ended.add(trial)
        if not in_full:
            for rung in self._rungs:
                rung.promoted.discard(trial)

    def in_top(self, trial: int, rung: int) -> bool:
        """Whether a trial is among the best 1/eta at a rung; of equals, the earlier trial is better."""
        values = self._rungs[rung].values
        better = sum((v, -n) > (values[trial], -trial) for n, v in values.items())
        return better < len(values) // self.eta

    def waiting(self) -> list[tuple[int, int]]:
        """Waiting trials as (trial, rung), highest rung first and best first."""
        found = []
        for index in reversed(range(len(self._rungs))):
            values = self._rungs[index].values
            here = [trial for trial in values if self.waits_at(trial) == index]
            found += [(trial, index) for trial in sorted(here, key=lambda trial: (-values[trial], trial))]
        return found

    def candidates(self, at_least_one: bool = False) -> list[tuple[int, int]]:
        """Waiting trials that may go on, as (trial, rung), highest rung first and best first.

        at_least_one: where nobody has passed a rung yet, its best may: with nothing new to come, the search would
        otherwise end without a full trial.
        """
        waiting = self.waiting()
        chosen = [(trial, rung) for trial, rung in waiting if self.in_top(trial, rung)]
        if chosen or not at_least_one:
            return chosen
        return [(trial, rung) for trial, rung in waiting if not self._rungs[rung].promoted][:1]
