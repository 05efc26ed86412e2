"""The budget of a search: what it may spend, what it has spent, and when it will end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from search.space import BudgetSection
from search.trial import Outcome, Trial


@dataclass
class Budget:
    """What a search may spend and has spent, over all its sessions.

    devices: GPUs of a trial; where there are none, a trial counts as one. slots: trials trained at once. clock: in
    seconds; began: what it said when the search began, earlier sessions' time taken off. finals: whether trainings for
    the finals count as trials; a search that goes on after them has as many left as before.
    """

    section: BudgetSection
    maximize: bool = True
    devices: float = 1.0
    slots: int = 1
    clock: Callable[[], float] = time.monotonic
    began: float = 0.0
    finals: bool = False
    searched: int = 0
    seconds: float = 0.0
    _best: float | None = None
    since_best: int = 0
    _seconds_of: dict[int, float] = field(default_factory=dict)

    @property
    def elapsed(self) -> float:
        """Seconds of wall clock, earlier sessions included."""
        return self.clock() - self.began

    @property
    def gpu_hours(self) -> float:
        """Training time of all trials times their GPUs."""
        return self.seconds * self.devices / 3600

    @property
    def time_left(self) -> float:
        """Seconds of wall clock until time or GPU-hours are spent; infinite without a limit."""
        left = [float("inf")]
        if self.section.time is not None:
            left.append(self.section.time - self.elapsed)
        if self.section.gpu_hours is not None:
            left.append((self.section.gpu_hours - self.gpu_hours) * 3600 / (self.devices * self.slots))
        return min(left)

    @property
    def trials_left(self) -> int:
        """Configurations that may still be proposed."""
        return max(0, self.section.trials - self.searched)

    @property
    def proposing(self) -> bool:
        """Whether a new configuration may be proposed: there is budget, and what is left is not the reserve."""
        spent = [0.0]
        if self.section.time:
            spent.append(self.elapsed / self.section.time)
        if self.section.gpu_hours:
            spent.append(self.gpu_hours / self.section.gpu_hours)
        return self.trials_left > 0 and max(spent) < 1 - self.section.reserve

    @property
    def over(self) -> str | None:
        """Which part of the budget ends the search now, if one does."""
        section = self.section
        if section.time is not None and self.elapsed >= section.time:
            return "time"
        if section.gpu_hours is not None and self.gpu_hours >= section.gpu_hours:
            return "gpu_hours"
        if section.target is not None and self._best is not None and self._gain(self._best, section.target) >= 0:
            return "target"
        if section.plateau is not None and self.since_best >= section.plateau:
            return "plateau"
        return None

    def _gain(self, value: float, over: float) -> float:
        return (value - over) * (1 if self.maximize else -1)

    def begin(self, trial: Trial) -> None:
        """A trial was added."""
        self.searched += trial.baseline is None and (self.finals or not trial.finals)
        self._seconds_of[trial.number] = 0.0

    def spend(self, trial: int, seconds: float) -> None:
        """A trial trained for some seconds."""
        self.seconds += seconds
        self._seconds_of[trial] += seconds

    def end(self, trial: Trial, eligible: bool) -> None:
        """A trial ended; eligible: it may win."""
        if trial.outcome is not Outcome.FULL or trial.finals:
            return
        if eligible and trial.value is not None and (self._best is None or self._gain(trial.value, self._best) > 0):
            self._best, self.since_best = trial.value, 0
        else:
            self.since_best += 1

    def forecast(self, in_flight: float) -> float | None:
        """Seconds of wall clock until the search ends, if nothing changes; None before anything was trained.

        in_flight: seconds of training that live trials have left. New trials are taken to cost what the earlier ones
        did on average, pruned ones included.
        """
        trained = [seconds for seconds in self._seconds_of.values() if seconds]
        if not trained:
            return None
        work = self.trials_left * sum(trained) / len(trained) + in_flight
        return max(0.0, min(work / self.slots, self.time_left))
