"""The ledger of a study: every decision about every trial, and where each trial stands by it."""

from collections.abc import Iterable

from search.objectives import Objective
from search.rungs import Rungs
from search.trial import Decision, Outcome, Step, Trial


def history(trials: Iterable[Trial]) -> list[tuple[Trial, Decision]]:
    """Every decision about every trial, in order of time."""
    return sorted(((trial, d) for trial in trials for d in trial.decisions), key=lambda entry: entry[1].at)


def rung_epochs(trial: Trial, rungs: Rungs) -> tuple[int, ...]:
    """The epochs at which a trial meets the rungs; baselines and repeats meet none, so they block no promotion."""
    return rungs.epochs(trial.schedule) if trial.searched else ()


def follow(trial: Trial, rungs: Rungs, objective: Objective) -> None:
    """Bring a trial that has entered the rungs to where its decisions put it; nobody is judged again."""
    epochs, here = rung_epochs(trial, rungs), len(trial.epochs)
    promoted = _judged(trial, Step.PROMOTED)
    while (level := rungs.level(trial.number)) < len(epochs) and epochs[level] <= here:
        rungs.record(trial.number, level, objective.reached(trial.epochs[epochs[level] - 1].metrics))
        # A trial that trained beyond a rung has passed it, even if an earlier policy had no rung there.
        if epochs[level] == here and (level, here) not in promoted:
            break
        rungs.promote(trial.number, level)
    if trial.outcome is not Outcome.OPEN:
        rungs.end(trial.number, in_full=trial.outcome is Outcome.FULL)


def may_go_on(trial: Trial) -> bool:
    """Whether anything is left to train of an open trial: its end may be decided, but not yet written."""
    over = trial.decisions[-1].step is Step.ENDED or len(trial.epochs) == trial.schedule
    return trial.outcome is Outcome.OPEN and not over


def is_undecided(trial: Trial, rungs: Rungs) -> bool:
    """Whether an open trial was in flight when the ledger ends, or its last epoch or its end not judged."""
    if trial.outcome is not Outcome.OPEN:
        return False
    waits = (rungs.waits_at(trial.number), len(trial.epochs)) in _judged(trial, Step.WAITS)
    return not waits or not may_go_on(trial)


def _judged(trial: Trial, step: Step) -> set[tuple[int, int]]:
    """Where a trial was judged so, as (rung, epoch): a policy that changed has its rungs elsewhere."""
    return {(d.evidence["rung"], d.evidence["epoch"]) for d in trial.decisions if d.step is step}
