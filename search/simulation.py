"""Replays a table of learning curves through the very classes that run a search, on a clock of its own."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cxr_core.models import Footprint
from cxr_core.views import Views
from search.budget import Budget
from search.curve_table import Curve, CurveTable, Neighbours
from search.journal import Journal
from search.leg import Leg
from search.legs import Legs
from search.objectives import Objective
from search.policies import Policy
from search.proposals import Known, Proposal, propose
from search.proposer import Proposer
from search.space import BudgetSection, Header, Space
from search.trial import EpochRecord, Outcome


@dataclass(frozen=True)
class Trajectory:
    """The trainings that one simulated search did in full, as they ended: seconds, and the metric's last value.

    epochs: of each training of the table, how many the search trained; the one in which it diverged is not counted.
    """

    seconds: tuple[float, ...]
    values: tuple[float, ...]
    epochs: tuple[int, ...] = ()

    def reaches(self, value: float, maximize: bool) -> float:
        """Seconds until a full training is at least as good as a value; infinite if none is."""
        pairs = zip(self.seconds, self.values, strict=True)
        return next((at for at, v in pairs if (v >= value if maximize else v <= value)), float("inf"))


class _NoNetwork:
    """Stands where a search has a configuration to train; a table has no network to be measured."""

    views = Views()

    def footprint(self) -> Footprint:
        return Footprint(parameters=0, flops=0)


class _TableSpace(Space):
    """A table's columns as the space of a search."""

    def __init__(self, table: CurveTable, policy: Policy):
        header = Header.model_validate(
            {
                "name": "simulation",
                "task": {"kind": "binary", "labels": ["any"]},
                "data": {"image_size": 32},
                "objective": {"metric": "auroc_macro"},
            }
        )
        budget = BudgetSection(trials=len(table.curves), reserve=0.0)
        update = {"asha": policy.asha, "searcher": policy.searcher, "budget": budget}
        super().__init__(header.model_copy(update=update), table.domains, (), {})
        object.__setattr__(self, "_objective", Objective((table.metric,), (table.maximize,)))

    @property
    def objective(self) -> Objective:
        return self._objective  # type: ignore[attr-defined, no-any-return]

    def config(self, flat: Any, seed: int, image_size: int | None = None) -> Any:
        return _NoNetwork()

    def allows(self, flat: Any) -> bool:
        return True


class _Rows:
    """Proposals from a table: a searcher's point becomes the nearest training that was not taken yet."""

    def __init__(self, table: CurveTable, neighbours: Neighbours):
        self.table, self.neighbours = table, neighbours
        self.free = np.ones(len(table.curves), dtype=bool)
        self.curve_of: dict[int, Curve] = {}

    def propose(self, domains: Any, searcher: str, history: Sequence[Known], **request: Any) -> Proposal:
        number, seed = request["number"], request["seed"]
        if searcher == "random":  # the nearest to a random point would favour trainings far from others
            row = int(np.random.default_rng((seed, number)).choice(np.flatnonzero(self.free)))
            origin = "random"
        else:
            asked = propose(domains, searcher, history, **request)
            row, origin = self.neighbours.nearest(asked.flat, self.free), asked.origin
        self.free[row] = False
        self.curve_of[number] = self.table.curves[row]
        return Proposal(self.table.curves[row].flat, {}, {}, origin)


def simulate(
    table: CurveTable, neighbours: Neighbours, policy: Policy, *, seed: int, workers: int, until: float, target: float
) -> Trajectory:
    """One search of a table.

    workers train at once. It ends when the table is used up, when its best training has been found, or when a training
    has reached the target and `until` seconds have passed.
    """
    rows = _Rows(table, neighbours)
    space = _TableSpace(table, policy)
    clock, slots = _Clock(), workers * policy.parallel
    budget = Budget(space.header.budget, table.maximize, slots=slots, clock=lambda: clock.now)
    legs = Legs(
        Journal.in_memory(space.objective), space, seed, budget, proposer=partial(Proposer, propose=rows.propose)
    )
    return _Replay(table, legs, rows, clock, slots).run(until, target)


@dataclass
class _Clock:
    now: float = 0.0


class _Replay:
    """Workers that take the recorded time for each epoch."""

    def __init__(self, table: CurveTable, legs: Legs, rows: _Rows, clock: _Clock, workers: int):
        self.table, self.legs, self.rows, self.clock, self.free = table, legs, rows, clock, workers
        self.events: list[tuple[float, int]] = []
        self.full: list[tuple[float, float]] = []

    def run(self, until: float, target: float) -> Trajectory:
        self._hand_out()
        found, best = False, self.table.best(0)
        while self.events and not (found and (self.clock.now >= until or self.full[-1][1] == best)):
            self.clock.now, number = heapq.heappop(self.events)
            if not self._epoch(number):
                self.legs.leg_ended(number)
                self.free += 1
                trial = self.legs.journal.trial(number)
                if trial.outcome is Outcome.FULL:
                    value = trial.epochs[-1].value
                    self.full.append((self.clock.now, value))
                    found |= value >= target if self.table.maximize else value <= target
            self._hand_out()
        seconds, values = zip(*self.full, strict=True) if self.full else ((), ())
        return Trajectory(tuple(seconds), tuple(values), self._epochs())

    def _epochs(self) -> tuple[int, ...]:
        trained = dict.fromkeys(map(id, self.table.curves), 0)
        for trial in self.legs.journal.trials():
            trained[id(self.rows.curve_of[trial.number])] += len(trial.epochs)
        return tuple(trained.values())

    def _hand_out(self) -> None:
        while self.free and isinstance(leg := self.legs.next_leg(), Leg):
            self.free -= 1
            self._schedule(leg.trial)

    def _schedule(self, number: int) -> None:
        """When the trial's next epoch ends."""
        curve = self.rows.curve_of[number]
        done = len(self.legs.journal.trial(number).epochs)
        seconds = curve.seconds[done] if done < len(curve.seconds) else self._lost(curve)
        heapq.heappush(self.events, (self.clock.now + seconds, number))

    def _lost(self, curve: Curve) -> float:
        """Seconds of the epoch in which a training diverged: its own mean, or the table's."""
        return sum(curve.seconds) / len(curve.seconds) if curve.seconds else self.table.epoch_seconds

    def _epoch(self, number: int) -> bool:
        """Report the trial's next epoch; whether its leg goes on."""
        curve = self.rows.curve_of[number]
        done = len(self.legs.journal.trial(number).epochs)
        if done == len(curve.values):
            self.legs.failed(number, Outcome.DIVERGED, f"diverged in epoch {done + 1}")
            return False
        goes_on = self.legs.epoch_done(number, _record(self.table.metric, curve, done, self.clock.now))
        if goes_on:
            self._schedule(number)
        return goes_on


def _record(metric: str, curve: Curve, done: int, at: float) -> EpochRecord:
    value = curve.values[done]
    return EpochRecord(
        epoch=done + 1,
        value=value,
        train_loss=0.0,
        metrics={metric: value},
        auroc={},
        films_per_second=0.0,
        seconds=curve.seconds[done],
        peak_memory=0,
        checkpoint="",
        at=at,
    )
