"""The command `python -m search.report STUDY`: writes a study's report, one HTML page that needs nothing beside it."""

import argparse
import importlib.resources
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.offline
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from search.durations import format_duration
from search.exit_codes import DONE, USAGE
from search.figures import title
from search.rungs import Rungs
from search.space import Header
from search.study import Outcome, Study, StudyError, Trial


def main(argv: list[str] | None = None) -> int:
    """Write the report of a study, which may still be running; returns the exit code."""
    parser = argparse.ArgumentParser("python -m search.report", description=__doc__.partition(": ")[2])
    parser.add_argument("study", metavar="STUDY", help="name in studies/, or a study's folder")
    args = parser.parse_args(argv)
    folder = Path(args.study) if Path(args.study).is_dir() else Path("studies") / args.study
    try:
        study = Study(folder)
    except StudyError as mistake:
        print(mistake, file=sys.stderr)
        return USAGE
    print(write_report(study))
    return DONE


def write_report(study: Study) -> Path:
    """Write `report.html` into a study's folder, from the study alone; a reader sees the old page or the new one."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["duration"] = format_duration
    template = importlib.resources.files("search").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(_Report(study).content())
    path = study.folder / "report.html"
    partial = path.with_name(f".report.{os.getpid()}.html")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


@dataclass(frozen=True)
class _Row:
    """A trial in the leaderboard; `progress` is empty if the search was killed before the trial had a configuration."""

    trial: Trial
    progress: str
    films_per_second: float | None


class _Report:
    """What the page says, read from the study once, so that its parts agree while a search goes on."""

    def __init__(self, study: Study):
        self.study = study
        self.facts = study.facts
        self.header = Header.model_validate({k: v for k, v in self.facts["space"].items() if k != "space"})
        self.metric = self.header.objective.metric
        self.rungs = Rungs(self.header.asha.rungs, self.header.asha.eta, study.maximize)
        self.all = study.trials()
        self.trials = [trial for trial in self.all if trial.flat]
        full = [trial for trial in self.trials if trial.outcome is Outcome.FULL]
        self.full = sorted(full, key=lambda trial: (self._cost(trial.value), trial.number))
        self.best = self.full[0] if self.full else None

    def content(self) -> dict[str, Any]:
        """Everything the template asks for."""
        return {
            "name": self.study.name,
            "metric": self.metric,
            "phantom": self.facts["data"] == "phantom",
            "headline": self._headline(),
            "key_figures": self._key_figures(),
            "best": self.best,
            "title": title,
            "areas": self._areas(),
            "rows": self._leaderboard(),
            "early": self._early(),
            "figures": self._figures(),
            "saved": self._saved(),
            "rungs": self.rungs,
            "facts": self.facts,
            "parts": [part for part in ("train", "val", "test") if part in self.facts["films"]],
            "labels": self.header.task.labels,
            "space": (self.study.folder / "space.yaml").read_text(encoding="utf-8"),
            "commands": self._commands(),
            "plotly_js": Markup(plotly.offline.get_plotlyjs()),
        }
