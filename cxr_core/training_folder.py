"""The folder of one training: what goes into it, in which order, and whether a training may go on in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from cxr_core.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from cxr_core.data import PreparedData
from cxr_core.data.page import write_page
from cxr_core.data.splits import split_hash
from cxr_core.history import History
from cxr_core.located_yaml import write_yaml
from cxr_core.recipe import Recipe, load_recipe
from cxr_core.train import Training

_ELSEWHERE = "name another folder with --out, or delete this one to begin anew"


class FolderError(Exception):
    """The folder cannot be used for this training; the message says why and what to do."""


class TrainingFolder:
    """Files of one training, each written whole or not at all, the network's after all that tells of it."""

    def __init__(self, path: Path):
        self.path = path
        self.recipe, self.films, self.page = path / "recipe.yaml", path / "films.parquet", path / "data.html"
        self.table, self.model = path / "metrics.csv", path / "model.pt"
        self.curves, self.results = path / "curves.png", path / "metrics.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out. Raises FolderError if one trains here now."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")  # the kernel releases it when its holder dies
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(f"{self.path}: another process trains in this folder; name another with --out") from None
        try:
            yield
        finally:
            lock.release()

    def saved(self, recipe: Recipe, seed: int) -> Checkpoint | None:
        """What is there of this training; None if no epoch of any is. Raises FolderError if it is another one."""
        if not self.model.exists():
            return None
        try:
            checkpoint = load_checkpoint(self.model)
        except CheckpointError as fault:
            raise FolderError(f"{fault}; {_ELSEWHERE}") from None
        there, here = _identity(load_recipe(self.recipe), checkpoint.config.seed), _identity(recipe, seed)
        differing = [f"{key}: {there.get(key)} there, {here[key]} now" for key in here if here[key] != there.get(key)]
        if differing:
            raise FolderError(f"{self.path}: holds another training ({'; '.join(differing)}); {_ELSEWHERE}")
        return checkpoint

    def check_films(self, prepared: PreparedData) -> None:
        """Raise FolderError if the training that is there saw other films."""
        if split_hash(pd.read_parquet(self.films)) != split_hash(prepared.films):
            raise FolderError(
                f"{self.path}: holds a training on other films than {prepared.name} gives now, or on other splits of "
                f"them; {_ELSEWHERE}"
            )

    def begin(self, recipe: Recipe, prepared: PreparedData) -> None:
        """Write down what will be trained on what; what is left of an earlier training is removed."""
        for path in (self.table, self.curves, self.results):
            path.unlink(missing_ok=True)
        write_yaml(recipe.resolved, self.recipe)
        prepared.save(self.path)
        write_page(prepared, self.page)

    def save_epoch(self, history: History, training: Training) -> None:
        """Write the history, then the network: what is killed between the two repeats the epoch. Raises OSError."""
        history.write(self.table)
        training.save(self.model)

    def save_results(self, results: dict[str, Any]) -> None:
        """Write the results: a folder that has them is finished."""
        partial = self.results.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(self.results)

    def read_results(self) -> dict[str, Any] | None:
        """The results, None if there are none yet."""
        if not self.results.exists():
            return None
        results: dict[str, Any] = json.loads(self.results.read_text("utf-8"))
        return results


def _identity(recipe: Recipe, seed: int) -> dict[str, Any]:
    """What makes a training what it is, by dotted name; missing films show in the films themselves."""
    config, policy = recipe.config(seed), replace(recipe.policy, allow_missing=False)
    task = {f"task.{key}": value for key, value in vars(recipe.task).items()}
    data = {f"data.{key}": value for key, value in vars(policy).items()}
    return {**task, **data, **{f"space.{key}": value for key, value in config.flat.items()}, "seed": seed}
