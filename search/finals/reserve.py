"""The finals at the end of a search, as large as the reserve of its budget affords."""

import logging
from collections.abc import Sequence

from search.durations import format_duration
from search.finals.repeats import choose
from search.finals.session import Request, Result, begun, run_finals
from search.placement import Resources
from search.study import Study
from search.trial import Trial

log = logging.getLogger(__name__)

_SIZES = ((3, 3), (3, 2), (2, 2))
"""(best trials, trainings of each), the most telling first; with less, nothing is known of seeds, or of a rival."""


def hold_finals(study: Study, reserve: float, resources: Resources) -> Result | None:
    """Hold the finals of a search that has just ended; None where the search should not, and the log says why.

    reserve: the budget's share for them. Finals that were begun go on as they were. Raises what `run_finals` raises.
    """
    if why := sealed_off(study) if reserve else "budget.reserve is 0":
        log.info("no finals: %s", why)
        return None
    size = begun(study) or affordable(study, reserve)
    if size is None:
        spare = format_duration(allowance(study, reserve) / resources.concurrent)
        log.info(
            "no finals: the reserve of the budget, about %s, is too little for two finalists with two seeds", spare
        )
        return None
    top, seeds = size
    folds = study.objective.other_folds
    said = f"{seeds} trainings of each{f', and on {folds} other folds to break a tie' if folds else ''}"
    log.info("finals: the best %d and the baselines, %s, from the reserve of the budget", top, said)
    return run_finals(Request(study.folder, top, seeds, reopen=None, resources=resources))


def sealed_off(study: Study) -> str | None:
    """Why a study's finals cannot open the test split, if they cannot."""
    if "test" not in study.facts["films"]:
        return f"{study.facts['data']} has no test split, so there is nothing to judge finalists by"
    if study.facts.get("test_openings") and not _cut_off(study):
        return "the test split was opened before; to open it again: python -m search.finalize with --reopen-test REASON"
    return None


def _cut_off(study: Study) -> bool:
    """Whether finals opened the split and were killed before they had told everything, and it is still their search."""
    opened = study.facts["test_openings"][-1]["at"]
    searched = (trial for trial in study.trials() if trial.epochs and not trial.finals)
    return bool(study.facts.get("finals_ended", 0.0) < opened and all(t.epochs[-1].at < opened for t in searched))


def allowance(study: Study, reserve: float) -> float:
    """Seconds of training that finals may take: the reserve's share of what search and finals take together."""
    return reserve / (1 - reserve) * sum(trial.seconds for trial in study.trials() if not trial.finals)


def affordable(study: Study, reserve: float) -> tuple[int, int] | None:
    """(best trials, trainings of each) of the finals that a reserve pays for; None if it pays for none.

    A training with another seed, or on another fold, is taken to cost what the first one did. Raises NoFinalist.
    """
    left = allowance(study, reserve)
    for top, seeds in _SIZES:
        if _cost(study, choose(study, top), seeds) <= left:
            return top, seeds
    return None


def _cost(study: Study, finalists: Sequence[Trial], seeds: int) -> float:
    """Seconds of training that finals take: other seeds of all, and other folds of those that a tie may be between."""
    of_one = {t.number: sum(epoch.seconds for epoch in t.last_training) for t in finalists}
    may_win = [trial.number for trial in finalists if study.may_win(trial)]
    folds = study.objective.other_folds if len(may_win) > 1 else 0
    return (seeds - 1) * sum(of_one.values()) + folds * sum(of_one[number] for number in may_win)
