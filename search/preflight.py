"""What must hold before a search starts: the data, the disk, the accelerator, the MLflow server."""

import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from cxr_core.data import DataError, DataName, DataPolicy, PreparedData, build_cache, prepare
from cxr_core.labels import Task

_FREE_DISK = 500 * 2**20
"""Bytes that must be free for a study's checkpoints, beyond the film cache."""
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


def check_disk(folder: Path) -> None:
    """Raise PreflightError if the study's disk is nearly full."""
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < _FREE_DISK:
        raise PreflightError(f"{place}: only {free / 2**20:,.0f} MiB are free; a study needs {_FREE_DISK / 2**20:,.0f}")


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
