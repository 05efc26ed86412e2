"""MLflow as a view of the study: all that is written to it goes through here, the finals by way of `mlflow_finals`.

Nothing here is remembered between calls but what MLflow itself says, so a run is never made or logged twice, and a view
can be rebuilt at any time from the study alone. The study's journal is the spool.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import search.mlflow_settings  # noqa: F401 - before mlflow
from search.mlflow_notes import fit, study_note, title, trial_note
from search.study import Study
from search.tally import Standing, Tally, end_of
from search.trial import EpochRecord, Outcome, Trial

log = logging.getLogger(__name__)

_STATUS = {
    **dict.fromkeys((Outcome.FULL, Outcome.REFIT, Outcome.FOLD), "FINISHED"),
    Outcome.PRUNED: "KILLED",
    Outcome.OPEN: "RUNNING",
}
"""MLflow's status of a trial's outcome; every other one is FAILED."""
_INTERRUPTED = "SCHEDULED"
"""MLflow's status of a trial that has not ended when its search has: it goes on when the search does."""
_METRICS, _PARAMS, _VALUE = 1000, 100, 500
"""Metrics and parameters that a request may carry, and characters of a parameter that every server takes."""
_LAST_EPOCH = "system/epoch"
_PER_LABEL = "per_label.json"
"""The AUROC of each label by epoch: in the form of `mlflow.log_table`, so `mlflow.load_table` joins all trials'."""

_TABLE_TAG = {"mlflow.loggedArtifacts": f'[{{"path": "{_PER_LABEL}", "type": "table"}}]'}


def default_uri(studies: Path) -> str:
    """The database beside the studies, as an absolute URI: a relative one would follow the current folder."""
    return f"sqlite:///{studies.resolve() / 'mlflow.db'}"


@dataclass
class _Run:
    """A run as MLflow has it. logged: the last epoch of a trial, or ended trials of a study."""

    id: str
    status: str = "RUNNING"
    logged: int = 0
    tags: dict[str, str] = field(default_factory=dict)


class MlflowView:
    """One parent run for a study and one child run for each trial, kept equal to the study by `sync`."""

    def __init__(self, study: Study, uri: str | None = None):
        """Find what MLflow has of a study already. uri: another MLflow than the study's. Raises what MLflow raises."""
        from mlflow import MlflowClient

        self.study = study
        self.facts = study.facts
        uri = uri or self.facts["mlflow"]
        self.client = MlflowClient(uri)
        self.experiment = self._experiment(self.facts["space"]["name"], uri)
        self._identity = f"{study.name}@{self.facts['created']:.6f}"
        self._tally = Tally(study.objective.maximize[0], study.may_win)
        self._children: dict[int, _Run] = {}
        self._parent = self._find_runs() or self._create_parent()

    def _experiment(self, name: str, uri: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            log.warning("the experiment %r was deleted in MLflow; it is restored", name)
            self.client.restore_experiment(found.experiment_id)
        if found:
            return str(found.experiment_id)
        # A database has no place for artifacts of its own; a server has.
        beside = Path(uri.removeprefix("sqlite:///")).with_name("mlartifacts") if uri.startswith("sqlite") else None
        training = {"mlflow.experimentKind": "custom_model_development"}  # and not a chat bot's
        return str(self.client.create_experiment(name, beside.as_uri() if beside else None, training))

    def _find_runs(self) -> _Run | None:
        """The runs that MLflow already has of this study, by its identity and the trials' numbers."""
        parent = None
        for run in self._runs_of_study():
            tags, metrics = run.data.tags, run.data.metrics
            known = _Run(run.info.run_id, run.info.status, tags=dict(tags))
            if "cxr.trial" in tags:
                known.logged = int(metrics.get(_LAST_EPOCH, 0))
                number = int(tags["cxr.trial"])
                if self._children.setdefault(number, known) is known:
                    continue
            elif not parent:
                known.logged = int(sum(value for key, value in metrics.items() if key.startswith("search/trials_")))
                parent = known
                continue
            # A server that was too slow to answer had made the run all the same, and another was made since.
            self.client.delete_run(known.id)
        return parent

    def _runs_of_study(self) -> Iterator[Any]:
        query, token = f"tags.`cxr.study` = '{self._identity}'", None
        while True:
            page = self.client.search_runs(
                [self.experiment], query, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _create_parent(self) -> _Run:
        facts = self.facts
        tags = {"cxr.study": self._identity, "cxr.dataset": facts["data"], "cxr.split": facts["split_hash"]}
        started = int(facts["created"] * 1000)
        run = self.client.create_run(self.experiment, started, tags, self.study.name)
        return _Run(run.info.run_id, tags=tags)

    def sync(self, sign: Callable[[], None] | None = None) -> int:
        """Log whatever the study has and MLflow lacks; returns how many epochs that were. Raises what MLflow raises.

        A view is of no use after that: what of a request has arrived, only a new one finds out. sign: called after
        each trial.
        """
        self.facts = self.study.facts
        changed = self._tally.changed(self.study.trials())
        logged = 0
        for trial in changed:
            logged += self._sync_trial(trial)
            if sign:
                sign()
        self._sync_parent(self._tally.take(changed))
        return logged

    def finish(self) -> None:
        """Close the study's run as its search ended: its pages, the winner's checkpoint, and what the finals left."""
        for trial in self.study.trials():
            if trial.outcome is Outcome.OPEN:
                self._end_trial(trial, _INTERRUPTED)
        for page in ("report.html", "report.json", "data.html"):
            if (self.study.folder / page).exists():
                self.client.log_artifact(self._parent.id, str(self.study.folder / page))
        winner = self._tally.best
        if winner and (checkpoint := self.study.folder / winner.epochs[-1].checkpoint).exists():
            self.client.log_artifact(self._parent.id, str(checkpoint), "winner")
        if (self.study.folder / "finalists.json").exists():
            from search.mlflow_finals import FinalsInMlflow  # a second to import, and most searches end without finals

            finals = FinalsInMlflow(self.client, self._parent.id, self.study, self._identity)
            self._parent.tags |= finals.write(self._parent.tags)
        ended = self.facts.get("ended", {})
        self._set_status(self._parent, self._ending(ended), ended.get("at"))

    def _ending(self, ended: dict[str, Any]) -> str:
        """MLflow's status of the search. A driver that was killed said nothing, or not since its last session."""
        last = max((end_of(trial) for trial in self.study.trials()), default=0.0)
        why = ended.get("why", "")
        if not ended or ended["at"] < last or why.startswith("SIG"):
            return "KILLED"
        return "FINISHED" if self._tally.best and why != "mistake" else "FAILED"

    # The study's run

    def _sync_parent(self, standings: list[Standing]) -> None:
        from mlflow.entities import Metric

        run = self._parent
        self._set_status(run, "RUNNING")  # a resumed study
        metrics = [
            Metric(f"search/{name}", float(value), int(standing.at * 1000), standing.ended)
            for standing in standings
            if standing.ended > run.logged
            for name, value in self._figures(standing).items()
        ]
        known = "mlflow.note.content" in run.tags
        params = {} if known else self._lasting()
        if not known:
            self.client.log_artifact(run.id, str(self.study.folder / "space.yaml"))
            self.client.log_dict(run.id, self.facts["versions"], "versions.json")
        tags = {"mlflow.note.content": study_note(self.study.name, self.study.folder, self.facts, self._tally)}
        if best := self._tally.best:
            tags |= {"cxr.best_trial": best.name, "cxr.best_value": f"{best.value:.6f}"}
        self._log(run, metrics, params, tags)
        run.logged = max([run.logged, *(standing.ended for standing in standings)])

    def _lasting(self) -> dict[str, Any]:
        """What cannot change in a study's life: MLflow's parameters cannot, either."""
        space = self.facts["space"]
        sections = {f"{name}.{key}": value for name in ("task", "objective") for key, value in space[name].items()}
        return {"data": self.facts["data"], "image_size": space["data"]["image_size"], **sections}

    def _figures(self, standing: Standing) -> dict[str, float]:
        hours = "gpu_hours" if self._tally.on_gpu else "cpu_hours"
        devices = self.facts.get("devices_per_trial", 1)
        best = {f"best_{self.facts['space']['objective']['metric']}": standing.best.value} if standing.best else {}
        counts = {f"trials_{outcome}": count for outcome, count in standing.counts.items()}
        return {**best, hours: standing.seconds * devices / 3600, **counts}

    # The trials' runs

    def _sync_trial(self, trial: Trial) -> int:
        run = self._children.get(trial.number) or self._create_child(trial)
        self._children[trial.number] = run
        new = [epoch for epoch in trial.epochs if epoch.epoch > run.logged]
        if new and trial.outcome is Outcome.OPEN:
            self._set_status(run, "RUNNING")
        # The state is written with or after the parameters: a run that has one has all of them.
        known = "cxr.state" in run.tags
        params = {} if known else {**trial.flat, "seed": trial.seed}
        tags = {
            "cxr.state": trial.outcome.value,
            "cxr.reason": fit(trial.reason),
            "cxr.attempts": str(trial.attempts or ""),
            "mlflow.note.content": trial_note(trial, self.study.folder),
            "mlflow.parentRunId": self._parent.id,
            **(_TABLE_TAG if trial.outcome is not Outcome.OPEN and trial.epochs else {}),
        }
        self._log(run, [metric for epoch in new for metric in _metrics(epoch)], params, tags)
        if new:
            run.logged = new[-1].epoch
        if trial.outcome is not Outcome.OPEN:
            self._end_trial(trial, _STATUS.get(trial.outcome, "FAILED"))
        return len(new)

    def _create_child(self, trial: Trial) -> _Run:
        tags = {
            "mlflow.parentRunId": self._parent.id,
            "cxr.study": self._identity,
            "cxr.trial": str(trial.number),
            "cxr.dataset": self.facts["data"],
        }
        if trial.baseline:
            tags["cxr.baseline"] = trial.baseline
        run = self.client.create_run(self.experiment, int(trial.started * 1000), tags, title(trial))
        return _Run(run.info.run_id, tags=tags)

    def _end_trial(self, trial: Trial, status: str) -> None:
        run = self._children[trial.number]
        if run.status == status:
            return
        if trial.epochs:
            labels = list(trial.epochs[-1].auroc)
            rows = [[epoch.epoch, *(epoch.auroc.get(label) for label in labels)] for epoch in trial.epochs]
            self.client.log_dict(run.id, {"columns": ["epoch", *labels], "data": rows}, _PER_LABEL)
            self._log(run, tags=_TABLE_TAG)
        self._set_status(run, status, end_of(trial))

    # Requests

    def _log(
        self, run: _Run, metrics: list[Any] | None = None, params: dict[str, Any] | None = None, tags: Any = None
    ) -> None:
        """As few requests as MLflow allows; the tags go with the last one."""
        from mlflow.entities import Param, RunTag

        metrics = metrics or []
        written = [Param(key, fit(str(value), _VALUE)) for key, value in (params or {}).items()]
        new = {key: value for key, value in (tags or {}).items() if value and run.tags.get(key) != value}
        while metrics or written or new:
            last = len(metrics) <= _METRICS and len(written) <= _PARAMS
            told = [RunTag(key, value) for key, value in new.items()] if last else []
            self.client.log_batch(run.id, metrics=metrics[:_METRICS], params=written[:_PARAMS], tags=told)
            metrics, written = metrics[_METRICS:], written[_PARAMS:]
            if last:
                run.tags |= new
                new = {}

    def _set_status(self, run: _Run, status: str, at: float | None = None) -> None:
        if run.status == status:
            return
        if status in ("RUNNING", _INTERRUPTED):
            self.client.update_run(run.id, status)
        else:
            self.client.set_terminated(run.id, status, int(at * 1000) if at else None)
        run.status = status


def _metrics(epoch: EpochRecord) -> list[Any]:
    """The metrics of an epoch. Its number is one of them, and the last: it says what MLflow already has.

    MLflow shows those that begin with `system/` on a page of their own, away from the learning curves.
    """
    from mlflow.entities import Metric

    values = {
        "train_loss": epoch.train_loss,
        **{f"val_{name}": value for name, value in epoch.metrics.items()},
        "system/films_per_second": epoch.films_per_second,
        "system/seconds": epoch.seconds,
        "system/peak_memory_gib": epoch.peak_memory / 2**30 if epoch.peak_memory else None,
        _LAST_EPOCH: epoch.epoch,
    }
    # MLflow makes 1.8e308 of an infinite value, which flattens its charts.
    defined = {name: float(value) for name, value in values.items() if value is not None and not math.isinf(value)}
    return [Metric(name, value, int(epoch.at * 1000), epoch.epoch) for name, value in defined.items()]
