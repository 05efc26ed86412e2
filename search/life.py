"""The life of one trial in words: what was decided about it and why, against whom, and what it reached."""

from collections.abc import Sequence
from typing import Any

from search.overview import Overview
from search.trial import Decision, Step, Trial

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
"""Columns of a curve that a terminal has room for."""


def in_words(trial: Trial, decision: Decision) -> str:
    """A decision about a trial with its reason and figures, as a sentence without its subject."""
    why, figures = decision.why, decision.evidence
    match decision.step:
        case Step.PROPOSED:
            known = f", knowing {figures['known']} trials" if "known" in figures else ""
            return f"proposed: {why}{known}"
        case Step.WAITS:
            return f"waits: {why}; {_against(trial, figures)}"
        case Step.PROMOTED:
            place = f"place {figures['place']} of {figures['cohort']} after epoch {figures['epoch']}"
            return f"goes on: {why}; {place}, {_against(trial, figures)}"
        case Step.RETRIED:
            return f"lost for the {_ordinal(figures['attempt'])} time: {why}; goes on from epoch {figures['epoch']}"
        case Step.PAUSED:
            return f"paused: {why}"
        case Step.ENDED:
            return why if figures.get("outcome") in ("full", "fold") else f"{figures.get('outcome', 'ended')}: {why}"
    return why


def _against(trial: Trial, figures: dict[str, Any]) -> str:
    """Its value, and that of the last trial that went on, where this is another one."""
    value = f"{figures['value']:.4f}"
    if figures["cutoff"] in (None, trial.number):
        return value
    return f"{value} against {figures['cutoff_value']:.4f} of trial {figures['cutoff']}, the last that goes on"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A curve as a line of bars, at most `width` of them."""
    if len(values) > width:
        values = [values[index * (len(values) - 1) // (width - 1)] for index in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = high - low or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)


def life(overview: Overview, trial: Trial) -> dict[str, Any]:
    """All that happened to a trial, as one JSON object."""
    leader = overview.leader(besides=trial.number)
    folder = overview.study.trial_folder(trial.number)
    checkpoint = overview.study.folder / trial.epochs[-1].checkpoint if trial.epochs else None
    # Another seed's repeats are those of the trial that it repeats: all of them share one configuration.
    origin = trial.number if trial.repeats is None else trial.repeats
    alike = [t for t in overview.trials if origin in (t.number, t.repeats) and t.on_own_split]
    seeds = [t for t in alike if t.number != trial.number]
    return {
        "trial": trial.number,
        "baseline": trial.baseline,
        "repeats": trial.repeats,
        "fold": trial.fold,
        "state": overview.standing(trial),
        "reason": trial.reason,
        "broken": overview.objective.broken(trial.epochs[-1].metrics) if trial.epochs else [],
        "config": trial.flat,
        "against": leader.number if leader else None,
        "differs": _differs(trial, leader) if leader else {},
        "curve": [] if trial.refit is not None else [epoch.value for epoch in trial.epochs],
        "epochs": trial.schedule,
        "stages": trial.stages,
        "seconds": trial.seconds,
        "seed": trial.seed,
        "attempts": trial.attempts,
        "checkpoint": str(checkpoint) if checkpoint and checkpoint.is_file() else None,
        "error": str(folder / "error.txt") if (folder / "error.txt").exists() else None,
        "seeds": {t.number: t.value for t in seeds},
        "decisions": [{**vars(decision), "words": in_words(trial, decision)} for decision in trial.decisions],
    }


def _differs(trial: Trial, other: Trial) -> dict[str, list[Any]]:
    """Parameters that are not the same in two trials: the first one's and the other's value, None where absent."""
    pairs = {key: [trial.flat.get(key), other.flat.get(key)] for key in {**trial.flat, **other.flat}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
