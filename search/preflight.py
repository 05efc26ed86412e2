"""What must hold before a search starts: the data, the disk, the accelerator, the MLflow server."""

import logging
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import optuna

from cxr_core.data import DataError, DataName, DataPolicy, PreparedData, build_cache, prepare
from cxr_core.labels import Task
from cxr_core.models import Infeasible
from search.proposer import complete
from search.searchers import draw_configuration, random
from search.space import Space

log = logging.getLogger(__name__)

_RECORDS = 500 * 2**20
"""Bytes of a study beside its checkpoints: the journal, pages, MLflow's database."""
_DRAWS = 8
"""Configurations from which the size of checkpoints is estimated."""
_COPIES = 4 * 4
"""Bytes of a checkpoint for each weight: the weight, its average and AdamW's two moments, in single precision."""
_SERVER_TIMEOUT = 5.0
"""Seconds to wait for the MLflow server's sign of life."""


class PreflightError(Exception):
    """A search cannot start; the message says why and what to do."""


def parse_data_name(text: str) -> DataName:
    """Read `KIND:PATH`. Raises PreflightError if there is no such kind."""
    try:
        return DataName.parse(text)
    except DataError as wrong:
        raise PreflightError(str(wrong)) from None


def prepare_data(name: DataName, policy: DataPolicy, task: Task, seed: int) -> PreparedData:
    """Read the data set, split it by patient, and cache its films, those of the test split in a folder of their own.

    Raises PreflightError if the data cannot be used for the task.
    """
    try:
        return prepare(name, policy, task, seed)
    except DataError as fault:
        raise PreflightError(str(fault)) from None


def prepare_sizes(prepared: PreparedData, sizes: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """The caches of the films that trials may see, by image size; those that are missing are built.

    Raises PreflightError if films cannot be read.
    """
    caches = {prepared.policy.image_size: prepared.cache}
    images = prepared.development["image"].tolist()
    for size in sizes:
        if size not in caches:
            try:
                source, aspect = prepared.name.open(), prepared.policy.aspect
                caches[size] = build_cache(source, images, size, aspect, prepared.cache.parent)
            except DataError as fault:
                raise PreflightError(str(fault)) from None
    return tuple((size, str(path)) for size, path in sorted(caches.items()))


def checkpoint_sizes(space: Space, seed: int) -> list[int]:
    """Estimated bytes of a checkpoint, of some random configurations and of the baselines that can be built."""
    study = optuna.create_study(sampler=random(seed))
    draws = [complete(draw_configuration(space.domains, study.ask())) for _ in range(_DRAWS)]
    sizes = []
    for flat in (*draws, *(baseline.flat for baseline in space.baselines)):
        with suppress(Infeasible):
            sizes.append(space.config(flat, seed).footprint().parameters * _COPIES)
    return sizes


def check_disk(folder: Path, space: Space, concurrent: int) -> None:
    """Raise PreflightError if the disk cannot hold the checkpoints of trials in flight; warn if not those of a study.

    In flight are two checkpoints a slot. A whole study keeps one for each trial that waits, and those of the best.
    """
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    sizes = checkpoint_sizes(space, 0) or [0]
    least = _RECORDS + (2 * concurrent + 1) * max(sizes)
    if free < least:
        raise PreflightError(
            f"{place}: only {free / 2**20:,.0f} MiB are free, and {concurrent} trials at once need "
            f"{least / 2**20:,.0f}; free some, or give fewer --concurrent"
        )
    header = space.header
    kept = min(header.budget.trials, header.checkpoints.best) + header.budget.trials
    whole = _RECORDS + kept * sum(sizes) / len(sizes)
    if free < whole:
        log.warning(
            "disk: %.1f GiB are free; if most of the %d trials wait for a promotion, checkpoints may take %.1f. "
            "A full disk stops the search, resumable",
            free / 2**30,
            header.budget.trials,
            whole / 2**30,
        )


def check_gpu(gpus: float) -> None:
    """Raise PreflightError if this machine lacks the accelerator that trials ask for."""
    import torch

    if gpus and not torch.cuda.is_available():
        raise PreflightError(f"--gpus-per-trial {gpus:g}: PyTorch sees no GPU on this machine; leave the option out")


def check_server(uri: str) -> None:
    """Raise PreflightError if an MLflow server does not answer; a file store needs no answer."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(urllib.parse.urljoin(uri.rstrip("/") + "/", "health"), timeout=_SERVER_TIMEOUT):
            return
    except (urllib.error.URLError, OSError) as fault:
        raise PreflightError(
            f"--mlflow {uri}: the server does not answer ({fault}); start it, or correct the URI"
        ) from None
