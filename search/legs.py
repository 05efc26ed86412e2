"""What happens next: hands out legs and judges what they report. No Ray here, and no state that the study lacks.

A leg trains one trial from its last checkpoint to its next decision. New trials, promoted ones, and those that a crash
or a lost node interrupted all go through `next_leg`.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from cxr_core.config import TrainConfig
from cxr_core.models import Infeasible
from search.rungs import Rungs
from search.space import Space
from search.study import EpochRecord, Outcome, Study, Trial

log = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Legs of one trial that may be lost with their process before the trial is given up."""
_SAME_MISTAKE = 3
"""First trials that must fail with one exception for the search to stop: the fault is in the set-up, not in them."""
_FORECAST_MARGIN = 1.5
"""Times its forecast that the leader's training is started before the time budget ends."""


@dataclass(frozen=True)
class Leg:
    """One trial's way from a checkpoint (None: from the start) to its next decision."""

    trial: int
    config: TrainConfig
    checkpoint: str | None


class Pause(Enum):
    """Why no leg is handed out."""

    WAIT = "wait"
    FINISHED = "finished"


class Legs:
    """The search itself, as decisions on a study.

    seconds_used: training time of earlier sessions of this study. clock: seconds, for tests and simulation.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        seed: int,
        seconds_used: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.study, self.space, self.seed = study, space, seed
        header = space.header
        self.rungs = Rungs(header.asha.rungs, header.asha.eta, header.objective.maximize)
        self.live: set[int] = set()
        self.stopping: str | None = None
        self.mistake: str | None = None
        self._clock = clock
        self._started = clock() - seconds_used
        self._interrupted: deque[int] = deque()
        self._replay()

    def _replay(self) -> None:
        """Rebuild the rungs, and find the trials that were in flight, from the study alone."""
        for trial in self.study.trials():
            if trial.outcome is Outcome.OPEN and not trial.flat:
                self.study.finish(trial.number, Outcome.INFRASTRUCTURE, "the search was killed before it was proposed")
                continue
            for epoch in trial.epochs:
                self._at_rungs(trial, epoch, replay=True)
            if trial.outcome is not Outcome.OPEN:
                self.rungs.end(trial.number, in_full=trial.outcome is Outcome.FULL)
            elif trial.epochs and trial.epochs[-1].epoch == trial.schedule:
                self._end(trial, Outcome.FULL)
            elif self.rungs.waits_at(trial.number) is None:
                self._interrupted.append(trial.number)

    # Time and counts

    @property
    def elapsed(self) -> float:
        """Seconds of the time budget used, earlier sessions included."""
        return self._clock() - self._started

    @property
    def time_left(self) -> float:
        """Seconds until the time budget ends; infinite without one."""
        budget = self.space.header.budget.time
        return float("inf") if budget is None else budget - self.elapsed

    @property
    def interrupted(self) -> tuple[int, ...]:
        """Trials whose leg ended without a decision, and which are next."""
        return tuple(self._interrupted)

    def stop(self, reason: str) -> None:
        """Hand out nothing more, and let every live leg end with its present epoch."""
        self.stopping = self.stopping or reason

    # Handing out

    def next_leg(self) -> Leg | Pause:
        """In this order: interrupted legs, promotions from the highest rung down, new trials."""
        if self.time_left <= 0:
            self.stop("time")
        if self.stopping:
            return Pause.WAIT if self.live else Pause.FINISHED
        if self._interrupted:
            return self._leg(self.study.trial(self._interrupted.popleft()))
        leg = self._promote(lambda: self.rungs.candidates(self._last_call()), self.time_left) or self._new()
        if leg or not self.live:
            closing = partial(self.rungs.candidates, at_least_one=True)
            return leg or self._promote(closing, self.time_left) or Pause.FINISHED
        # Nothing new will come. A slot that would stand idle until the last leg ends trains the best of those waiting.
        rest = max(self._forecast(self.study.trial(number)) for number in self.live)
        return self._promote(self.rungs.waiting, min(rest, self.time_left)) or Pause.WAIT

    def _leg(self, trial: Trial) -> Leg:
        self.live.add(trial.number)
        begins = f"goes on at epoch {len(trial.epochs)}" if trial.epochs else "starts"
        log.info("trial %s %s: %s, %d epochs", trial.name, begins, trial.flat["model"], trial.schedule)
        checkpoint = trial.epochs[-1].checkpoint if trial.epochs else None
        return Leg(trial.number, self.space.config(trial.flat, trial.seed), checkpoint)

    def _promote(self, candidates: Callable[[], list[tuple[int, int]]], seconds: float) -> Leg | None:
        """The first of some waiting trials whose training can be done in the time goes on.

        On a short schedule two rungs may lie at one epoch: a promoted trial then waits at the next rung at once, and
        who may go on is asked again.
        """
        while fitting := [(n, rung) for n, rung in candidates() if self._forecast(self.study.trial(n)) <= seconds]:
            number, rung = fitting[0]
            trial = self.study.trial(number)
            self.rungs.promote(number, rung)
            if self._at_rungs(trial, trial.epochs[-1]):
                return self._leg(trial)
        return None

    def _forecast(self, trial: Trial) -> float:
        """Seconds to the end of a trial's schedule, going by its epochs so far; 0 before the first."""
        left = trial.schedule - len(trial.epochs)
        return left * trial.seconds / max(1, len(trial.epochs))

    def _last_call(self) -> bool:
        """Whether the leader must go on now, if the time budget is to see it trained in full."""
        leaders = self.rungs.candidates(at_least_one=True)[:1]
        return any(_FORECAST_MARGIN * self._forecast(self.study.trial(n)) > self.time_left for n, _ in leaders)

    def _new(self) -> Leg | None:
        trials = self.study.trials()
        ran = {trial.baseline for trial in trials if trial.flat}
        for baseline in self.space.baselines:
            if baseline.name not in ran and (leg := self._launch(self.study.add_baseline(baseline, self.seed))):
                return leg
        budget = self.space.header.budget
        searched = sum(trial.baseline is None and bool(trial.flat) for trial in trials)
        while searched < budget.trials and self.time_left > (budget.time or 0.0) * budget.reserve:
            searched += 1
            if leg := self._launch(self.study.propose(self.space, self.seed, self.rungs)):
                return leg
        return None

    def _launch(self, trial: Trial) -> Leg | None:
        """The first leg of a new trial, unless its network cannot be built for the films."""
        config = self.space.config(trial.flat, trial.seed)
        try:
            config.footprint()
        except Infeasible as reason:
            self._end(trial, Outcome.INFEASIBLE, str(reason))
            return None
        return self._leg(trial)

    # Judging

    def epoch_done(self, number: int, epoch: EpochRecord) -> bool:
        """Keep an epoch of a live trial; whether its leg goes on."""
        self.study.record(number, epoch)
        trial = self.study.trial(number)
        if epoch.epoch == trial.schedule:
            self._end(trial, Outcome.FULL)
            return False
        return self._at_rungs(trial, epoch) and not self.stopping and self.time_left > 0

    def _at_rungs(self, trial: Trial, epoch: EpochRecord, replay: bool = False) -> bool:
        """Judge a trial at each rung that lies at this epoch; whether it goes on. Baselines always do."""
        if trial.baseline:
            return True
        met = self.rungs.epochs(trial.schedule)
        while (level := self.rungs.level(trial.number)) < len(met) and met[level] == epoch.epoch:
            self.rungs.record(trial.number, level, epoch.value)
            went_on = replay and trial.epochs[-1].epoch > epoch.epoch
            if not went_on and (replay or not self.rungs.in_top(trial.number, level)):
                if not replay:
                    progress = self.rungs.fractions[level]
                    log.info("trial %s waits at %.0f %% with %.4f", trial.name, 100 * progress, epoch.value)
                return False
            self.rungs.promote(trial.number, level)
        return True

    def leg_ended(self, number: int) -> None:
        """A live trial's process is free. If the trial neither ended nor waits, it was interrupted and is next."""
        self.live.discard(number)
        if self.study.trial(number).outcome is Outcome.OPEN and self.rungs.waits_at(number) is None:
            self._interrupted.append(number)

    def failed(self, number: int, outcome: Outcome, reason: str) -> None:
        """A live trial ended by its own fault: it diverged, or its code raised."""
        trial = self.study.trial(number)
        self._end(trial, outcome, reason)
        if outcome is Outcome.ERROR:
            self._look_for_mistake(reason)

    def process_lost(self, number: int, reason: str) -> None:
        """A live trial's process or node died: its leg is handed out again, a limited number of times."""
        if self.study.trial(number).outcome is not Outcome.OPEN:
            return
        log.info("trial %d: %s; its leg is handed out again", number, reason)
        if self.study.attempt(number) >= _ATTEMPTS:
            self._end(self.study.trial(number), Outcome.INFRASTRUCTURE, f"lost {_ATTEMPTS} times; last: {reason}")

    def _look_for_mistake(self, reason: str) -> None:
        trials = [t for t in self.study.trials() if t.outcome is not Outcome.INFEASIBLE]
        failed = [t for t in trials if t.outcome is Outcome.ERROR]
        nothing_works = not any(t.epochs for t in trials)
        if nothing_works and len(failed) >= _SAME_MISTAKE and len({t.reason for t in failed}) == 1:
            self.mistake = reason
            self.stop("mistake")

    def _end(self, trial: Trial, outcome: Outcome, reason: str = "") -> None:
        self.study.finish(trial.number, outcome, reason)
        if outcome is Outcome.FULL:
            log.info("trial %s is trained in full: %.4f", trial.name, self.study.trial(trial.number).value)
        elif outcome is not Outcome.PRUNED:
            log.info("trial %s ended, %s: %s", trial.name, outcome.value, reason)
        self.rungs.end(trial.number, in_full=outcome is Outcome.FULL)

    def close(self) -> None:
        """The search is over: trials that wait at a rung are pruned. Those cut by the end of the time stay open."""
        for trial in self.study.trials():
            waits_at = self.rungs.waits_at(trial.number)
            if trial.outcome is Outcome.OPEN and waits_at is not None:
                fraction = self.rungs.fractions[waits_at]
                self._end(trial, Outcome.PRUNED, f"waited at {fraction:.0%} of its schedule until the search ended")

    def counts(self) -> Counter[str]:
        """Trials by what they are now: running, waiting, interrupted, or how they ended."""
        return Counter(self.standing(trial) for trial in self.study.trials())

    def standing(self, trial: Trial) -> str:
        """What a trial is doing now, or how it ended."""
        if trial.outcome is not Outcome.OPEN:
            return trial.outcome.value
        if trial.number in self.live:
            return "running"
        return "waiting" if self.rungs.waits_at(trial.number) is not None else "interrupted"
