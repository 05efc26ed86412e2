"""Sections on who won: the winner's parameters, the finalists side by side, and other seeds."""

from typing import Any

from search.finals import words
from search.report import figures
from search.report.account import spreads
from search.report.drawing import draw
from search.report.reading import Reading, named


def winner(reading: Reading) -> dict[str, Any] | None:
    """The winner's parameters, and its validation AUROC of each label."""
    if not reading.best:
        return None
    areas = _areas(reading)
    return {"areas": areas, "figure": draw(figures.label_areas(areas))}


def _areas(reading: Reading) -> list[tuple[str, float | None, int, int]]:
    """The winner's AUROC of each label, best first, with the label's positives and labelled films in validation."""
    assert reading.best
    counts = {label: parts["val"] for label, parts in reading.facts["labels"].items()}
    areas = [
        (label, area, counts[label]["positive"], counts[label]["labelled"])
        for label, area in reading.best.epochs[-1].auroc.items()
    ]
    return sorted(areas, key=lambda row: -1.0 if row[1] is None else row[1], reverse=True)


def finalists(reading: Reading) -> dict[str, Any] | None:
    """The finalists on validation and test, by the finals' own metric, and how they differ from the winner."""
    found = reading.finals
    return {"finals": found, "metric": named(found["metric"]), "words": words} if found else None


def seeds(reading: Reading) -> dict[str, Any] | None:
    """How far the objective moves by chance; where it is a mean over folds, what of it each training has."""
    if reading.folds > 1:
        own = reading.study.objective.judged
        found, metric = spreads(reading.trials, own), named(own)
    else:
        found, metric = spreads(reading.trials), reading.metric
    return {"spreads": found, "metric": metric} if found else None
