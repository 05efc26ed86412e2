"""Where a search stands, read from its study alone: state, budget, who runs, waits, leads and failed."""

import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from search import ledger
from search.budget import Budget
from search.objectives import Objective, direction
from search.rungs import Rungs
from search.space import Header, rungs_of
from search.study import Study
from search.trial import FAILED, Decision, Outcome, Step, Trial

_ENDS = {
    "budget": "its trials are done",
    "time": "the time is spent",
    "gpu_hours": "the GPU-hours are spent",
    "target": "the target is reached",
    "plateau": "the last full trials brought nothing better",
}
"""What the reasons in a study's fact `ended` mean."""
_AT_WORK = (Step.PROPOSED, Step.LAUNCHED, Step.PROMOTED)
"""The last decision about a trial that is being trained, or is about to be."""


@dataclass(frozen=True)
class State:
    """Whether a search runs, has ended, or was stopped and can be resumed; and why."""

    word: Literal["running", "ended", "stopped"]
    why: str


@dataclass(frozen=True)
class Place:
    """Where a trial waits: rung, place (1 is the best) among how many, of whom how many go on."""

    trial: Trial
    rung: int
    place: int
    cohort: int
    go_on: int


@dataclass(frozen=True)
class Failure:
    """Trials that ended alike: their class and the first one's reason."""

    outcome: Outcome
    reason: str
    trials: tuple[Trial, ...]


class Overview:
    """A study at one moment; its driver may write on, and what is seen here stays as it was."""

    def __init__(self, study: Study):
        self.study, self.facts = study, study.facts
        self.trials = list(study.trials())
        self.header = Header.model_validate({k: v for k, v in self.facts["space"].items() if k != "space"})
        self.objective = study.objective
        self.rungs = _rungs(self.header, self.objective, self.trials)
        self.state = _state(study, self.trials)
        self.budget = _budget(study, self.header, self.facts, self.trials)
        self.winner, self.front = study.winner(), study.front() if len(self.objective.metrics) > 1 else []

    @property
    def forecast(self) -> float | None:
        """When the search will end, in Unix time, as its driver saw it last."""
        return self.facts.get("forecast") if self.state.word == "running" else None

    def standing(self, trial: Trial) -> str:
        """What a trial is doing now, or how it ended."""
        if trial.outcome is not Outcome.OPEN:
            return trial.outcome.value
        if self.rungs.waits_at(trial.number) is not None:
            return "waiting"
        last = trial.decisions[-1]
        # A leg of an earlier session ended with that session, even if nobody was left to say so.
        present = self.state.word == "running" and last.at >= self.facts.get("session", {}).get("at", 0.0)
        return "running" if present and last.step in _AT_WORK else "interrupted"

    def counts(self) -> Counter[str]:
        """Trials by what they are now."""
        return Counter(map(self.standing, self.trials))

    def running(self) -> list[Trial]:
        """The trials that are being trained."""
        return [trial for trial in self.trials if self.standing(trial) == "running"]

    def waiting(self) -> list[Place]:
        """The trials that wait, highest rung first and best first."""
        found = []
        for number, rung in self.rungs.waiting():
            here = self.rungs.standing(number, rung)
            found.append(Place(self.trials[number], rung, here.place, here.cohort, here.go_on))
        return found

    def log(self, last: int) -> list[tuple[Trial, Decision]]:
        """The last decisions of the ledger, oldest first."""
        everything = ledger.history(self.trials)
        return everything[max(0, len(everything) - last) :]

    def leader(self, besides: int | None = None) -> Trial | None:
        """The winner so far, or before there is one, the trial that got furthest; besides: a trial left out."""
        best = next((trial for trial in self.study.ranked() if trial.number != besides), None)
        if best:
            return best
        begun = [trial for trial in self.trials if trial.epochs and trial.number != besides]
        furthest = max((len(trial.epochs) / trial.schedule for trial in begun), default=0.0)
        level = [trial for trial in begun if len(trial.epochs) / trial.schedule == furthest]
        return min(level, key=lambda t: (self.objective.reached(t.epochs[-1].metrics), t.number), default=None)


def _state(study: Study, trials: Sequence[Trial]) -> State:
    if Study.is_running(study.folder):
        return State("running", "its driver is at work")
    ended = ending(study, trials)
    if ended is None:
        return State("stopped", "its driver was killed, or the machine went down")
    why = ended["why"]
    if why in signal.Signals.__members__:
        return State("stopped", f"by {why}")
    if why == "mistake":
        return State("stopped", "the first trials all failed in the same way")
    return State("ended", _ENDS[why])


def ending(study: Study, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """How the search ended: when (`at`) and `why`; None if its driver left no word. What finals do changes nothing."""
    ended: dict[str, Any] | None = study.facts.get("ended")
    session = study.facts.get("session", {})
    if "after" in session:
        before: dict[str, Any] | None = session["after"]
        return before
    seen = [session.get("at", 0.0), *(trial.decisions[-1].at for trial in trials)]
    seen += [trial.epochs[-1].at for trial in trials if trial.epochs]
    return None if ended is None or ended["at"] < max(seen) else ended


def _rungs(header: Header, objective: Objective, trials: Iterable[Trial]) -> Rungs:
    rungs = rungs_of(header)
    for trial in trials:
        rungs.enter(trial.number, trial.family)
        ledger.follow(trial, rungs, objective)
    return rungs


def _budget(study: Study, header: Header, facts: dict[str, Any], trials: Sequence[Trial]) -> Budget:
    """The account of all sessions; its clock is the driver's last note."""
    session = facts.get("session", {})
    used = facts.get("seconds_used", 0.0)
    devices, slots = session.get("gpus") or 1.0, session.get("slots", 1)
    budget = Budget(header.budget, study.objective.maximize[0], devices, slots, clock=lambda: used)
    for trial in sorted(trials, key=lambda trial: trial.epochs[-1].at if trial.epochs else 0.0):
        budget.begin(trial)
        budget.spend(trial.number, trial.seconds)
        budget.end(trial, eligible=study.may_win(trial))
    return budget


def failures(trials: Iterable[Trial]) -> list[Failure]:
    """Trials that broke or could not be trained, grouped by class and reason, the most frequent first."""
    groups: dict[tuple[Outcome, str], list[Trial]] = {}
    for trial in trials:
        if trial.outcome in (*FAILED, Outcome.INFEASIBLE):
            # Reasons that differ in figures only, such as the epoch, are one.
            groups.setdefault((trial.outcome, re.sub(r"\d[\d.,]*", "#", trial.reason)), []).append(trial)
    found = [Failure(outcome, alike[0].reason, tuple(alike)) for (outcome, _), alike in groups.items()]
    return sorted(found, key=lambda failure: -len(failure.trials))


def figure(value: float | None) -> str:
    """A metric as a person reads it: four decimals, or none where they would say nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def values_of(trial: Trial, metrics: Iterable[str]) -> dict[str, float | None]:
    """What a trial's last epoch reached in some metrics; None before the first one."""
    return {metric: trial.epochs[-1].metrics.get(metric) if trial.epochs else None for metric in metrics}


def describe(overview: Overview, last: int) -> dict[str, Any]:
    """The overview as one JSON object; times are Unix times and lengths are seconds. last: decisions to tell."""
    header, metrics = overview.header, overview.objective.metrics
    tell = lambda trial: _tell(trial, metrics)  # noqa: E731
    return {
        "study": str(overview.study.folder),
        "state": {"is": overview.state.word, "why": overview.state.why},
        "at": time.time(),
        "task": {"kind": header.task.kind, "labels": list(header.task.labels)},
        "data": {
            "name": overview.facts["data"],
            "image_size": header.data.image_size,
            "films": overview.facts["films"],
        },
        "searcher": header.searcher.name,
        "objectives": {metric: direction(metric) for metric in metrics},
        "constraints": {name: bound.model_dump(exclude_none=True) for name, bound in header.constraints.items()},
        "budget": _tell_budget(overview.budget, overview.winner),
        "forecast": overview.forecast,
        "counts": dict(overview.counts()),
        "winner": tell(overview.winner) if overview.winner else None,
        "front": [tell(trial) for trial in overview.front],
        "running": [tell(trial) for trial in overview.running()],
        "waiting": [_tell_place(overview, place) for place in overview.waiting()],
        "decisions": [{"trial": trial.number, **vars(decision)} for trial, decision in overview.log(last)],
        "failures": [_tell_failure(overview.study, failure) for failure in failures(overview.trials)],
    }


def _tell(trial: Trial, metrics: Iterable[str]) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "model": trial.family,
        "baseline": trial.baseline,
        "repeats": trial.repeats,
        "fold": trial.fold,
        "epoch": len(trial.epochs),
        "epochs": trial.schedule,
        "values": values_of(trial, metrics),
        "films_per_second": trial.epochs[-1].films_per_second if trial.epochs else None,
    }


def _tell_place(overview: Overview, place: Place) -> dict[str, Any]:
    at = {"rung": place.rung, "at": overview.rungs.fractions[place.rung], "place": place.place}
    return {**_tell(place.trial, overview.objective.metrics), **at, "of": place.cohort, "go_on": place.go_on}


def _tell_failure(study: Study, failure: Failure) -> dict[str, Any]:
    numbers = [trial.number for trial in failure.trials]
    paths = [study.trial_folder(number) / "error.txt" for number in numbers]
    error = next((str(path) for path in paths if path.exists()), None)
    return {"class": failure.outcome.value, "reason": failure.reason, "trials": numbers, "error": error}


def _tell_budget(budget: Budget, winner: Trial | None) -> dict[str, Any]:
    """Each part of the budget that was set, as what is used and of how much."""
    section = budget.section
    parts: dict[str, tuple[Any, Any]] = {
        "trials": (budget.searched, section.trials),
        "time": (budget.elapsed, section.time),
        "gpu_hours": (budget.gpu_hours, section.gpu_hours),
        "target": (winner.value if winner else None, section.target),
        "plateau": (budget.since_best, section.plateau),
    }
    return {name: {"used": used, "of": of} for name, (used, of) in parts.items() if of is not None}
