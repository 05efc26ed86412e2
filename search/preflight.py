"""What must hold before a search starts: the data, the disk, the accelerator, the MLflow server."""

import shutil
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_core.config import Task
from cxr_core.data import DataError, DataName, build_cache, split_by_patient
from cxr_core.data.splits import split_hash

_FREE_DISK = 500 * 2**20
"""Bytes that must be free for a study's checkpoints, beyond the film cache."""
_SERVER_TIMEOUT = 5.0
"""Seconds to wait for the MLflow server's sign of life."""


class PreflightError(Exception):
    """A search cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class PreparedData:
    """Films ready for training: the cache of all but the test films, who is in which split, and what to tell of it."""

    cache: Path
    split: pd.DataFrame
    facts: dict[str, Any]


def parse_data_name(text: str) -> DataName:
    """Read `KIND:PATH`. Raises PreflightError if there is no such kind."""
    try:
        return DataName.parse(text)
    except DataError as wrong:
        raise PreflightError(str(wrong)) from None


def prepare_data(name: DataName, task: Task, image_size: int, validation: float, seed: int) -> PreparedData:
    """Read the data set's tables, split it by patient and build or reuse the film cache. The test films stay unread.

    Raises PreflightError if the data cannot be used for the task.
    """
    try:
        source = name.open()
        if absent := [label for label in task.labels if label not in source.labels]:
            raise DataError(
                f"--data {name}: the label {absent[0]!r} is not in this data set; it has {', '.join(source.labels)}. "
                "Set task.labels"
            )
        films = split_by_patient(source.films, task.labels, validation, seed)
        known = films[films["split"] != "test"]
        cache = build_cache(source, known, image_size)
        unreadable = len(pd.read_csv(cache / "unreadable.csv"))
    except DataError as fault:
        raise PreflightError(str(fault)) from None
    parts = films.groupby("split")
    facts = {
        "data": str(name) if name.path is None else f"{name.kind}:{Path(name.path).resolve()}",
        "films": {part: len(rows) for part, rows in parts},
        "patients": {part: rows["patient"].nunique() for part, rows in parts},
        "positives": {part: {label: int(rows[label].sum()) for label in task.labels} for part, rows in parts},
        "unreadable": unreadable,
        "split_hash": split_hash(films),
    }
    return PreparedData(cache, known[["image", "patient", "split"]], facts)


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
