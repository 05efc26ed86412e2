"""The claim table: every published recipe beside the winners of searches, on the same films, by the same protocol.

    python -m benchmarks.claims train --films ../shared/data --out claims
    python -m benchmarks.claims table --films ../shared/data --out claims --write \\
        --pneumoniamnist studies/first studies/second studies/third --nih-mini studies/nih

`train` trains the recipes with `cxr_core.train`, one thread each, as many at once as there are cores; given again it
goes on. A recipe keeps its hyperparameters but begins with random weights, as ImageNet's cannot be had offline, and its
schedule is shortened, where it must be, to what `--minutes` of a core pay for, to two epochs at least. Those that train
a last layer only would be nothing without ImageNet's weights and are left out. Films of PneumoniaMNIST, of 28 px, are
scaled up as little as a network demands. `table` opens the test films for all trainings at once and compares them with
the winner of the first study that is named; the intervals are of one bootstrap of the patients.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.rounds import machine, publish
from cxr_core.batches import Batches
from cxr_core.bootstrap import bootstrap, macro_samples, percentile_interval
from cxr_core.checkpoint import load_checkpoint
from cxr_core.data import DataName, Films, PreparedData, TrainingData, prepare
from cxr_core.ensemble import mean_probability
from cxr_core.evaluate import predict
from cxr_core.metrics import EPOCH_METRICS, macro, per_label
from cxr_core.models import Infeasible
from cxr_core.recipe import Recipe, load_recipe
from cxr_core.train import Training
from search.finals.ensemble import read_ensemble
from search.finals.record import read_record
from search.kept_scores import read_scores, save_scores

RECIPES = Path("spaces/recipes")
_PROBED = 256
"""Films that a recipe's speed is measured on."""
_FEWEST = 5
"""Positive test films from which on a finding counts."""


@dataclass(frozen=True)
class DataSet:
    """One column group of the table. sides: in pixels, of which a recipe is given the first that its network takes."""

    title: str
    data: str
    settings: tuple[str, ...]
    sides: tuple[int, ...]
    metrics: tuple[str, ...]


DATA_SETS = {
    "pneumoniamnist": DataSet(
        "PneumoniaMNIST",
        "medmnist:{}/pneumoniamnist.npz",
        ("task={kind: binary, labels: [Pneumonia]}",),
        (28, 56, 64, 80),
        ("auroc_macro", "accuracy"),
    ),
    "nih_mini": DataSet(
        "nih_mini",
        "nih:{}/nih_mini",
        ("task={kind: multilabel, labels: chestxray14}", "data.validation=0.15"),
        (80,),
        ("auroc_macro",),
    ),
}
PUBLISHED = {
    "AutoKeras": "0.947 / 0.878",
    "ResNet-50, 224 px": "0.962 / 0.884",
    "Google AutoML Vision": "0.991 / 0.946",
}
"""AUROC / accuracy on the test films of PneumoniaMNIST, from MedMNIST v2 (Yang et al. 2023, Scientific Data 10:41)."""


Figure = tuple[float, np.ndarray]
"""A value, and what it is in each resample of the patients."""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a column group. scores: (S, N, C) of its trainings, on the test films in their order."""

    name: str
    about: str
    scores: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.claims")
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--films", type=Path, required=True, help="folder of pneumoniamnist.npz and nih_mini")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3, help="of a core, that a recipe may take")
    parser.add_argument("--only", choices=DATA_SETS, help="one data set")
    for key in DATA_SETS:
        parser.add_argument(f"--{key.replace('_', '-')}", dest=key, type=Path, nargs="+", default=[], metavar="STUDY")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "train":
        for key in [args.only] if args.only else DATA_SETS:
            _train(DATA_SETS[key], args)
        return
    parts = [_table(of, args.out / of.title.lower(), args.films, getattr(args, key)) for key, of in DATA_SETS.items()]
    about = f"{machine('torch', 'timm')}; recipes: {args.minutes:g} minutes of a core each"
    publish(__file__, "Published recipes and the winners of searches", about, _PROTOCOL, *parts, write=args.write)


def _recipes(of: DataSet) -> Iterator[tuple[Recipe, list[str]]]:
    """Every recipe that can be trained from random weights, at the size it is given, and its overrides."""
    for path in sorted(RECIPES.glob("*.yaml")):
        own = load_recipe(path)
        family = own.config(0).model
        if family.params.get("freeze_until") is not None:
            continue
        random = [f"space.model={{{family.name}: {{pretrained: none}}}}"] if "pretrained" in family.params else []
        for side in of.sides:
            settings = [*of.settings, *random, f"data.image_size={side}"]
            recipe = load_recipe(path, settings)
            try:
                recipe.config(0).footprint()
            except Infeasible:
                continue
            yield recipe, settings
            break


def _train(of: DataSet, args: argparse.Namespace) -> None:
    jobs = []
    for recipe, settings in _recipes(of):
        folder = args.out / of.title.lower() / recipe.name
        if not (folder / "metrics.json").exists():
            epochs = _affordable(recipe, of, args)
            print(f"{of.title}: {recipe.name}, {epochs} of {recipe.config(0).epochs} epochs", flush=True)
            jobs.append((recipe.name, folder, [*settings, f"space.epochs={epochs}"]))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name, done in pool.map(lambda job: _train_one(of, args.films, *job), jobs):
            print(f"{of.title}: {name} {done}", flush=True)


def _affordable(recipe: Recipe, of: DataSet, args: argparse.Namespace) -> int:
    """Epochs that the minutes pay for, by the speed over a few films."""
    prepared = _films(recipe, of, args.films)
    data = TrainingData.open(prepared.cache, prepared.development, recipe.task.labels)
    probed = data.share(_PROBED / len(data.train))
    training = Training(replace(recipe.config(0), epochs=1), probed)
    seconds = len(data.train) / next(training.epochs()).films_per_second
    return min(recipe.config(0).epochs, max(2, int(60 * args.minutes / seconds)))


def _films(recipe: Recipe, of: DataSet, folder: Path) -> PreparedData:
    return prepare(DataName.parse(of.data.format(folder)), recipe.policy, recipe.task)


def _train_one(of: DataSet, films: Path, name: str, folder: Path, settings: Sequence[str]) -> tuple[str, str]:
    given = [f"--set={setting}" for setting in settings]
    command = [sys.executable, "-m", "cxr_core.train", str(RECIPES / f"{name}.yaml"), "--data", of.data.format(films)]
    done = subprocess.run(
        [*command, "--out", str(folder), "--threads", "1", "--device", "cpu", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return name, "trained" if done.returncode == 0 else f"failed:\n{done.stdout[-2000:]}"


_PROTOCOL = f"""\
AUROC on the official test films (on nih_mini the mean over the findings with at least {_FEWEST} positive test films),
accuracy at the threshold 0.5, each with a 95 % interval over patients, and the paired difference from the winner of
the first search: below 0, and its interval too, where that winner is better.

Searches: `python -m search.run --space SPACE --data FILMS --seed N`, spaces/pneumonia.yaml (its 15 minutes on 2
cores, of which the finals took 5; other programs ran beside it) and benchmarks/claims_nih_mini.yaml. Winner and
ensemble were chosen on validation films. The space for pneumonia was not: whoever wrote it, and the recipe
pneumonia_small_net in it, had seen what helps on these test films, the smaller views of zoom_tta above all. Other
films must confirm these figures.

Recipes: their own hyperparameters, random initial weights (ImageNet's cannot be downloaded on this machine), one
training each, schedules shortened to what the stated minutes of a core pay for: the large networks are far from what
they reach in full, and this table says nothing about them at their own size and length. Left out are the two recipes
that train nothing but a last layer on ImageNet's features."""


def _table(of: DataSet, recipes: Path, films: Path, studies: Sequence[Path]) -> str:
    if not studies:
        return f"## {of.title}\n\nNo study was named."
    labels = list(next(_recipes(of))[0].task.labels)
    table = pd.read_parquet(studies[0] / "test" / "films.parquet")
    targets = table[labels].to_numpy(np.float64)
    counted = np.nansum(targets, axis=0) >= _FEWEST
    rows = [row for study in studies for row in _of_study(study, table["image"])]
    trained = list(_of_recipes(of, recipes, films, table["image"]))
    rows += trained
    absent = [recipe.name for recipe, _ in _recipes(of) if recipe.name not in {row.name for row in trained}]
    figures = _figures(of.metrics, rows, targets[:, counted], table["patient"].to_numpy(), counted)
    head = ["", "trained", *(f"{_TITLES[name]} [95 %]" for name in of.metrics), "AUROC minus the winner's"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    value, samples = figures[0]["auroc_macro"]
    for row, reached in zip(rows, figures, strict=True):
        cells = [_interval(*reached[name]) for name in of.metrics]
        above, resampled = reached["auroc_macro"]
        less = "" if row is rows[0] else _interval(above - value, resampled - samples)
        lines.append(f"| {row.name} | {row.about} | {' | '.join(cells)} | {less} |")
    if of.title == "PneumoniaMNIST":
        lines += [f"| {name} (published) | | {value.replace(' / ', ' | ')} | |" for name, value in PUBLISHED.items()]
    patients, findings = table["patient"].nunique(), f"{counted.sum()} of {len(labels)} findings"
    about = f"{len(table)} test films of {patients} patients, {findings}. {_spread(of, len(studies), figures)}"
    missing = f"\n\nNot trained yet: {', '.join(absent)}." if absent else ""
    return f"## {of.title}\n\n{about.strip()}\n\n" + "\n".join(lines) + missing


def _spread(of: DataSet, studies: int, figures: Sequence[Mapping[str, Figure]]) -> str:
    """The median over searches, and from where to where; a search has two rows, its winner's and its ensemble's."""
    if studies < 2:
        return ""
    told = []
    for place, who in enumerate(("winner", "ensemble")):
        for name in of.metrics:
            values = [of_row[name][0] for of_row in figures[place : 2 * studies : 2]]
            middle = f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"
            told.append(f"{who}, {_TITLES[name]} {middle}")
    return f"Median over {studies} searches: {'; '.join(told)}."


def _of_study(folder: Path, images: pd.Series) -> Iterator[Row]:
    """The winner of a study's finals, by all its seeds, and the ensemble."""
    record, ensemble = read_record(folder), read_ensemble(folder)
    if record is None or ensemble is None:
        raise SystemExit(f"{folder}: has no finals yet: python -m search.finalize {folder}")

    def scores(trial: int) -> np.ndarray:
        return read_scores(folder / "test" / f"scores-{trial:05d}.npz").loc[images].to_numpy()

    row = next(row for row in record["finalists"] if row["trial"] == record["winner"])
    seeds = np.stack([scores(training["trial"]) for training in row["trainings"]])
    yield Row(f"**search {folder.name}: winner**", f"{row['baseline'] or row['model']}, {len(seeds)} seeds", seeds)
    members, counts = zip(*ensemble["basis"]["members"], strict=True)
    mean = mean_probability(np.stack([scores(member) for member in members]), counts)
    yield Row(f"**search {folder.name}: ensemble**", f"{len(members)} networks", mean[None])


def _of_recipes(of: DataSet, recipes: Path, folder: Path, images: pd.Series) -> Iterator[Row]:
    """Every recipe that was trained, by its name."""
    for recipe, _ in _recipes(of):
        model, kept = recipes / recipe.name / "model.pt", recipes / recipe.name / "test-scores.npz"
        if not (model.parent / "metrics.json").exists():
            continue
        checkpoint, side = load_checkpoint(model), recipe.policy.image_size
        if not kept.exists():
            prepared = _films(recipe, of, folder)
            assert prepared.test_cache
            rows = prepared.films[prepared.films["split"] == "test"]
            films = Films.open(prepared.test_cache, rows, recipe.task.labels)
            batches, views = Batches(films, torch.device("cpu")), checkpoint.config.views
            save_scores(
                kept,
                films.table["image"],
                predict(checkpoint.build(), batches, checkpoint.normalise, views=views),
            )
        epochs, own = checkpoint.config.epochs, load_recipe(RECIPES / f"{recipe.name}.yaml").config(0).epochs
        yield Row(recipe.name, f"{side} px, {epochs} of {own} epochs", read_scores(kept).loc[images].to_numpy()[None])


def _figures(
    metrics: Sequence[str], rows: Sequence[Row], targets: np.ndarray, patients: np.ndarray, counted: np.ndarray
) -> list[dict[str, Figure]]:
    """Of each row the mean over its trainings, by metric; targets: (N, C'), of the counted findings, (C,) bool."""
    stacked = np.concatenate([row.scores[..., counted] for row in rows])
    of_row = np.repeat(np.arange(len(rows)), [len(row.scores) for row in rows])
    drawn = bootstrap(targets, stacked, patients, metrics)
    figures: list[dict[str, Figure]] = [{} for _ in rows]
    for name in metrics:
        points = np.array([macro(per_label(EPOCH_METRICS[name], targets, one)) for one in stacked])
        resampled = macro_samples(drawn[name])
        for index, figure in enumerate(figures):
            trainings = of_row == index
            figure[name] = float(points[trainings].mean()), resampled[:, trainings].mean(axis=1)
    return figures


_TITLES = {"auroc_macro": "AUROC", "accuracy": "accuracy"}


def _interval(value: float, samples: np.ndarray) -> str:
    interval = percentile_interval(samples)
    return f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


if __name__ == "__main__":
    main()
