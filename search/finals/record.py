"""The finalists' result as a study keeps it, `finalists.json`, for the terminal, the report and other programs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_core.json_file import strict, write_json
from cxr_core.metrics import EPOCH_METRICS
from cxr_core.scorecard import finite
from search.finals.verdict import Difference, Reached, Standing, Verdict
from search.trial import Trial

FORMAT = 2
"""Of what finals tell in `finalists.json` and `ensemble.json`; what has another format is told again."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """The result that a study keeps; None if its finalists have not been evaluated, as `read_told`."""
    return read_told(folder / "finalists.json")


def read_told(path: Path) -> dict[str, Any] | None:
    """What finals have told in a file; None without it, or if it has another format: then they tell it again."""
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return record if record.get("format") == FORMAT else None


def winner_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of the finalist that won."""
    row: dict[str, Any] = next(row for row in record["finalists"] if row["trial"] == record["winner"])
    return row


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Keep a result."""
    write_json(folder / "finalists.json", record)


def describe(
    study: Path,
    verdict: Verdict,
    finalists: Sequence[Trial],
    trainings: Mapping[int, Sequence[Trial]],
    broken: Sequence[Trial],
    openings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A verdict as JSON takes it: None where a value is undefined; finalists by their mean on validation, best first.

    trainings: evaluated ones, by finalist. broken: those that ended before they were done. `delivered`: the winner's
    training that is handed over, its best on validation.
    """
    trial_of = {trial.number: trial for trial in finalists}
    return {
        "format": FORMAT,
        "study": str(study),
        "metric": verdict.metric,
        "winner": verdict.winner,
        "delivered": _delivered(verdict, trainings[verdict.winner]),
        "tie": verdict.tie,
        "sentence": verdict.sentence,
        "warnings": [*verdict.warnings, *(_of_broken(trial) for trial in broken)],
        "finalists": [_finalist(verdict, trial_of[number], trainings[number]) for number in verdict.order],
        "films": {"validation": _films(verdict.validation), "test": _films(verdict.test)},
        "gap": strict(vars(verdict.gap)),
        "ranking": {"spearman": finite(verdict.spearman), "kendall": finite(verdict.kendall)},
        "openings": [dict(opening) for opening in openings],
    }


def _of_broken(trial: Trial) -> str:
    ended = f"Trial {trial.name} ended as {trial.outcome.value}"
    if trial.fold is not None:
        return f"{ended}: trial {trial.repeats} has no mean over the folds, and loses a tie that such a mean decides."
    return f"{ended}: no mean counts it, but it might happen again."


def evaluated(record: Mapping[str, Any]) -> dict[int, list[int]]:
    """The trainings that a record is about, by finalist."""
    return {row["trial"]: [one["trial"] for one in row["trainings"]] for row in record["finalists"]}


def _delivered(verdict: Verdict, trainings: Sequence[Trial]) -> int:
    values = verdict.validation.reached[verdict.winner].values
    sign = 1 if EPOCH_METRICS[verdict.metric].direction == "maximize" else -1
    ranked = {t.number: -math.inf if math.isnan(v) else sign * v for v, t in zip(values, trainings, strict=True)}
    return max(ranked, key=lambda number: (ranked[number], -number))


def _finalist(verdict: Verdict, trial: Trial, trainings: Sequence[Trial]) -> dict[str, Any]:
    number = trial.number
    validation, test = verdict.validation.reached[number], verdict.test.reached[number]
    values = zip(trainings, validation.values, test.values, strict=True)
    return {
        "trial": number,
        "model": trial.family,
        "baseline": trial.baseline,
        "trainings": [
            {"trial": one.number, "seed": one.seed, "validation": finite(val), "test": finite(on_test)}
            for one, val, on_test in values
        ],
        "validation": _reached(validation, verdict.validation.differences.get(number)),
        "test": _reached(test, verdict.test.differences.get(number)),
    }


def _reached(reached: Reached, difference: Difference | None) -> dict[str, Any]:
    told = {key: finite(getattr(reached, key)) for key in ("mean", "sd", "low", "high")}
    if difference is None:
        return {**told, "difference": None}
    figures = {key: finite(value) for key, value in vars(difference).items()}
    return {**told, "difference": {**figures, "is_noise": difference.is_noise}}


def _films(standing: Standing) -> dict[str, int]:
    return {"films": standing.films, "labels": standing.labels, "of_labels": standing.of_labels}
