"""The command `python -m search.report STUDY`: writes a study's report, one HTML page that needs nothing beside it."""

import argparse
import re
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.offline
from markupsafe import Markup

from cxr_core.html_page import write_html
from search import figures
from search.durations import format_duration
from search.exit_codes import DONE, USAGE
from search.figures import progress, standing, title
from search.space import Header, rungs_of
from search.study import Study, StudyError
from search.trial import Outcome, Trial

_METRICS = {"auroc_macro": "macro AUROC", "auprc_macro": "macro AUPRC"}
"""How a reader knows an objective, where its name in a space file is not it already."""


def main(argv: list[str] | None = None) -> int:
    """Write the report of a study, which may still be running; returns the exit code."""
    parser = argparse.ArgumentParser("python -m search.report", description=__doc__.partition(": ")[2])
    parser.add_argument("study", metavar="STUDY", help="name in studies/, or a study's folder")
    args = parser.parse_args(argv)
    try:
        study = Study.find(args.study)
    except StudyError as mistake:
        print(mistake, file=sys.stderr)
        return USAGE
    print(write_report(study))
    return DONE


def write_report(study: Study) -> Path:
    """Write `report.html` into a study's folder, from the study alone; a reader sees the old page or the new one."""
    path = study.folder / "report.html"
    write_html(path, "search", "report.html.j2", _Report(study).content(), duration=format_duration)
    return path


@dataclass(frozen=True)
class _Row:
    """A trial in the leaderboard. One that was killed before it had a configuration has neither model nor progress."""

    trial: Trial
    model: str
    progress: str
    films_per_second: float | None


class _Report:
    """What the page says, read from the study once, so that its parts agree while a search goes on."""

    def __init__(self, study: Study):
        self.study, self.facts, self.everything = study, study.facts, study.trials()
        self.header = Header.model_validate({k: v for k, v in self.facts["space"].items() if k != "space"})
        self.metric = _METRICS.get(self.header.objective.metric, self.header.objective.metric)
        self.rungs = rungs_of(self.header)
        self.trials = [trial for trial in self.everything if trial.flat]
        full = [trial for trial in self.trials if trial.outcome is Outcome.FULL]
        self.full = sorted(full, key=lambda trial: (self._cost(trial), trial.number))
        self.best = self.full[0] if self.full else None
        self.early = figures.early_study(study, self.trials, self.rungs)

    def content(self) -> dict[str, Any]:
        """Everything the template asks for."""
        return {
            "study": self.study,
            "header": self.header,
            "facts": self.facts,
            "metric": self.metric,
            "best": self.best,
            "title": title,
            "standing": standing,
            "headline": self._headline(),
            "key_figures": self._key_figures(),
            "areas": self._areas(),
            "leaderboard": self._leaderboard(),
            "figures": {name: figure and figures.draw(figure) for name, figure in self._figures().items()},
            "compared": len(self.early.trials),
            "searched": sum(not trial.baseline for trial in self.trials),
            "saved": self._saved(),
            "parts": [part for part in ("train", "val", "test") if part in self.facts["films"]],
            "space": (self.study.folder / "space.yaml").read_text(encoding="utf-8"),
            "commands": self._commands(),
            "plotly_js": Markup(plotly.offline.get_plotlyjs()),
        }

    def _cost(self, trial: Trial) -> float:
        """The last objective, as something that is better when it is smaller; infinite before the first epoch."""
        if not trial.epochs:
            return float("inf")
        return -trial.epochs[-1].value if self.study.objective.maximize[0] else trial.epochs[-1].value

    def _behind(self, trial: Trial) -> str:
        assert self.best
        return f"{self._cost(trial) - self._cost(self.best):.4f} behind"

    # The first screen

    def _headline(self) -> list[str]:
        """What was found, in sentences; the first one is the answer."""
        if not self.best:
            return self._nothing_found()
        one = f"trial {title(self.best)}, validation {self.metric} {self.best.value:.4f}."
        said = [f"Best of {len(self.full)} full trials: {one}" if self.full[1:] else f"The only full trial: {one}"]
        said += self._rivals()
        sealed = "The test split has not been opened"
        chosen = f"this value is the best of {len(self.full)} on the films it was chosen by, and is optimistic"
        said.append(f"{sealed}: {chosen}." if self.full[1:] else f"{sealed}.")
        if pending := sum(trial.outcome is Outcome.OPEN for trial in self.trials):
            said.append(
                f"Not ended: {pending} of {len(self.everything)} trials. The search is running, or can be resumed."
            )
        return said

    def _nothing_found(self) -> list[str]:
        said = ["No trial has been trained in full, so there is no winner."]
        if started := [trial for trial in self.trials if trial.epochs]:
            furthest = max(started, key=lambda trial: (trial.epochs[-1].epoch / trial.schedule, -self._cost(trial)))
            value = f"validation {self.metric} {furthest.epochs[-1].value:.4f}"
            said.append(f"Furthest is trial {title(furthest)}: {progress(furthest)} epochs, {value}.")
        budget = self.header.budget
        more = ""
        if budget.time:
            more = f" --time {format_duration(2 * budget.time).replace(' ', '')}"
        elif all(trial.outcome is not Outcome.OPEN for trial in self.everything):
            more = f" --trials {2 * budget.trials}"
        return [*said, f"To go on: {self._resume}{more}"]

    def _rivals(self) -> list[str]:
        """Who comes next, and how searched trials and baselines compare."""
        assert self.best
        said = []
        if self.best.baseline:
            said.append(f"A baseline wins: the search found nothing better than the recipe {self.best.baseline}.")
        for second in self.full[1:2]:
            said.append(
                f"Second is trial {title(second)}, {self._behind(second)}; "
                "only repeating both with other seeds can tell whether that is more than chance."
            )
        others = [trial for trial in self.full[1:] if bool(trial.baseline) != bool(self.best.baseline)]
        if others and others[0] is not self.full[1]:
            kind = "baseline" if others[0].baseline else "searched trial"
            said.append(f"The best {kind} is trial {title(others[0])}, {self._behind(others[0])}.")
        return said

    def _key_figures(self) -> list[tuple[str, str]]:
        counts = Counter(standing(trial) for trial in self.everything)
        films, patients = self.facts["films"], self.facts["patients"]
        seen = [part for part in films if part != "test"]
        last = max((epoch.at for trial in self.trials for epoch in trial.epochs), default=self.facts["created"])
        by_outcome = ", ".join(f"{count} {how}" for how, count in counts.most_common())
        whose = f"{sum(patients[part] for part in seen):,} patients, test films left out"
        return [
            ("Trials", f"{len(self.everything)}: {by_outcome}"),
            ("Training time", f"{format_duration(sum(trial.seconds for trial in self.trials))} over all trials"),
            ("Films", f"{sum(films[part] for part in seen):,} of {whose}"),
            ("Begun", _date(self.facts["created"])),
            ("Last epoch", _date(last)),
        ]

    # The sections

    def _areas(self) -> list[tuple[str, float | None, int, int]]:
        """The winner's AUROC of each label, best first, with the label's positives and labelled films in validation."""
        if not self.best:
            return []
        counts = {label: parts["val"] for label, parts in self.facts["labels"].items()}
        areas = [
            (label, area, counts[label]["positive"], counts[label]["labelled"])
            for label, area in self.best.epochs[-1].auroc.items()
        ]
        return sorted(areas, key=lambda row: -1.0 if row[1] is None else row[1], reverse=True)

    def _leaderboard(self) -> list[_Row]:
        """Full trials by their objective, then the others by the rungs they reached and the objective there."""
        others = [trial for trial in self.everything if trial.outcome is not Outcome.FULL]
        others.sort(key=lambda trial: (-self._rungs_reached(trial), self._cost(trial), trial.number))
        return [_row(trial) for trial in (*self.full, *others)]

    def _rungs_reached(self, trial: Trial) -> int:
        """Rungs met so far; -1 before the first epoch."""
        if not trial.epochs:
            return -1
        return sum(epoch <= trial.epochs[-1].epoch for epoch in self.rungs.epochs(trial.schedule))

    def _figures(self) -> dict[str, Any]:
        """The figures that this study has something to show in; None for one that would be empty."""
        trained = any(trial.epochs for trial in self.trials)
        return {
            "areas": figures.label_areas(self._areas()) if self.best else None,
            "losses": figures.losses(self.best) if self.best else None,
            "curves": figures.learning_curves(self.trials, self.best, self.rungs, self.metric) if trained else None,
            "history": figures.history(self.trials, self.best, self.metric, self.study.objective.maximize[0])
            if trained
            else None,
            "importances": figures.importances(self.early),
            "parallel": figures.parallel(self.early, self.metric),
            "families": figures.families(self.trials, self.rungs, self.metric) if trained else None,
        }

    def _saved(self) -> dict[str, Any]:
        """Epochs trained, and what the pruned trials would have cost in full, each at its own speed."""
        left, seconds = 0, 0.0
        for trial in self.trials:
            if trial.outcome is Outcome.PRUNED and trial.epochs:
                missing = trial.schedule - len(trial.epochs)
                left += missing
                seconds += missing * trial.seconds / len(trial.epochs)
        return {"trained": sum(len(trial.epochs) for trial in self.trials), "left": left, "seconds": seconds}

    @property
    def _resume(self) -> str:
        # By its folder: a study that a --fresh search set aside has kept its name, not its place.
        return f"python -m search.run --study {self.study.folder.resolve().name} --resume"

    def _commands(self) -> list[tuple[str, str]]:
        """What to type, in the folder that holds `studies/`, to go on, repeat or look closer."""
        folder = shlex.quote(str(self.study.folder.resolve()))
        again = f"--data {shlex.quote(self.facts['data'])} --seed {self.facts['seed']} --study {self.study.name}-again"
        # A page that is passed on must not hold the password of a database.
        uri = re.sub(r"//[^/@]+@", "//", self.facts["mlflow"])
        is_server = uri.startswith(("http://", "https://"))
        return [
            ("Go on with this search", self._resume),
            ("Search again from the start", f"python -m search.run --space {folder}/space.yaml {again}"),
            ("Browse the trials", f"optuna-dashboard {folder}/journal.log"),
            ("MLflow", uri if is_server else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"),
            ("Write this page again", f"python -m search.report {folder}"),
        ]


def _row(trial: Trial) -> _Row:
    speed = fmean(epoch.films_per_second for epoch in trial.epochs) if trial.epochs else None
    return _Row(trial, str(trial.flat["model"]), progress(trial), speed) if trial.flat else _Row(trial, "", "", None)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


if __name__ == "__main__":
    sys.exit(main())
