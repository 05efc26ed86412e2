"""One recipe trained from the films to the results, in a folder in which it may have begun before."""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cxr_core.batches import Batches
from cxr_core.checkpoint import Checkpoint, load_checkpoint
from cxr_core.curves import draw_curves
from cxr_core.data import DataError, DataName, Films, PreparedData, TrainingData, prepare
from cxr_core.epoch_bar import epoch_bar
from cxr_core.evaluate import predict
from cxr_core.history import History
from cxr_core.recipe import Recipe
from cxr_core.scorecard import finite, scorecard
from cxr_core.train import Diverged, Training
from cxr_core.training_folder import FolderError, TrainingFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is trained, on what, where, and whether the test split is opened at the end; `data` None is the phantom."""

    recipe: Recipe
    data: str | None
    out: Path
    device: torch.device
    seed: int
    test: bool


def train_recipe(request: Request) -> dict[str, Any]:
    """Train, or go on with, a recipe and give its results, as `metrics.json` has them.

    Raises FolderError, DataError, Infeasible, Diverged, or OSError if a file cannot be written.
    """
    recipe = request.recipe
    recipe.config(request.seed).footprint()  # what cannot be built is known before films are decoded
    folder = TrainingFolder(request.out)
    with folder.lock():
        saved = folder.saved(recipe, request.seed)
        if saved and saved.progress is None:
            _check_unfinished(folder, request.test)
        prepared = _prepare(request)
        if saved:
            folder.check_films(prepared)
        else:
            folder.begin(recipe, prepared)
        data = TrainingData.open(prepared.cache, prepared.development, recipe.task.labels)
        if saved is None or saved.progress:
            _train(request, folder, data, saved)
        return _finish(request, folder, prepared, data)


def _check_unfinished(folder: TrainingFolder, test: bool) -> None:
    results = folder.read_results()
    if results is None or (test and not results["test"]):
        return
    test_split = "" if results["test"] else "; --test opens the test split"
    raise FolderError(
        f"{folder.path}: this training is finished, its results are in {folder.results}{test_split}. "
        "To train again name another folder with --out, or delete this one"
    )


def _prepare(request: Request) -> PreparedData:
    if not request.data:
        log.info("no --data given: training on the built-in phantom, synthetic films made for trying things out")
    name = DataName.parse(request.data or "phantom")
    prepared = prepare(name, request.recipe.policy, request.recipe.task, request.seed)
    for note in prepared.notes:
        log.info("note: %s", note)
    if request.test and not prepared.test_cache:
        raise DataError(f"--data {name}: has no test split; leave out --test, or give data.test a share")
    return prepared


def _train(request: Request, folder: TrainingFolder, data: TrainingData, saved: Checkpoint | None) -> None:
    """Train to the end of the schedule; each epoch is in the folder before the next one begins."""
    recipe = request.recipe
    training = Training(recipe.config(request.seed), data, request.device, folder.model if saved else None)
    history, epochs = History.read(folder.table, recipe.metric, training.epoch), training.config.epochs
    if saved:
        log.info("going on after epoch %d of %d: %s", training.epoch, epochs, folder.model)
    else:
        films = f"{len(data.train):,} films to learn from, {len(data.val):,} for validation"
        log.info("training %s: %d epochs, %s, on %s", recipe.name, epochs, films, request.device)
    try:
        with epoch_bar(history, epochs) as on_epoch:
            for epoch in training.epochs():
                history.add(epoch, learning_rate=max(group["lr"] for group in training.optimizer.param_groups))
                folder.save_epoch(history, training)
                on_epoch()
    except Diverged:
        if history.rows:
            draw_curves(history, f"{recipe.name} (diverged)", folder.curves)
        raise


def _finish(request: Request, folder: TrainingFolder, prepared: PreparedData, data: TrainingData) -> dict[str, Any]:
    """Write the results of a trained network; the test split is opened if that is asked for."""
    recipe, checkpoint = request.recipe, load_checkpoint(folder.model)
    history = History.read(folder.table, recipe.metric, checkpoint.config.epochs)
    results = folder.read_results()
    if results is None:
        judged = _judge(checkpoint, data.val, request.device)
        results = {**_facts(request, checkpoint, history, prepared), "validation": judged, "test": None}
    if request.test and prepared.test_cache:
        rows = prepared.films[prepared.films["split"] == "test"]
        films = Films.open(prepared.test_cache, rows, recipe.task.labels)
        log.info("opening the test split: %s films", f"{len(films):,}")
        opened = datetime.now(UTC).isoformat(timespec="seconds")
        results["test"] = {"opened": opened, **_judge(checkpoint, films, request.device)}
    if history.rows:
        draw_curves(history, recipe.name, folder.curves)
    folder.save_results(results)
    return results


def _judge(checkpoint: Checkpoint, films: Films, device: torch.device) -> dict[str, Any]:
    """What the saved network reaches on a split, with the thresholds that it was saved with."""
    model = checkpoint.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalise, views = checkpoint.normalise.to(device), checkpoint.config.views
    probabilities = predict(model, Batches(films, device), normalise, views=views)
    return scorecard(films.targets, probabilities, checkpoint.config.task.labels, checkpoint.thresholds)


def _facts(request: Request, checkpoint: Checkpoint, history: History, prepared: PreparedData) -> dict[str, Any]:
    """What was trained, on what, and what it cost."""
    recipe, facts, size = request.recipe, prepared.facts, checkpoint.config.footprint()
    best = history.best
    return {
        "recipe": recipe.name,
        "seed": request.seed,
        **{key: facts[key] for key in ("data", "split_hash", "films", "patients", "unreadable", "missing", "copies")},
        "metric": recipe.metric,
        "epochs": checkpoint.config.epochs,
        "best": {"epoch": best["epoch"], recipe.metric: best[recipe.metric]} if best else None,
        "seconds": round(sum(row["seconds"] for row in history.rows), 3),
        "films_per_second": median(row["films_per_second"] for row in history.rows) if history.rows else None,
        "peak_memory": max((row["peak_memory"] for row in history.rows), default=None),
        "parameters": size.parameters,
        "flops_per_film": size.flops,
        "device": torch.cuda.get_device_name(request.device) if request.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "thresholds": _by_label(checkpoint.thresholds, recipe.task.labels),
        "versions": {**checkpoint.versions, **{name: metadata.version(name) for name in ("numpy", "pandas", "timm")}},
        "machine": platform.platform(),
    }


def _by_label(thresholds: Mapping[str, Sequence[float]], labels: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Thresholds by rule and finding; None where nothing is called, or no threshold could be fitted."""
    return {rule: dict(zip(labels, map(finite, of), strict=True)) for rule, of in thresholds.items()}
