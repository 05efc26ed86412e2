"""Sections on the record of a study: its data, what it cost, what failed, what was decided, and how to repeat it."""

import re
import shlex
from collections import Counter
from typing import Any

from search.durations import format_date
from search.finals import words
from search.ledger import history
from search.life import in_words
from search.overview import failures
from search.report import figures
from search.report.account import saved, shares
from search.report.drawing import draw
from search.report.reading import Reading

_LOG = 1000
"""Decisions that the page lists; `search.status` tells all of each trial."""


def data(reading: Reading) -> dict[str, Any]:
    """Films and labels of each split, and the openings of the test split."""
    return {
        "parts": [part for part in ("train", "val", "test") if part in reading.facts["films"]],
        "opened": words.opened(reading.openings),
        "openings": [(format_date(opening["at"]), opening) for opening in reading.openings],
    }


def paid(reading: Reading) -> dict[str, Any]:
    """Device-hours by what became of the trials."""
    found = shares(reading.trials, reading.overview.budget.devices)
    return {"shares": found, "figure": draw(figures.shares(found)) if reading.is_trained else None}


def pruning(reading: Reading) -> dict[str, Any]:
    """What pruning saved."""
    return {"saved": saved(reading.trials)}


def failed(reading: Reading) -> dict[str, Any]:
    """Trials that broke, by class and reason."""
    return {"failures": failures(reading.trials), "error": lambda number: f"trials/{number:05d}/error.txt"}


def decisions(reading: Reading) -> dict[str, Any]:
    """The ledger."""
    log = history(reading.trials)
    return {
        "steps": Counter(decision.step.value for _, decision in log).most_common(),
        "log": [(format_date(d.at, seconds=True), trial, in_words(trial, d)) for trial, d in log[-_LOG:]],
    }


def reproduce(reading: Reading) -> dict[str, Any]:
    """Versions, commands and the space."""
    return {
        "space": (reading.study.folder / "space.yaml").read_text(encoding="utf-8"),
        "commands": _commands(reading),
    }


def _commands(reading: Reading) -> list[tuple[str, str]]:
    """What to type, in the folder that holds `studies/`, to go on, repeat or look closer."""
    study, facts = reading.study, reading.facts
    folder = shlex.quote(str(study.folder.resolve()))
    again = f"--data {shlex.quote(facts['data'])} --seed {facts['seed']} --study {study.name}-again"
    # A page that is passed on must not hold the password of a database.
    uri = re.sub(r"//[^/@]+@", "//", facts["mlflow"])
    is_server = uri.startswith(("http://", "https://"))
    return [
        ("Go on with this search", reading.resume),
        ("Search again from the start", f"python -m search.run --space {folder}/space.yaml {again}"),
        ("Browse the trials", f"optuna-dashboard {folder}/journal.log"),
        ("MLflow", uri if is_server else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"),
        ("Write this page again", f"python -m search.report {folder}"),
    ]
