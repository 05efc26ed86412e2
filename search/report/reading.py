"""A study as its report reads it: once, so that the parts of the page agree while a search goes on."""

from functools import cached_property
from typing import Any

import optuna

from search.evidence.record import read_evidence
from search.finals.record import read_record
from search.overview import Overview
from search.report.figures import early_study
from search.space import fidelities_of
from search.study import Study
from search.trial import Outcome, Trial

_METRICS = {"auroc_macro": "macro AUROC", "auprc_macro": "macro AUPRC"}
"""How a reader knows an objective, where its name in a space file is not it already."""


class Reading:
    """What sections are written from.

    metrics: names of the objectives as a reader knows them; metric: the first one. best: the winner, of the finals if
    there were any. full: trials trained in full, best first; violators: those of them that miss a constraint, with how
    they do; ranked: those that may win. finals, evidence: as `finalists.json` and `evidence.json`, None without.
    folds: trainings of a trial, on as many divisions of the patients; 1 if the objective is no mean over folds.
    """

    def __init__(self, study: Study):
        self.study = study
        self.overview = Overview(study)
        self.facts, self.header, self.trials = self.overview.facts, self.overview.header, self.overview.trials
        self.metrics = [named(metric) for metric in study.objective.metrics]
        self.metric = self.metrics[0]
        self.fidelities = fidelities_of(self.header)
        self.folds = self.fidelities.folds
        self.rungs, self.best, self.front = self.overview.rungs, self.overview.winner, self.overview.front
        self.full = sorted((trial for trial in self.trials if trial.outcome is Outcome.FULL), key=self.order)
        self.violators = {trial.number: broken for trial in self.full if (broken := self._broken(trial))}
        self.ranked = [t for t in self.full if t.repeats is None and t.number not in self.violators]
        self.finals, self.openings = read_record(study.folder), self.facts.get("test_openings", [])
        self.evidence: dict[str, Any] | None = None
        if self.finals:
            self.best = self.trials[self.finals["winner"]]
            self.evidence = read_evidence(study.folder, self.finals)

    def order(self, trial: Trial) -> tuple[Any, ...]:
        """What sorts trials from the best to the worst by their last epoch; those without one come last."""
        if not trial.epochs:
            return (float("inf"), (), trial.number)
        return (*self.study.objective.reached(trial.epochs[-1].metrics), trial.number)

    def _broken(self, trial: Trial) -> list[str]:
        return self.study.objective.broken(trial.epochs[-1].metrics)

    @property
    def drawn(self) -> list[Trial]:
        """The trials that figures and tables show: all whose value is of the study's own validation films."""
        return [trial for trial in self.trials if trial.on_own_split]

    @property
    def is_trained(self) -> bool:
        """Whether any trial has finished an epoch."""
        return any(trial.epochs for trial in self.trials)

    @cached_property
    def early(self) -> optuna.Study:
        """The searched trials with their objective at their first rung."""
        return early_study(self.study, self.trials, self.rungs)

    @cached_property
    def stages(self) -> list[str]:
        """What each stage of a trial is trained on; empty where a trial is one training."""
        if self.fidelities.kind == "schedule" or self.fidelities.stages == 1:
            return []
        stages = [self.fidelities.stage(index, 1) for index in range(self.fidelities.stages)]
        return [f"{stage.image_size} px, {stage.data_share:.0%} of the training patients" for stage in stages]

    @property
    def first_rung(self) -> str:
        """Where all trials can be compared, in words."""
        if self.stages:
            return "after the first stage"
        rungs, schedule = self.header.asha.rungs, "the first fold's schedule" if self.folds > 1 else "the schedule"
        return f"at {100 * rungs[0]:g} % of {schedule}" if rungs else "at the end of training"

    @property
    def resume(self) -> str:
        """The command that goes on with the search."""
        # By its folder: a study that a --fresh search set aside has kept its name, not its place.
        return f"python -m search.run --study {self.study.folder.resolve().name} --resume"


def named(metric: str) -> str:
    """A metric as a reader knows it."""
    return _METRICS.get(metric, metric)
