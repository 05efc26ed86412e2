"""Trains every published recipe on the films of the claim table, for `benchmarks.claims`.

    python -m benchmarks.published_recipes --films ../shared/data --out claims --seeds 3

Into claims/DATA_SET/RECIPE/seed-N. One thread for each training, as many at once as there are cores; given again it
trains what is not trained. A recipe keeps its hyperparameters but begins with random weights, as ImageNet's cannot be
had offline, and its schedule is shortened, where it must be, to what about `--minutes` of a core pay for, to one epoch
at least, or not at all (`--in-full`: four hours of a core on nih_mini). Those that train a last layer only would be
nothing without ImageNet's weights and are left out. Films of PneumoniaMNIST, of 28 px, are scaled up as little as a
network, with its central crop of a fixed side, demands.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import torch

from cxr_core.data import DataName, PreparedData, TrainingData, prepare
from cxr_core.models import Infeasible
from cxr_core.recipe import Recipe, load_recipe
from cxr_core.train import Training

RECIPES = Path("spaces/recipes")
_PROBED = 256
"""Films that a recipe's speed is measured on."""


@dataclass(frozen=True)
class DataSet:
    """Films of the claim table. key: its folder's name; sides: in pixels, of which a network is given the first that it
    takes."""

    key: str
    title: str
    data: str
    settings: tuple[str, ...]
    sides: tuple[int, ...]
    metrics: tuple[str, ...]

    def prepare(self, recipe: Recipe, films: Path) -> PreparedData:
        return prepare(DataName.parse(self.data.format(films)), recipe.policy, recipe.task)


DATA_SETS = (
    DataSet(
        "pneumoniamnist",
        "PneumoniaMNIST",
        "medmnist:{}/pneumoniamnist.npz",
        ("task={kind: binary, labels: [Pneumonia]}",),
        (28, 56, 64, 80),
        ("auroc_macro", "accuracy"),
    ),
    DataSet(
        "nih_mini",
        "nih_mini",
        "nih:{}/nih_mini",
        ("task={kind: multilabel, labels: chestxray14}", "data.validation=0.15"),
        (80,),
        ("auroc_macro",),
    ),
)


@dataclass(frozen=True)
class Adapted:
    """A recipe as it can be trained on a data set, and the overrides that make it so."""

    recipe: Recipe
    settings: tuple[str, ...]


def adapted_recipes(of: DataSet) -> list[Adapted]:
    """Every recipe that can be trained from random weights, at the least size that its network and its crop take."""
    return [found for path in sorted(RECIPES.glob("*.yaml")) if (found := _adapt(path, of))]


def published_epochs(name: str) -> int:
    """The epochs of a recipe as it is published."""
    return load_recipe(RECIPES / f"{name}.yaml").config(0).epochs


def _adapt(path: Path, of: DataSet) -> Adapted | None:
    family = load_recipe(path).config(0).model
    if family.params.get("freeze_until") is not None:
        return None
    random = [f"space.model={{{family.name}: {{pretrained: none}}}}"] if "pretrained" in family.params else []
    for side in of.sides:
        settings = (*of.settings, *random, f"data.image_size={side}")
        recipe = load_recipe(path, list(settings))
        try:
            recipe.config(0).footprint()
        except Infeasible:
            continue
        return Adapted(recipe, settings)
    return None


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.published_recipes")
    parser.add_argument("--films", type=Path, required=True, help="folder of pneumoniamnist.npz and nih_mini")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2, help="of a core, that a recipe may take")
    parser.add_argument("--in-full", action="store_true", help="all epochs of each, whatever they take")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each recipe")
    parser.add_argument("--only", choices=[of.key for of in DATA_SETS], help="one data set")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for of in DATA_SETS:
        if args.only in (None, of.key):
            train_all(of, args.films, args.out / of.key, inf if args.in_full else args.minutes, args.seeds)


def train_all(of: DataSet, films: Path, out: Path, minutes: float, seeds: int) -> None:
    """Train a data set's recipes that are not trained yet."""
    jobs = []
    for adapted in adapted_recipes(of):
        recipe = adapted.recipe
        absent = [seed for seed in range(seeds) if not results(out, recipe.name, seed).exists()]
        if not absent:
            continue
        first = results(out, recipe.name, 0)
        if first.exists():
            epochs = int(json.loads(first.read_text("utf-8"))["epochs"])
        else:
            epochs = _affordable(recipe, of.prepare(recipe, films), minutes)
        print(f"{of.title}: {recipe.name}, {epochs} of {recipe.config(0).epochs} epochs, seeds {absent}", flush=True)
        settings = [*adapted.settings, f"space.epochs={epochs}"]
        jobs += [(recipe.name, results(out, recipe.name, seed).parent, seed, settings) for seed in absent]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for told in pool.map(lambda job: _train(of.data.format(films), *job), jobs):
            print(f"{of.title}: {told}", flush=True)


def results(out: Path, name: str, seed: int) -> Path:
    """The figures of a training, beside its network; there once it is trained."""
    return out / name / f"seed-{seed}" / "metrics.json"


def _affordable(recipe: Recipe, prepared: PreparedData, minutes: float) -> int:
    """Epochs that the minutes pay for, by the speed over a few films."""
    if minutes == inf:
        return recipe.config(0).epochs
    data = TrainingData.open(prepared.cache, prepared.development, recipe.task.labels)
    probed = data.share(_PROBED / len(data.train))
    training = Training(replace(recipe.config(0), epochs=1), probed)
    seconds = len(data.train) / next(training.epochs()).films_per_second
    return min(recipe.config(0).epochs, max(1, int(60 * minutes / seconds)))


def _train(data: str, name: str, folder: Path, seed: int, settings: Sequence[str]) -> str:
    shutil.rmtree(folder, ignore_errors=True)  # half trained, perhaps for another number of epochs
    given = [f"--set={setting}" for setting in settings]
    command = [sys.executable, "-m", "cxr_core.train", str(RECIPES / f"{name}.yaml"), "--data", data]
    done = subprocess.run(
        [*command, "--out", str(folder), "--seed", str(seed), "--threads", "1", "--device", "cpu", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return f"{name}, seed {seed}, {'trained' if done.returncode == 0 else f'failed: {done.stdout[-2000:]}'}"


if __name__ == "__main__":
    main()
