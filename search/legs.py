"""What happens next: hands out legs and judges what they report. No Ray here, and no state that the study lacks.

A leg trains one trial from its last checkpoint to its next decision. New trials, promoted ones, and those that a crash
or a lost node interrupted all go through `next_leg`. Every decision is entered into the study's ledger as it is made;
after a crash, the ledger is followed.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from cxr_core.registry import Scalar
from search import ledger
from search.budget import Budget
from search.costs import Costs
from search.journal import Journal
from search.leg import Leg, leg_of
from search.proposer import Proposer, complete
from search.rungs import Standing
from search.space import Space, fidelities_of, rungs_of
from search.trial import EpochRecord, Outcome, Step, Trial

log = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Losses of a trial's process, with no new epoch between them, after which it is given up."""
_SAME_MISTAKE = 3
"""First trials that must fail with one exception for the search to stop: the fault is in the set-up, not in them."""
_FORECAST_MARGIN = 1.5
"""Times its forecast that the leader's training is started before the time budget ends."""
DISK = "disk"
"""Why a search stops when a disk is full, so that it can be resumed once there is room."""
BUDGETS = ("time", "gpu_hours", "target", "plateau")
"""Reasons to stop that end a search, where a signal or a mistake only ends its session."""

Compare = Callable[[tuple[Trial, int], tuple[Trial, int]], float]
"""How likely the first of two trials is at least as good as the second, each after so many epochs."""


class Pause(Enum):
    """Why no leg is handed out."""

    WAIT = "wait"
    FINISHED = "finished"


class Legs:
    """The search itself, as decisions on a study.

    compare: needed where only credible differences prune. on_end: told of each trial that has ended.
    """

    def __init__(
        self,
        journal: Journal,
        space: Space,
        seed: int,
        budget: Budget,
        *,
        proposer: Callable[..., Proposer] = Proposer,
        compare: Compare | None = None,
        on_end: Callable[[Trial], None] = lambda trial: None,
    ):
        self.journal, self.space, self.seed, self.budget = journal, space, seed, budget
        self.fidelities = fidelities_of(space.header)
        self.rungs = rungs_of(space.header)
        self.proposer = proposer(journal, space, self.rungs, seed)
        self.live: set[int] = set()
        self.stopping: str | None = None
        self.mistake: str | None = None
        self._compare, self._on_end = compare, on_end
        self._costs = Costs(journal.objective, space)
        self._interrupted: deque[int] = deque()
        self._baselines: set[str] = set()
        self._outside: list[int] = []
        self._replay()

    def _replay(self) -> None:
        """Stand where the study's ledger ends, and find the trials that were in flight, from the study alone."""
        trials, objective = list(self.journal.trials()), self.journal.objective
        for trial in trials:
            self._enter(trial)
            self.budget.spend(trial.number, trial.seconds)
            ledger.follow(trial, self.rungs, objective)
        undecided = [trial for trial in trials if ledger.is_undecided(trial, self.rungs)]
        for trial in trials:
            if trial.searched and ledger.may_go_on(trial) and not self.space.allows(trial.flat):
                self.rungs.end(trial.number, in_full=False)
                self._outside.append(trial.number)
        for trial in trials:  # all of them before any is judged: a searcher's draws depend on their order
            self.proposer.see(trial)
        for trial in sorted(trials, key=lambda trial: trial.epochs[-1].at if trial.epochs else 0.0):
            self.budget.end(trial, eligible=self.journal.may_win(trial))
        for trial in undecided:
            if trial.number not in self._outside:
                self._take_up(trial)

    def _take_up(self, trial: Trial) -> None:
        """Go on with a trial where a crash left it."""
        if (last := trial.decisions[-1]).step is Step.ENDED:
            outcome = Outcome(last.evidence["outcome"])
            self._end(trial, outcome, "" if outcome is Outcome.FULL else last.why)
        elif len(trial.epochs) == trial.schedule:
            self._end(trial, Outcome.FULL)
        elif not trial.epochs or self._at_rungs(trial, trial.epochs[-1]):
            self._interrupted.append(trial.number)

    def _enter(self, trial: Trial) -> None:
        self.rungs.enter(trial.number, trial.family)
        self.budget.begin(trial)
        if trial.baseline:
            self._baselines.add(trial.baseline)

    def _met(self, trial: Trial) -> tuple[int, ...]:
        return ledger.rung_epochs(trial, self.rungs)

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
        if over := self.budget.over:
            self.stop(over)
        if self.stopping:
            return Pause.WAIT if self.live else Pause.FINISHED
        while self._interrupted:
            if leg := self._leg(self.journal.trial(self._interrupted.popleft())):
                return leg
        left = self.budget.time_left
        leg = self._promote(lambda: self.rungs.candidates(self._last_call()), left) or self._new()
        if leg or not self.live:
            closing = partial(self.rungs.candidates, at_least_one=True)
            return leg or self._promote(closing, left) or Pause.FINISHED
        # Nothing new will come. A slot that would stand idle until the last leg ends trains the best of those waiting.
        rest = max(self.forecast(self.journal.trial(number)) for number in self.live)
        return self._promote(self.rungs.waiting, min(rest, left)) or Pause.WAIT

    def _leg(self, trial: Trial) -> Leg | None:
        """A trial's next leg, unless its network cannot be built for the films or costs more than it may."""
        stage = self.fidelities.stage(len(trial.epochs), trial.stage_schedule, in_full=trial.stages == 1)
        config = self.space.config(trial.flat, trial.seed, stage.image_size)
        if reason := self._costs.infeasible(trial, config):
            self._end(trial, Outcome.INFEASIBLE, reason)
            return None
        begins = f"goes on at epoch {len(trial.epochs)}" if trial.epochs else "starts"
        self._note(trial, Step.LAUNCHED, begins, epoch=len(trial.epochs))
        log.info("trial %s %s: %s, %d epochs", trial.name, begins, trial.family, trial.schedule)
        self.live.add(trial.number)
        rungs = self._met(trial) if self._compare else ()
        thresholds = None if trial.refit is None else self.journal.trial(trial.refit).epochs[-1].checkpoint
        return leg_of(trial, config, stage, self.journal.objective, rungs, thresholds)

    def _promote(self, candidates: Callable[[], list[tuple[int, int]]], seconds: float) -> Leg | None:
        """The first of some waiting trials whose training can be done in the time goes on.

        On a short schedule two rungs may lie at one epoch: a promoted trial then waits at the next rung at once, and
        who may go on is asked again.
        """
        while fitting := [(n, r) for n, r in candidates() if self.forecast(self.journal.trial(n)) <= seconds]:
            number, rung = fitting[0]
            trial = self.journal.trial(number)
            trial = self._go_on(trial, self.rungs.standing(number, rung), "its place is good enough by now")
            if self._at_rungs(trial, trial.epochs[-1]) and (leg := self._leg(trial)):
                return leg
        return None

    def forecast(self, trial: Trial) -> float:
        """Seconds to the end of a trial's schedule, going by its epochs so far; 0 before the first."""
        left = trial.schedule - len(trial.epochs)
        return left * trial.seconds / max(1, len(trial.epochs))

    def _last_call(self) -> bool:
        """Whether the leader must go on now, if the time budget is to see it trained in full."""
        if self.budget.time_left == float("inf"):
            return False
        leaders = self.rungs.candidates(at_least_one=True)[:1]
        left = self.budget.time_left
        return any(_FORECAST_MARGIN * self.forecast(self.journal.trial(n)) > left for n, _ in leaders)

    def _new(self) -> Leg | None:
        for baseline in self.space.baselines:
            if baseline.name not in self._baselines:
                why = f"baseline {baseline.name}: runs first and in full"
                if leg := self._begin(self._add(complete(baseline.flat), why, baseline=baseline.name)):
                    return leg
        while self.budget.proposing and (draft := self.proposer.draft()):
            if leg := self._begin(self._add(**vars(draft))):
                return leg
        return None

    def _add(self, flat: dict[str, Scalar], why: str, **kind: Any) -> Trial:
        kept = {key: value for key, value in kind.items() if value is not None}
        return self.journal.add(flat, self.seed + len(self.journal.trials()), why, stages=self._stages(**kept), **kept)

    def _stages(self, repeats: int | None = None, baseline: str | None = None, finals: bool = False, **_: Any) -> int:
        """How often its schedule is run: a searched trial's at every fidelity, a baseline's and another seed's once a
        fold, or their values could not be compared, a training's of the finals once."""
        if finals:
            return 1
        return self.fidelities.stages if repeats is None and baseline is None else self.fidelities.folds

    def _begin(self, trial: Trial) -> Leg | None:
        """The first leg of a new trial."""
        self._enter(trial)
        self.proposer.see(trial)
        return self._leg(trial)

    # Judging

    def epoch_done(self, number: int, epoch: EpochRecord) -> bool:
        """Keep an epoch of a live trial; whether its leg goes on."""
        epoch = self._costs.added(number, epoch)
        is_refit = self.journal.trial(number).refit is not None
        if not is_refit and (undefined := self.journal.objective.undefined(epoch.metrics)):
            self.failed(number, Outcome.DIVERGED, f"{undefined} has no finite value after epoch {epoch.epoch}")
            return False
        trial = self.journal.record(number, epoch)
        self.budget.spend(number, epoch.seconds)
        if epoch.epoch == trial.schedule:
            self._end(trial, Outcome.FULL)
            return False
        goes_on = self._at_rungs(trial, trial.epochs[-1]) and not self.stopping and not self.budget.over
        return goes_on and epoch.epoch % trial.stage_schedule != 0

    def _at_rungs(self, trial: Trial, epoch: EpochRecord) -> bool:
        """Judge a trial at each rung that lies at this epoch; whether it goes on."""
        met = self._met(trial)
        while (level := self.rungs.level(trial.number)) < len(met) and met[level] == epoch.epoch:
            self._arrive(trial, level)
            standing = self.rungs.standing(trial.number, level)
            if why := self._passes(trial, epoch, standing):
                trial = self._go_on(trial, standing, why)
            else:
                self._hold(trial, epoch, standing)
                return False
        return True

    def _arrive(self, trial: Trial, rung: int) -> None:
        metrics = trial.epochs[self._met(trial)[rung] - 1].metrics
        self.rungs.record(trial.number, rung, self.journal.objective.reached(metrics))

    def _passes(self, trial: Trial, epoch: EpochRecord, standing: Standing) -> str | None:
        """Why a trial goes on from a rung at once, if it does."""
        if self.rungs.in_top(trial.number, standing.rung):
            by_place = standing.place <= standing.go_on
            return f"among the best {standing.go_on}" if by_place else f"among the best of {trial.family}"
        confidence = self.space.header.asha.confidence
        if confidence is None or self._compare is None or standing.cutoff is None:
            return None
        cutoff = self.journal.trial(standing.cutoff)
        likely = self._compare((trial, epoch.epoch), (cutoff, self._met(cutoff)[standing.rung]))
        if likely <= 1 - confidence:
            return None
        return f"not credibly worse than trial {standing.cutoff}: better in {likely:.0%} of resamples of the patients"

    def _go_on(self, trial: Trial, standing: Standing, why: str) -> Trial:
        trial = self._note(trial, Step.PROMOTED, why, **self._evidence(trial, standing))
        self.rungs.promote(trial.number, standing.rung)
        self.proposer.see(trial)
        return trial

    def _hold(self, trial: Trial, epoch: EpochRecord, standing: Standing) -> None:
        """A trial that does not go on waits, or ends where a policy never looks back."""
        progress = f"{self.rungs.fractions[standing.rung]:.0%}"
        place = f"place {standing.place} of {standing.cohort} at {progress}, where {standing.go_on} go on"
        if self.rungs.policy.mode == "stop":
            self._end(trial, Outcome.PRUNED, place)
            return
        trial = self._note(trial, Step.WAITS, place, **self._evidence(trial, standing))
        self.proposer.see(trial)
        log.info("trial %s waits at %s with %.4f", trial.name, progress, epoch.value)

    def _evidence(self, trial: Trial, standing: Standing) -> dict[str, object]:
        """The figures of a decision at a rung."""
        cutoff = None if standing.cutoff is None else self.journal.trial(standing.cutoff)
        at = self._met(trial)[standing.rung]
        reached = None if cutoff is None else self._value_at(cutoff, standing.rung)
        return {**vars(standing), "epoch": at, "value": self._value_at(trial, standing.rung), "cutoff_value": reached}

    def _value_at(self, trial: Trial, rung: int) -> float:
        return trial.epochs[self._met(trial)[rung] - 1].value

    def leg_ended(self, number: int) -> None:
        """A live trial's process is free. If the trial neither ended nor waits, it was interrupted and is next."""
        self.live.discard(number)
        trial = self.journal.trial(number)
        if trial.outcome is not Outcome.OPEN or self.rungs.waits_at(number) is not None:
            return
        self._interrupted.append(number)
        if over := self.budget.over:
            self.stop(over)
        if self.stopping:
            done = f"{len(trial.epochs)} of {trial.schedule} epochs are saved"
            self._note(trial, Step.PAUSED, f"the search stops ({self.stopping}); {done}", epoch=len(trial.epochs))

    def failed(self, number: int, outcome: Outcome, reason: str) -> None:
        """A live trial ended by its own fault: it diverged, or its code raised."""
        self._end(self.journal.trial(number), outcome, reason)
        if outcome is Outcome.ERROR:
            self._look_for_mistake(reason)

    def process_lost(self, number: int, reason: str) -> None:
        """A live trial's process or node died: its leg is handed out again, a limited number of times."""
        trial = self.journal.trial(number)
        if trial.outcome is not Outcome.OPEN:
            return
        attempts, here = self.journal.attempt(number), len(trial.epochs)
        in_a_row = 1 + sum(d.step is Step.RETRIED and d.evidence["epoch"] == here for d in trial.decisions)
        if in_a_row >= _ATTEMPTS:
            self._end(trial, Outcome.INFRASTRUCTURE, f"lost {_ATTEMPTS} times after epoch {here}; last: {reason}")
            return
        log.info("trial %d: %s; its leg is handed out again", number, reason)
        self._note(trial, Step.RETRIED, reason, attempt=attempts, epoch=here)

    def _look_for_mistake(self, reason: str) -> None:
        trials = [t for t in self.journal.trials() if t.outcome is not Outcome.INFEASIBLE]
        failed = [t for t in trials if t.outcome is Outcome.ERROR]
        nothing_works = not any(t.epochs for t in trials)
        if nothing_works and len(failed) >= _SAME_MISTAKE and len({t.reason for t in failed}) == 1:
            self.mistake = reason
            self.stop("mistake")

    def _end(self, trial: Trial, outcome: Outcome, reason: str = "") -> None:
        if outcome is Outcome.FULL and not trial.on_own_split:
            outcome = Outcome.REFIT if trial.fold is None else Outcome.FOLD
        if not trial.decisions or trial.decisions[-1].step is not Step.ENDED:  # a kill may have come between the two
            self._note(trial, Step.ENDED, reason or "trained in full", outcome=outcome.value)
        trial = self.journal.finish(trial.number, outcome, reason)
        if outcome is Outcome.FULL:
            log.info("trial %s is trained in full: %.4f", trial.name, trial.value)
        elif outcome is Outcome.REFIT:
            log.info("trial %s is trained, on the validation films, too", trial.name)
        elif outcome is Outcome.FOLD:
            log.info("trial %s is trained", trial.name)
        elif outcome is not Outcome.PRUNED:
            log.info("trial %s ended, %s: %s", trial.name, outcome.value, reason)
        self.rungs.end(trial.number, in_full=outcome is Outcome.FULL)
        self.budget.end(trial, eligible=self.journal.may_win(trial))
        self.proposer.see(trial)
        self._on_end(trial)

    def _note(self, trial: Trial, step: Step, why: str, **evidence: object) -> Trial:
        return self.journal.decide(trial.number, step, why, **evidence)

    def close(self) -> None:
        """The search is over: trials that wait at a rung are pruned, and so are those that the space left out since.

        Those cut by the end of the time stay open.
        """
        for number in self._outside:
            self._end(self.journal.trial(number), Outcome.PRUNED, "its configuration lies outside the changed space")
        self._outside.clear()
        for number, rung in self.rungs.waiting():
            progress = f"{self.rungs.fractions[rung]:.0%}"
            trial = self.journal.trial(number)
            self._end(trial, Outcome.PRUNED, f"waited at {progress} of its schedule until the search ended")

    # Looking

    def seconds_left(self) -> float | None:
        """A forecast of the seconds until the search ends; None before anything was trained."""
        return self.budget.forecast(sum(self.forecast(self.journal.trial(number)) for number in self.live))

    def counts(self) -> Counter[str]:
        """Trials by what they are now: running, waiting, interrupted, or how they ended."""
        return Counter(self.standing(trial) for trial in self.journal.trials())

    def standing(self, trial: Trial) -> str:
        """What a trial is doing now, or how it ended."""
        if trial.outcome is not Outcome.OPEN:
            return trial.outcome.value
        if trial.number in self.live:
            return "running"
        return "waiting" if self.rungs.waits_at(trial.number) is not None else "interrupted"
