"""The report for machines, `report.json`: what the page says, as one object of strict JSON."""

from typing import Any

from search.overview import failures, values_of
from search.report.account import fate, saved, shares
from search.report.first_screen import RESEARCH_ONLY, headline, key_figures, warnings
from search.report.reading import Reading
from search.report.sections.search import origin, ranking
from search.trial import Trial

FORMAT = 1
"""Raised when a key changes its meaning or goes."""


def describe(reading: Reading) -> dict[str, Any]:
    """The page's content, None where undefined; times are Unix times and lengths are seconds.

    - `format`, `study`, `created`, `research_only`;
    - `headline`: the sentences of the first screen, the answer first; `warnings`: those of them that warn;
      `key_figures`: size and dates, in words;
    - `task`, `objectives` (the first one names the winner), `searcher`, `seed`, `versions`;
    - `data`: name, image size, notes, split hash, films, patients and labels of each split;
    - `openings` of the test split, the first one first, and `opened`, how many;
    - `winner`: a row of the leaderboard, of the finals if there were any; None without;
    - `finalists`: as `finalists.json`; `evidence`: as `evidence.json`; each None before `search.finalize`;
    - `leaderboard`: all trials in the page's order: `trial`, `model`, `from`, `outcome`, `fate` (as the costs tell it),
      `reason`, `values` of the objectives, `epochs` done of `schedule`, `seconds`, `violates` (constraints missed),
      `on_front`, `parameters`;
    - `costs`: `devices` a trial, and `shares`: by what became of trials, their `trials`, `epochs`, `device_hours`;
      `pruning`: epochs `trained` and `spared`, and about how many `seconds` that is;
    - `failures`: by `class` and `reason`, the numbers of their `trials`.
    """
    header, facts, study = reading.header, reading.facts, reading.study
    devices, spared = reading.overview.budget.devices, saved(reading.trials)
    return {
        "format": FORMAT,
        "study": study.name,
        "created": facts["created"],
        "research_only": RESEARCH_ONLY,
        "headline": headline(reading),
        "warnings": warnings(reading),
        "key_figures": dict(key_figures(reading)),
        "task": {"kind": header.task.kind, "labels": list(header.task.labels)},
        "objectives": list(study.objective.metrics),
        "searcher": header.searcher.name,
        "seed": facts["seed"],
        "versions": facts["versions"],
        "data": {
            "name": facts["data"],
            "image_size": header.data.image_size,
            **{key: facts[key] for key in ("notes", "split_hash", "unreadable", "films", "patients", "labels")},
        },
        "openings": reading.openings,
        "opened": len(reading.openings),
        "winner": _row(reading, reading.best) if reading.best else None,
        "finalists": reading.finals,
        "evidence": reading.evidence,
        "leaderboard": [_row(reading, trial) for trial in ranking(reading)],
        "costs": {
            "devices": devices,
            "shares": [
                {"fate": share.fate, "trials": share.trials, "epochs": share.epochs, "device_hours": share.hours}
                for share in shares(reading.trials, devices)
            ],
        },
        "pruning": {"trained": spared.trained, "spared": spared.left, "seconds": spared.seconds},
        "failures": [
            {"class": failure.outcome.value, "reason": failure.reason, "trials": [t.number for t in failure.trials]}
            for failure in failures(reading.trials)
        ],
    }


def _row(reading: Reading, trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "model": trial.family,
        "from": origin(trial),
        "outcome": trial.outcome.value,
        "fate": fate(trial),
        "reason": trial.reason,
        "values": values_of(trial, reading.study.objective.metrics),
        "epochs": trial.epochs[-1].epoch if trial.epochs else 0,
        "schedule": trial.schedule,
        "seconds": trial.seconds,
        "violates": reading.violators.get(trial.number, []),
        "on_front": any(trial.number == other.number for other in reading.front),
        "parameters": {**trial.flat, "seed": trial.seed},
    }
