"""Sections on networks beside the one that is handed over: the ensemble, and the refit on more films."""

from typing import Any

from search.finals import ensemble_words, words
from search.finals.ensemble import read_ensemble
from search.finals.refit import refit_sentence
from search.report.reading import Reading, named


def ensemble(reading: Reading) -> dict[str, Any] | None:
    """Its members, what it gains and costs, and the majority vote."""
    found = read_ensemble(reading.study.folder)
    if not found:
        return None
    return {"ensemble": found, "metric": named(found["metric"]), "words": words, "ensemble_words": ensemble_words}


def refit(reading: Reading) -> dict[str, Any] | None:
    """What can be said of the winner trained once more."""
    said = refit_sentence(reading.study.trials(), reading.finals) if reading.finals else ""
    return {"refit": said} if said else None
