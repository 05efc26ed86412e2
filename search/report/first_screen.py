"""The first screen of the report: what was found, and how sure it is."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from search.durations import format_date, format_duration
from search.evidence import words as evidence_words
from search.finals import words
from search.report.names import progress, standing, title
from search.report.reading import Reading, named
from search.trial import Outcome, Trial

RESEARCH_ONLY = "Research only: nothing here is made or tested for clinical use."


def headline(reading: Reading) -> list[str]:
    """What was found, in sentences; the first one is the answer, and the others say how sure it is."""
    if not reading.best:
        return _nothing_found(reading)
    said = _of_finals(reading, reading.finals) if reading.finals else _of_search(reading)
    if pending := sum(trial.outcome is Outcome.OPEN for trial in reading.trials):
        said.append(f"Not ended: {pending} of {len(reading.trials)} trials. The search is running, or can be resumed.")
    return said


def warnings(reading: Reading) -> list[str]:
    """Why the answer may be wrong, beside what the headline says."""
    return list(reading.finals["warnings"]) if reading.finals else []


def _of_search(reading: Reading) -> list[str]:
    assert reading.best
    one = f"trial {title(reading.best)}, validation {reading.metric} {reading.best.value:.4f}."
    count = len(reading.ranked)
    said = [f"Best of {count} full trials: {one}" if count > 1 else f"The only full trial: {one}"]
    said += [*_compromises(reading), *_rivals(reading)]
    sealed = words.opened(reading.openings).removesuffix(".")
    chosen = f"this value is the best of {count} on the films it was chosen by, and is optimistic"
    said.append(f"{sealed}: {chosen}." if count > 1 else f"{sealed}.")
    return said


def _of_finals(reading: Reading, record: Mapping[str, Any]) -> list[str]:
    assert reading.best
    said = [*words.headline(record, title(reading.best), named(record["metric"])), *_compromises(reading)]
    leader = reading.overview.winner
    if leader and leader.number != reading.best.number:
        trained = f"over {reading.folds} folds" if reading.folds > 1 else "in one training"
        value = f"validation {reading.metric} {leader.value:.4f} {trained}"
        known = leader.number in [row["trial"] for row in record["finalists"]]
        behind = "a tie-breaker put another one first" if record.get("tie") else "other seeds put it behind"
        why = behind if known else "it came after the finals; search.finalize compares it"
        said.append(f"Best of the search was trial {title(leader)}, {value}: {why}.")
    if reading.evidence:
        said += [evidence_words.delivered(reading.evidence), evidence_words.shortcut(reading.evidence)]
    return [*said, words.opened(reading.openings)]


def _compromises(reading: Reading) -> Iterator[str]:
    """How several objectives, and the constraints, bear on who wins."""
    if len(reading.metrics) > 1:
        others = ", ".join(reading.metrics[1:])
        yield (
            f"It is best in {reading.metric}, which names the winner; {len(reading.front)} of {len(reading.ranked)} "
            f"trials are on the Pareto front with {others}, where no other trial is better in everything."
        )
    if reading.violators:
        yield f"{len(reading.violators)} of {len(reading.full)} full trials violate a constraint and cannot win."


def _nothing_found(reading: Reading) -> list[str]:
    said = ["No trial has been trained in full, so there is no winner."]
    if reading.violators:
        said = [f"None of {len(reading.full)} full trials keeps the constraints, so there is no winner."]
    if started := [trial for trial in reading.trials if trial.epochs]:
        furthest = min(started, key=lambda trial: (-len(trial.epochs) / trial.schedule, reading.order(trial)))
        value = f"validation {reading.metric} {furthest.epochs[-1].value:.4f}"
        said.append(f"Furthest is trial {title(furthest)}: {progress(furthest)} epochs, {value}.")
    budget = reading.header.budget
    more = ""
    if budget.time:
        more = f" --time {format_duration(2 * budget.time).replace(' ', '')}"
    elif all(trial.outcome is not Outcome.OPEN for trial in reading.trials):
        more = f" --trials {2 * budget.trials}"
    return [*said, f"To go on: {reading.resume}{more}"]


def _rivals(reading: Reading) -> Iterator[str]:
    """Who comes next, and how searched trials and baselines compare."""
    best, ranked = reading.best, reading.ranked
    assert best

    def behind(trial: Trial) -> str:
        return f"{abs((trial.value or 0.0) - (best.value or 0.0)):.4f} behind"

    if best.baseline:
        yield f"A baseline wins: the search found nothing better than the recipe {best.baseline}."
    for second in ranked[1:2]:
        yield (
            f"Second is trial {title(second)}, {behind(second)}; "
            "only repeating both with other seeds can tell whether that is more than chance."
        )
    others = [trial for trial in ranked[1:] if bool(trial.baseline) != bool(best.baseline)]
    if others and others[0] is not ranked[1]:
        kind = "baseline" if others[0].baseline else "searched trial"
        yield f"The best {kind} is trial {title(others[0])}, {behind(others[0])}."


def key_figures(reading: Reading) -> list[tuple[str, str]]:
    """Size and dates of the search."""
    counts = Counter(standing(trial) for trial in reading.trials)
    films, patients = reading.facts["films"], reading.facts["patients"]
    seen = [part for part in films if part != "test"]
    last = max((epoch.at for trial in reading.trials for epoch in trial.epochs), default=reading.facts["created"])
    by_outcome = ", ".join(f"{count} {how}" for how, count in counts.most_common())
    whose = f"{sum(patients[part] for part in seen):,} patients, test films left out"
    return [
        ("Trials", f"{len(reading.trials)}: {by_outcome}"),
        ("Training time", f"{format_duration(sum(trial.seconds for trial in reading.trials))} over all trials"),
        ("Films", f"{sum(films[part] for part in seen):,} of {whose}"),
        ("Begun", format_date(reading.facts["created"])),
        ("Last epoch", format_date(last)),
    ]
