"""One session of a search: opens or makes the study, prepares the data, runs the legs, and writes what was found."""

import importlib.metadata
import logging
import platform
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cxr_core.data import PreparedData
from cxr_core.data.page import write_page
from cxr_core.full_disk import is_disk_full
from search.budget import Budget
from search.checkpoints import Checkpoints
from search.credibility import Credibility
from search.driver import drive, stopped_early
from search.films import prepare_again, prepare_films
from search.legs import BUDGETS, DISK, Legs
from search.mlflow_view import default_uri
from search.mlflow_writer import Writer, start_writer
from search.placement import Resources
from search.preflight import check_disk, check_server, parse_data_name
from search.priors import load_prior
from search.proposer import Proposer
from search.space import Space
from search.study import Study, StudyError
from search.trial import FAILED, Trial
from search.warm_start import read_earlier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the command line asks for, beyond the space."""

    folder: Path
    data: str | None
    seed: int
    resources: Resources
    mlflow: str | None
    resume: bool
    fresh: bool
    warm_start: str | None = None


@dataclass(frozen=True)
class Result:
    """How a session ended. stopped: the signal that ended it early, if one did."""

    study: Study
    metric: str
    winner: Trial | None
    counts: dict[str, int]
    seconds: float
    report: Path | None
    mlflow: str
    stopped: str | None
    mistake: str | None


def run_session(space: Space, request: Request) -> Result:
    """Search until the budget, a signal or a mistake ends it. Raises StudyError or PreflightError before it starts."""
    started = time.monotonic()
    with Study.lock(request.folder):
        check_disk(request.folder, space, request.resources.concurrent)
        study, prepared = _resume(space, request) if request.resume else _create(space, request)
        facts = study.facts
        legs = _legs(study, space, request)
        with start_writer(study.folder) as writer:
            drive(study, legs, prepared, request.resources)
            report = _conclude(study, legs, writer)
    return Result(
        study=study,
        metric=space.header.objective.metric,
        winner=study.winner(),
        counts=dict(legs.counts()),
        seconds=time.monotonic() - started,
        report=report,
        mlflow=facts["mlflow"],
        stopped=stopped_early(legs),
        mistake=legs.mistake,
    )


def _conclude(study: Study, legs: Legs, writer: Writer) -> Path | None:
    """Prune what waits, if the search has ended, and write what was found; None if a full disk takes no report."""
    try:
        if legs.stopping is None or legs.stopping in BUDGETS:
            legs.close()
        study.note("seconds_used", legs.budget.elapsed)
        from search.report import write_report  # seconds to import: not before a search has run

        log.info("writing the report and the rest of MLflow")
        report = write_report(study)
        study.note("ended", {"at": time.time(), "why": legs.stopping or "budget"})
        if not writer.finish():
            log.warning("MLflow is behind; when its server answers: python -m search.mlflow_sync %s", study.folder)
        return report
    except OSError as fault:
        if not is_disk_full(fault):
            raise
        legs.stopping = DISK
        return None


def _legs(study: Study, space: Space, request: Request) -> Legs:
    """The search as the study's journal left it."""
    keep = space.header.checkpoints
    compare = Credibility(study, space.task.labels) if space.header.asha.confidence else None
    return Legs(
        study,
        space,
        study.facts["seed"],
        _budget(study, space, request),
        proposer=partial(Proposer, prior=load_prior(study.folder)),
        compare=compare,
        on_end=Checkpoints(study.folder, study, keep.best, keep.quota).sweep,
    )


def _budget(study: Study, space: Space, request: Request) -> Budget:
    """What the search may spend, with the account of its earlier sessions."""
    began = time.monotonic() - study.facts.get("seconds_used", 0.0)
    devices, slots = request.resources.gpus or 1.0, request.resources.concurrent
    return Budget(space.header.budget, space.objective.maximize[0], devices, slots, began=began)


def _create(space: Space, request: Request) -> tuple[Study, PreparedData]:
    """Make a new study, once its data is ready. Raises StudyError if one of that name exists."""
    if request.folder.exists() and not request.fresh:
        raise StudyError(
            f"{request.folder}: this study exists; add --resume to go on with it, or --fresh to start anew"
        )
    if request.data is None:
        log.info("no --data given: training on the built-in phantom, synthetic films made for trying things out")
    prior = read_earlier(request.warm_start, space.objective.metrics) if request.warm_start else []
    uri = request.mlflow or default_uri(request.folder.parent)
    check_server(uri)
    prepared = prepare_films(space, parse_data_name(request.data or "phantom"), request.seed)
    if request.folder.exists():
        aside = request.folder.with_name(f"{request.folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        request.folder.rename(aside)
        log.info("the earlier study is kept as %s", aside)
    facts = {
        **prepared.facts,
        "seed": request.seed,
        "mlflow": uri,
        "versions": _versions(),
        "warm_start": request.warm_start,
        "devices_per_trial": request.resources.gpus or 1.0,
    }
    study = Study.create(request.folder, space, facts, prepared.development, prior)
    write_page(prepared, request.folder / "data.html")
    return study, prepared


def _resume(space: Space, request: Request) -> tuple[Study, PreparedData]:
    """Open a study again, on the same films; its budget may have changed, the rest may not."""
    Study.repair(request.folder)
    study = Study(request.folder)
    facts = study.facts
    for key, old, new in study.adopt(space):
        log.info("%s: was %s, is %s", key, old, new)
    if request.mlflow and request.mlflow != facts["mlflow"]:
        check_server(request.mlflow)
        study.note("mlflow", request.mlflow)
    return study, prepare_again(study, space, request.data)


def _versions() -> dict[str, str]:
    packages = ("cxr-search", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "pandas", "pyarrow")
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{p: installed[p] for p in packages if p in installed}}


def describe(result: Result) -> dict[str, Any]:
    """The result as one JSON object."""
    counts = result.counts
    winner = result.winner
    failed = sum(counts.get(outcome, 0) for outcome in FAILED)
    return {
        "study": str(result.study.folder),
        "winner": {"trial": winner.number, "value": winner.value, "params": winner.flat} if winner else None,
        "trials": {
            "full": counts.get("full", 0),
            "pruned": counts.get("pruned", 0),
            "failed": failed,
            "infeasible": counts.get("infeasible", 0),
            "interrupted": counts.get("interrupted", 0) + counts.get("waiting", 0) + counts.get("running", 0),
        },
        "seconds": round(result.seconds, 1),
        "report": str(result.report) if result.report else None,
        "mlflow": result.mlflow,
    }
