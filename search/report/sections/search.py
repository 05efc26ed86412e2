"""Sections on the search: who was tried, how they learnt, and what mattered."""

from statistics import fmean
from typing import Any

from search.overview import figure, values_of
from search.report import figures
from search.report.drawing import draw
from search.report.names import progress, standing
from search.report.reading import Reading
from search.trial import Outcome, Trial


def leaderboard(reading: Reading) -> dict[str, Any]:
    """Full trials by their objective, then the others by the rungs they reached and the objective there."""
    return {"rows": [_row(reading, trial) for trial in ranking(reading)], "standing": standing}


def ranking(reading: Reading) -> list[Trial]:
    """All trials in the order of the leaderboard."""
    others = [trial for trial in reading.drawn if trial.outcome is not Outcome.FULL]
    others.sort(key=lambda trial: (-_rungs_reached(reading, trial), reading.order(trial)))
    return [*reading.full, *others]


def origin(trial: Trial) -> str:
    """Where a trial's configuration came from."""
    return trial.baseline or ("search" if trial.repeats is None else f"seed of {trial.repeats}")


def _row(reading: Reading, trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial,
        "values": [figure(value) for value in values_of(trial, reading.study.objective.metrics).values()],
        "from": origin(trial),
        "progress": progress(trial),
        "films_per_second": fmean(epoch.films_per_second for epoch in trial.epochs) if trial.epochs else None,
        "violates": trial.number in reading.violators,
        "on_front": any(trial.number == other.number for other in reading.front),
    }


def _rungs_reached(reading: Reading, trial: Trial) -> int:
    """Rungs met so far; -1 before the first epoch."""
    if not trial.epochs:
        return -1
    return sum(epoch <= trial.epochs[-1].epoch for epoch in reading.rungs.epochs(trial.schedule))


def front(reading: Reading) -> dict[str, Any] | None:
    """Where there are several objectives: the trials that none other beats in all of them."""
    if not reading.front:
        return None
    drawn = figures.front(reading.ranked, reading.front, reading.best, reading.metrics)
    return {"front": reading.front, "figure": draw(drawn)}


def constraints(reading: Reading) -> dict[str, Any] | None:
    """Which full trials miss one."""
    if not reading.header.constraints:
        return None
    return {"violators": [(reading.trials[number], broken) for number, broken in reading.violators.items()]}


def curves(reading: Reading) -> dict[str, Any]:
    """The objective epoch by epoch, and the winner's losses."""
    trials, best = reading.drawn, reading.best
    drawn = figures.learning_curves(trials, best, reading.rungs, reading.metric) if reading.is_trained else None
    return {"figure": drawn and draw(drawn), "losses": best and draw(figures.losses(best))}


def history(reading: Reading) -> dict[str, Any]:
    """The objective in the order of the trials."""
    if not reading.is_trained:
        return {"figure": None}
    maximize = reading.study.objective.maximize[0]
    return {"figure": draw(figures.history(reading.drawn, reading.best, reading.metric, maximize))}


def importance(reading: Reading) -> dict[str, Any]:
    """What mattered."""
    drawn = figures.importances(reading.early)
    return {"figure": drawn and draw(drawn), **_compared(reading)}


def parallel(reading: Reading) -> dict[str, Any]:
    """The trials as lines through their parameters."""
    drawn = figures.parallel(reading.early, reading.metric)
    return {"figure": drawn and draw(drawn), **_compared(reading)}


def families(reading: Reading) -> dict[str, Any]:
    """Architecture family against the objective."""
    if not reading.is_trained:
        return {"figure": None}
    return {"figure": draw(figures.families(reading.drawn, reading.rungs, reading.metric, reading.fidelities.stages))}


def _compared(reading: Reading) -> dict[str, Any]:
    searched = sum(trial.searched for trial in reading.trials)
    return {
        "compared": len(reading.early.trials),
        "searched_trials": "1 searched trial" if searched == 1 else f"{searched} searched trials",
    }
