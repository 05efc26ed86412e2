"""The command `python -m search.report STUDY`: writes a study's report, one HTML page that needs nothing beside it."""

import argparse
import re
import shlex
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.offline
from markupsafe import Markup

from cxr_core.html_page import write_html
from search import figures
from search.account import saved, shares, spreads
from search.durations import format_duration
from search.exit_codes import DONE, USAGE
from search.fidelity import Fidelities
from search.figures import progress, standing, title
from search.finals import ensemble_words
from search.finals import words as finals
from search.finals.ensemble import read_ensemble
from search.finals.record import read_record
from search.finals.refit import refit_sentence
from search.ledger import history
from search.life import in_words
from search.overview import Overview, failures, figure, values_of
from search.study import Study, StudyError
from search.trial import Outcome, Trial

_METRICS = {"auroc_macro": "macro AUROC", "auprc_macro": "macro AUPRC"}
"""How a reader knows an objective, where its name in a space file is not it already."""
_LOG = 1000
"""Decisions that the page lists; `search.status` tells all of each trial."""


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
    write_html(path, "search", "report.html.j2", _Report(study).content(), duration=format_duration, figure=figure)
    return path


class _Report:
    """What the page says, read from the study once, so that its parts agree while a search goes on."""

    def __init__(self, study: Study):
        self.study = study
        self.overview = Overview(study)
        self.facts, self.header, self.trials = self.overview.facts, self.overview.header, self.overview.trials
        self.metrics = [_METRICS.get(metric, metric) for metric in study.objective.metrics]
        self.metric = self.metrics[0]
        self.rungs, self.best, self.front = self.overview.rungs, self.overview.winner, self.overview.front
        self.full = sorted((trial for trial in self.trials if trial.outcome is Outcome.FULL), key=self._order)
        self.violators = {trial.number: broken for trial in self.full if (broken := self._broken(trial))}
        self.ranked = [t for t in self.full if t.repeats is None and t.number not in self.violators]
        self.finals, self.openings = read_record(study.folder), self.facts.get("test_openings", [])
        if self.finals:
            self.best = self.trials[self.finals["winner"]]
        self.early = figures.early_study(study, self.trials, self.rungs)

    def content(self) -> dict[str, Any]:
        """Everything the template asks for."""
        log = history(self.trials)
        return {
            "study": self.study,
            "trials": self.trials,
            "header": self.header,
            "facts": self.facts,
            "metric": self.metric,
            "metrics": self.metrics,
            "best": self.best,
            "front": self.front,
            "title": title,
            "standing": standing,
            "headline": self._headline(),
            "key_figures": self._key_figures(),
            "areas": self._areas(),
            "leaderboard": self._leaderboard(),
            "finals": self.finals,
            "words": finals,
            "ensemble": read_ensemble(self.study.folder),
            "ensemble_words": ensemble_words,
            "refit": refit_sentence(self.trials, self.finals) if self.finals else "",
            "opened": finals.opened(self.openings),
            "openings": [(_date(opening["at"]), opening) for opening in self.openings],
            "violators": [(self.trials[number], broken) for number, broken in self.violators.items()],
            "spreads": spreads(self.trials),
            "failures": failures(self.trials),
            "error": lambda number: f"trials/{number:05d}/error.txt",
            "figures": {name: drawn and figures.draw(drawn) for name, drawn in self._figures().items()},
            "compared": len(self.early.trials),
            "searched": sum(trial.searched for trial in self.trials),
            "stages": self._stages(),
            "saved": saved(self.trials),
            "shares": self._shares(),
            "steps": Counter(decision.step.value for _, decision in log).most_common(),
            "log": [(_date(d.at, seconds=True), trial, in_words(trial, d)) for trial, d in log[-_LOG:]],
            "parts": [part for part in ("train", "val", "test") if part in self.facts["films"]],
            "space": (self.study.folder / "space.yaml").read_text(encoding="utf-8"),
            "commands": self._commands(),
            "plotly_js": Markup(plotly.offline.get_plotlyjs()),
        }

    def _order(self, trial: Trial) -> tuple[Any, ...]:
        """What sorts trials from the best to the worst by their last epoch; those without one come last."""
        if not trial.epochs:
            return (float("inf"), (), trial.number)
        return (*self.study.objective.reached(trial.epochs[-1].metrics), trial.number)

    def _broken(self, trial: Trial) -> list[str]:
        return self.study.objective.broken(trial.epochs[-1].metrics)

    def _behind(self, trial: Trial) -> str:
        assert self.best
        return f"{abs((trial.value or 0.0) - (self.best.value or 0.0)):.4f} behind"

    def _shares(self) -> list[Any]:
        return shares(self.trials, self.overview.budget.devices)

    def _stages(self) -> list[str]:
        """What each stage of a trial is trained on; empty where a trial is one training."""
        asha, size = self.header.asha, self.header.data.image_size
        fidelities = Fidelities(asha.fidelity, asha.rungs, size)
        if fidelities.stages == 1:
            return []
        stages = [fidelities.stage(index, 1) for index in range(fidelities.stages)]
        return [f"{stage.image_size} px, {stage.data_share:.0%} of the training patients" for stage in stages]

    # The first screen

    def _headline(self) -> list[str]:
        """What was found, in sentences; the first one is the answer."""
        if not self.best:
            return self._nothing_found()
        said = self._of_finals(self.finals) if self.finals else self._of_search()
        if pending := sum(trial.outcome is Outcome.OPEN for trial in self.trials):
            said.append(f"Not ended: {pending} of {len(self.trials)} trials. The search is running, or can be resumed.")
        return said

    def _of_search(self) -> list[str]:
        assert self.best
        one = f"trial {title(self.best)}, validation {self.metric} {self.best.value:.4f}."
        count = len(self.ranked)
        said = [f"Best of {count} full trials: {one}" if count > 1 else f"The only full trial: {one}"]
        said += [*self._compromises(), *self._rivals()]
        sealed = finals.opened(self.openings).removesuffix(".")
        chosen = f"this value is the best of {count} on the films it was chosen by, and is optimistic"
        said.append(f"{sealed}: {chosen}." if count > 1 else f"{sealed}.")
        return said

    def _of_finals(self, record: dict[str, Any]) -> list[str]:
        assert self.best
        said = [*finals.headline(record, title(self.best), self.metric), *self._compromises()]
        leader = self.overview.winner
        if leader and leader.number != self.best.number:
            value = f"validation {self.metric} {leader.value:.4f} in one training"
            known = leader.number in [row["trial"] for row in record["finalists"]]
            behind = "a tie-breaker put another one first" if record.get("tie") else "other seeds put it behind"
            why = behind if known else "it came after the finals; search.finalize compares it"
            said.append(f"Best of the search was trial {title(leader)}, {value}: {why}.")
        return [*said, finals.opened(self.openings)]

    def _compromises(self) -> list[str]:
        """How several objectives, and the constraints, bear on who wins."""
        said = []
        if len(self.metrics) > 1:
            others = ", ".join(self.metrics[1:])
            said.append(
                f"It is best in {self.metric}, which names the winner; {len(self.front)} of {len(self.ranked)} trials "
                f"are on the Pareto front with {others}, where no other trial is better in everything."
            )
        if self.violators:
            said.append(f"{len(self.violators)} of {len(self.full)} full trials violate a constraint and cannot win.")
        return said

    def _nothing_found(self) -> list[str]:
        said = ["No trial has been trained in full, so there is no winner."]
        if self.violators:
            said = [f"None of {len(self.full)} full trials keeps the constraints, so there is no winner."]
        if started := [trial for trial in self.trials if trial.epochs]:
            furthest = min(started, key=lambda trial: (-len(trial.epochs) / trial.schedule, self._order(trial)))
            value = f"validation {self.metric} {furthest.epochs[-1].value:.4f}"
            said.append(f"Furthest is trial {title(furthest)}: {progress(furthest)} epochs, {value}.")
        budget = self.header.budget
        more = ""
        if budget.time:
            more = f" --time {format_duration(2 * budget.time).replace(' ', '')}"
        elif all(trial.outcome is not Outcome.OPEN for trial in self.trials):
            more = f" --trials {2 * budget.trials}"
        return [*said, f"To go on: {self._resume}{more}"]

    def _rivals(self) -> list[str]:
        """Who comes next, and how searched trials and baselines compare."""
        assert self.best
        said = []
        if self.best.baseline:
            said.append(f"A baseline wins: the search found nothing better than the recipe {self.best.baseline}.")
        for second in self.ranked[1:2]:
            said.append(
                f"Second is trial {title(second)}, {self._behind(second)}; "
                "only repeating both with other seeds can tell whether that is more than chance."
            )
        others = [trial for trial in self.ranked[1:] if bool(trial.baseline) != bool(self.best.baseline)]
        if others and others[0] is not self.ranked[1]:
            kind = "baseline" if others[0].baseline else "searched trial"
            said.append(f"The best {kind} is trial {title(others[0])}, {self._behind(others[0])}.")
        return said

    def _key_figures(self) -> list[tuple[str, str]]:
        counts = Counter(standing(trial) for trial in self.trials)
        films, patients = self.facts["films"], self.facts["patients"]
        seen = [part for part in films if part != "test"]
        last = max((epoch.at for trial in self.trials for epoch in trial.epochs), default=self.facts["created"])
        by_outcome = ", ".join(f"{count} {how}" for how, count in counts.most_common())
        whose = f"{sum(patients[part] for part in seen):,} patients, test films left out"
        return [
            ("Trials", f"{len(self.trials)}: {by_outcome}"),
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

    def _leaderboard(self) -> list[dict[str, Any]]:
        """Full trials by their objective, then the others by the rungs they reached and the objective there."""
        others = [trial for trial in self.trials if trial.outcome is not Outcome.FULL and trial.refit is None]
        others.sort(key=lambda trial: (-self._rungs_reached(trial), self._order(trial)))
        return [self._row(trial) for trial in (*self.full, *others)]

    def _row(self, trial: Trial) -> dict[str, Any]:
        return {
            "trial": trial,
            "values": [figure(value) for value in values_of(trial, self.study.objective.metrics).values()],
            "from": trial.baseline or ("search" if trial.repeats is None else f"seed of {trial.repeats}"),
            "progress": progress(trial),
            "films_per_second": fmean(epoch.films_per_second for epoch in trial.epochs) if trial.epochs else None,
            "violates": trial.number in self.violators,
            "on_front": any(trial.number == other.number for other in self.front),
        }

    def _rungs_reached(self, trial: Trial) -> int:
        """Rungs met so far; -1 before the first epoch."""
        if not trial.epochs:
            return -1
        return sum(epoch <= trial.epochs[-1].epoch for epoch in self.rungs.epochs(trial.schedule))

    def _figures(self) -> dict[str, Any]:
        """The figures that this study has something to show in; None for one that would be empty."""
        trained = any(trial.epochs for trial in self.trials)
        trials = [trial for trial in self.trials if trial.refit is None]  # which has no value to be drawn
        best, rungs, metric = self.best, self.rungs, self.metric
        maximize, staged = self.study.objective.maximize[0], bool(self._stages())
        return {
            "areas": figures.label_areas(self._areas()) if best else None,
            "losses": figures.losses(best) if best else None,
            "curves": figures.learning_curves(trials, best, rungs, metric) if trained else None,
            "history": figures.history(trials, best, metric, maximize) if trained else None,
            "importances": figures.importances(self.early),
            "parallel": figures.parallel(self.early, metric),
            "families": figures.families(trials, rungs, metric, staged) if trained else None,
            "front": figures.front(self.ranked, self.front, best, self.metrics) if self.front else None,
            "shares": figures.shares(self._shares()) if trained else None,
        }

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


def _date(at: float, seconds: bool = False) -> str:
    """In UTC: the page may be read anywhere."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M{':%S' if seconds else ''}} UTC"


if __name__ == "__main__":
    sys.exit(main())
