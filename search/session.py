"""One session of a search: opens or makes the study, prepares the data, runs the legs, and writes what was found."""

import importlib.metadata
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from cxr_core.data import DataName, PreparedData
from cxr_core.data.page import write_page
from cxr_core.models import measure_model
from cxr_core.registry import Chosen
from search.budget import Budget
from search.checkpoints import Checkpoints
from search.credibility import Credibility
from search.full_disk import DISK, is_disk_full
from search.legs import BUDGETS, Legs
from search.mlflow_view import default_uri
from search.mlflow_writer import Writer, start_writer
from search.preflight import PreflightError, check_disk, check_server, parse_data_name, prepare_data, prepare_sizes
from search.priors import load_prior
from search.progress import Progress
from search.proposer import Proposer
from search.space import Space
from search.study import Study, StudyError
from search.trial import FAILED, Trial
from search.warm_start import read_earlier

log = logging.getLogger(__name__)

_NOTE_EVERY = 10.0
"""Seconds between notes of the time used, which is what a kill can lose of the time budget's account."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for, beyond the space."""

    folder: Path
    data: str | None
    seed: int
    concurrent: int
    cpus: float
    gpus: float
    address: str | None
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
        check_disk(request.folder, space, request.concurrent)
        study, prepared = _resume(space, request) if request.resume else _create(space, request)
        facts = study.facts
        legs = _legs(study, space, request)
        with start_writer(study.folder) as writer:
            _search(study, legs, prepared, request)
            report = _conclude(study, legs, writer)
    why = legs.stopping
    return Result(
        study=study,
        metric=space.header.objective.metric,
        winner=study.winner(),
        counts=dict(legs.counts()),
        seconds=time.monotonic() - started,
        report=report,
        mlflow=facts["mlflow"],
        stopped=why if why == DISK or why in signal.Signals.__members__ else None,
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


def _search(study: Study, legs: Legs, prepared: PreparedData, request: Request) -> None:
    # Ray is imported only when a search starts, and this first: it sets what Ray reads when it is imported.
    from search.ray_cluster import Resources, start_ray
    from search.ray_legs import run_legs
    from search.worker import Workplace

    workplace = Workplace(
        folder=str(study.folder),
        data=DataName.parse(study.facts["data"]),
        caches=prepare_sizes(prepared, legs.fidelities.image_sizes),
        aspect=prepared.policy.aspect,
        metric=legs.space.header.objective.metric,
        threads=max(1, int(request.cpus)),
        device="cuda" if request.gpus else "cpu",
        latency="latency_ms" in study.objective.costs,
    )
    # The first look at a network imports seconds' worth of torch; it might as well do so while Ray starts.
    threading.Thread(target=measure_model, args=(Chosen("small_cnn"), 32, 1, 0.0), daemon=True).start()
    noted = time.monotonic()
    resources = Resources(request.concurrent, request.cpus, request.gpus, request.address)
    study.note("session", {"at": time.time(), "slots": request.concurrent, "gpus": request.gpus})
    # Ray has a SIGTERM handler of its own: ours comes after it.
    with start_ray(resources), _drain_on_signal(legs), Progress(legs, study.name) as progress:

        def beat() -> None:
            nonlocal noted
            progress.update()
            if time.monotonic() - noted > _NOTE_EVERY:
                noted = time.monotonic()
                study.note("seconds_used", legs.budget.elapsed)
                if (left := legs.seconds_left()) is not None:
                    study.note("forecast", time.time() + left)

        run_legs(legs, workplace, resources, beat)


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
    devices = request.gpus or 1.0
    return Budget(space.header.budget, space.objective.maximize[0], devices, request.concurrent, began=began)


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
    prepared = _prepare(space, parse_data_name(request.data or "phantom"), request.seed)
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
        "devices_per_trial": request.gpus or 1.0,
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
    prepared = _prepare(space, parse_data_name(request.data or facts["data"]), facts["seed"])
    if prepared.facts["split_hash"] != facts["split_hash"]:
        raise PreflightError(
            f"{request.folder}: the films or their split are not the ones this study began with ({facts['data']}); "
            "restore them, or start another study with --study NAME"
        )
    return study, prepared


def _prepare(space: Space, name: DataName, seed: int) -> PreparedData:
    log.info("data: %s at %d px", name, space.header.data.image_size)
    prepared = prepare_data(name, space.header.data.policy, space.task, seed)
    films, patients = prepared.facts["films"], prepared.facts["patients"]
    for part in films:
        sealed = "  (sealed: no trial is given it)" if part == "test" else ""
        log.info("  %-5s %6d films of %6d patients%s", part, films[part], patients[part], sealed)
    for note in prepared.notes:
        log.info("  note: %s", note)
    if unreadable := len(prepared.unreadable):
        log.info("  %d unreadable films left out; the first is %s (%s)", unreadable, *prepared.unreadable.iloc[0])
    return prepared


def _versions() -> dict[str, str]:
    packages = ("cxr-search", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "pandas", "pyarrow")
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{p: installed[p] for p in packages if p in installed}}


@contextmanager
def _drain_on_signal(legs: Legs) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets each live leg end its epoch; a second one kills at once."""

    def drain(number: int, frame: FrameType | None) -> None:
        if legs.stopping in signal.Signals.__members__:
            os._exit(128 + number)
        legs.stop(signal.Signals(number).name)
        log.warning("stopping: epochs in flight are finished and saved; a second signal kills at once")

    before = {number: signal.signal(number, drain) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
