"""MLflow as a view of the study: everything that touches MLflow is in this file.

Nothing here is remembered between calls but what MLflow itself says, so a run is never made or logged twice, and a view
can be rebuilt at any time from the study alone. The study's journal is the spool.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before mlflow is imported: a dead server is found out in seconds, and asked again later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

_STATUS = {"full": "FINISHED", "pruned": "KILLED", "open": "RUNNING"}
"""MLflow's status of a trial's outcome; every other one is FAILED."""
_BATCH = 900
"""Metrics a request may carry; MLflow allows 1,000."""


def default_uri(studies: Path) -> str:
    """The database beside the studies, as an absolute URI: a relative one would follow the current folder."""
    return f"sqlite:///{studies.resolve() / 'mlflow.db'}"


@dataclass
class _Run:
    id: str
    status: str
    last_epoch: int = 0
    tags: dict[str, str] = field(default_factory=dict)


class MlflowView:
    """One parent run for a study and one child run for each trial, kept equal to the study by `sync`."""

    def __init__(self, folder: Path):
        from mlflow import MlflowClient

        from search.study import Study

        self.study = Study(folder, follow=True)
        facts = self.study.facts
        self.facts = facts
        self.client = MlflowClient(facts["mlflow"])
        self.experiment = self._experiment(facts["space"]["name"], facts["mlflow"])
        self._identity = f"{self.study.name}@{facts['created']:.6f}"
        self._parent, self._children = self._find_runs()

    def _experiment(self, name: str, uri: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        # A database has no place for artifacts of its own; a server has.
        beside = Path(uri.removeprefix("sqlite:///")).with_name("mlartifacts") if uri.startswith("sqlite") else None
        return str(self.client.create_experiment(name, beside.as_uri() if beside else None))

    def _find_runs(self) -> tuple[_Run, dict[int, _Run]]:
        """The runs that MLflow already has of this study, by its identity and the trials' numbers."""
        parent: _Run | None = None
        children: dict[int, _Run] = {}
        token = None
        while True:
            query = f"tags.`cxr.study` = '{self._identity}'"
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                last = int(run.data.metrics.get("epoch", 0))
                known = _Run(run.info.run_id, run.info.status, last, dict(tags))
                if "cxr.trial" in tags:
                    children[int(tags["cxr.trial"])] = known
                else:
                    parent = known
            token = page.token
            if not token:
                return parent or self._create_parent(), children

    def _create_parent(self) -> _Run:
        facts = self.facts
        versions = {f"version.{package}": version for package, version in facts["versions"].items()}
        tags = {
            "cxr.study": self._identity,
            "cxr.dataset": facts["data"],
            "cxr.space": facts["space"]["name"],
            "cxr.split": facts["split_hash"],
            "cxr.folder": str(self.study.folder),
            **versions,
        }
        run = self.client.create_run(self.experiment, tags=tags, run_name=self.study.name)
        self.client.log_artifact(run.info.run_id, str(self.study.folder / "space.yaml"))
        return _Run(run.info.run_id, "RUNNING", tags=tags)

    def sync(self) -> int:
        """Log whatever the study has and MLflow lacks; returns how many epochs that were. Raises what MLflow raises."""
        trials = [trial for trial in self.study.trials() if trial.flat]
        logged = sum(self._sync_trial(trial) for trial in trials)
        winner = self.study.winner()
        counts = {f"cxr.trials.{what}": str(n) for what, n in _count(trials).items()}
        best = {"cxr.best_trial": winner.name, "cxr.best_value": f"{winner.value:.6f}"} if winner else {}
        self._tag(self._parent, counts | best)
        if self._parent.status != "RUNNING":  # a resumed study
            self.client.update_run(self._parent.id, "RUNNING")
            self._parent.status = "RUNNING"
        return logged

    def finish(self) -> None:
        """Close the study's run, with the report, the data's page and the winner's checkpoint as artifacts."""
        for page in ("report.html", "data.html"):
            if (self.study.folder / page).exists():
                self.client.log_artifact(self._parent.id, str(self.study.folder / page))
        if winner := self.study.winner():
            checkpoint = self.study.folder / winner.epochs[-1].checkpoint
            if checkpoint.exists():
                self.client.log_artifact(self._parent.id, str(checkpoint), "winner")
            name, at = f"best_{self.facts['space']['objective']['metric']}", int(winner.epochs[-1].at * 1000)
            self.client.log_metric(self._parent.id, name, winner.value, at, winner.number)
        stopped = self.study.facts.get("ended", {}).get("why", "").startswith("SIG")
        self._close(self._parent, "KILLED" if stopped else "FINISHED" if winner else "FAILED")

    def _sync_trial(self, trial: Any) -> int:
        run = self._children.get(trial.number) or self._create_child(trial)
        self._children[trial.number] = run
        new = [epoch for epoch in trial.epochs if epoch.epoch > run.last_epoch]
        for epoch in new:
            self._log_epoch(run, epoch)
        tags = {"cxr.state": trial.outcome.value, "cxr.reason": trial.reason, "cxr.attempts": str(trial.attempts)}
        self._tag(run, {key: value for key, value in tags.items() if value})
        status = _STATUS.get(trial.outcome.value, "FAILED")
        if status != "RUNNING":
            self._close(run, status, trial.epochs[-1].at if trial.epochs else None)
        return len(new)

    def _create_child(self, trial: Any) -> _Run:
        from mlflow.entities import Param

        tags = {
            "mlflow.parentRunId": self._parent.id,
            "cxr.study": self._identity,
            "cxr.trial": str(trial.number),
            "cxr.dataset": self.facts["data"],
            "cxr.space": self.facts["space"]["name"],
        }
        if trial.baseline:
            tags["cxr.baseline"] = trial.baseline
        started = int(trial.started * 1000)
        run = self.client.create_run(self.experiment, started, tags, f"trial {trial.name}")
        params = [Param(key, str(value)) for key, value in {**trial.flat, "seed": trial.seed}.items()]
        self.client.log_batch(run.info.run_id, params=params)
        return _Run(run.info.run_id, "RUNNING", tags=tags)

    def _log_epoch(self, run: _Run, epoch: Any) -> None:
        """One request an epoch. `epoch` itself is a metric: the last one says what MLflow already has."""
        from mlflow.entities import Metric

        values = {
            "train_loss": epoch.train_loss,
            **{f"val_{name}": value for name, value in epoch.metrics.items()},
            "films_per_second": epoch.films_per_second,
            "seconds": epoch.seconds,
            "epoch": epoch.epoch,
        }
        at = int(epoch.at * 1000)
        metrics = [Metric(name, float(value), at, epoch.epoch) for name, value in values.items() if value is not None]
        self.client.log_batch(run.id, metrics=metrics[:_BATCH])
        run.last_epoch = epoch.epoch

    def _tag(self, run: _Run, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        new = {key: value for key, value in tags.items() if run.tags.get(key) != value}
        if new:
            self.client.log_batch(run.id, tags=[RunTag(key, value) for key, value in new.items()])
            run.tags |= new

    def _close(self, run: _Run, status: str, at: float | None = None) -> None:
        if run.status != status:
            self.client.set_terminated(run.id, status, int(at * 1000) if at else None)
            run.status = status


def _count(trials: list[Any]) -> dict[str, int]:
    from search.trial import Outcome

    outcomes = [trial.outcome for trial in trials]
    return {outcome.value: outcomes.count(outcome) for outcome in Outcome}
