"""The claim table: every published recipe beside the winners of searches, on the same films, by the same protocol.

    python -m benchmarks.published_recipes --films ../shared/data --out claims
    python -m benchmarks.published_recipes --films ../shared/data --out claims_in_full --only nih_mini --in-full
    python -m benchmarks.claims --films ../shared/data --recipes claims --in-full claims_in_full --write \\
        --pneumoniamnist studies/p1 studies/p2 studies/p3 --nih-mini studies/n1 studies/n2 studies/n3

It opens the test films for all trainings at once and compares them with the winner of the first study that is named;
the intervals are of one bootstrap of the patients. A data set without a study keeps its columns as they were measured,
in `claims_DATA_SET.json`.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.published_recipes import DATA_SETS, Adapted, DataSet, adapted_recipes, published_epochs
from benchmarks.rounds import machine
from cxr_core.batches import Batches
from cxr_core.bootstrap import bootstrap, macro_samples, percentile_interval
from cxr_core.checkpoint import Checkpoint, load_checkpoint
from cxr_core.data import Films
from cxr_core.ensemble import mean_probability
from cxr_core.evaluate import predict
from cxr_core.metrics import EPOCH_METRICS, macro, per_label
from cxr_core.recipe import Recipe
from search.finals.ensemble import read_ensemble
from search.finals.record import read_record
from search.kept_scores import read_scores, save_scores, test_scores_path
from search.space import load_space
from search.study import Study

FEWEST = 5
"""Positive test films from which on a finding counts."""
_TITLES = {"auroc_macro": "AUROC", "accuracy": "accuracy"}
_IN_FULL = " in full"
"""What is said after the name of a recipe that was trained with all its epochs."""
PUBLISHED = {
    "AutoKeras (published)": ("0.947", "0.878"),
    "ResNet-50, 224 px (published)": ("0.962", "0.884"),
    "Google AutoML Vision (published)": ("0.991", "0.946"),
}
"""AUROC and accuracy on the test films of PneumoniaMNIST, from MedMNIST v2 (Yang et al. 2023, Sci Data 10:41)."""

Figure = tuple[float, np.ndarray]
"""A value, and what it is in each resample of the patients."""


@dataclass(frozen=True, eq=False)
class Row:
    """What was trained. scores: (S, N, C) of its trainings, on the test films in their order."""

    name: str
    about: str
    scores: np.ndarray


@dataclass(frozen=True)
class Measured:
    """The columns of a data set, as they are kept beside the table.

    about: day, versions and machine. tested: on which films. spread: over searches of one space; empty without some.
    trained: what, by the row's name. figures: of each row by metric, and `difference` from the first row's AUROC, each
    with the ends of its 95 % interval.
    """

    about: str
    tested: str
    spread: str
    trained: dict[str, str]
    figures: dict[str, dict[str, list[float]]]

    def with_earlier(self, earlier: "Measured") -> "Measured":
        """With the rows of trainings that are not at hand, if the winner that they are compared with is the same."""
        first = next(iter(self.trained))
        ours, theirs = (np.round(of["auroc_macro"], 3) for of in (self.figures[first], earlier.figures[first]))
        if not np.array_equal(ours, theirs):
            return self
        return replace(self, trained=earlier.trained | self.trained, figures=earlier.figures | self.figures)

    @property
    def recipes(self) -> list[str]:
        """The rows that are no search's."""
        return [name for name in self.trained if ":" not in name]

    def above(self) -> str:
        """The recipes whose AUROC is above that of the first search's winner."""
        higher = [name for name in self.recipes if self.figures[name]["difference"][0] > 0]
        told = ": " + ", ".join(f"{name} ({self.trained[name]})" for name in higher) if higher else ""
        return f"Above the first winner's AUROC: {len(higher)} of {len(self.recipes)} rows of recipes{told}."

    def absent(self, names: set[str]) -> Iterator[str]:
        """The recipes that were not trained, and if others were in full, those that were not."""
        in_full = {name.removesuffix(_IN_FULL) for name in self.recipes if name.endswith(_IN_FULL)}
        if absent := names - set(self.recipes) - in_full:
            yield f"Not trained: {', '.join(sorted(absent))}."
        if in_full and (partly := names - absent - in_full):
            yield f"Not trained in full: {', '.join(sorted(partly))}."


@dataclass(frozen=True, eq=False)
class Opened:
    """The test films of a data set with everything that was trained for it, the first study's winner first.

    repeated: whether the studies are searches of one space, so that what they found can be a sample of something.
    """

    of: DataSet
    films: pd.DataFrame
    labels: Sequence[str]
    searches: Sequence[Row]
    recipes: Sequence[Row]
    repeated: bool

    @property
    def measured(self) -> Measured:
        """What the test films say."""
        films, patients = len(self.films), self.films["patient"].nunique()
        tested = f"{films} test films of {patients} patients, {self._counted.sum()} of {len(self.labels)} findings."
        (best, drawn), rows = self._figures[0]["auroc_macro"], [*self.searches, *self.recipes]
        found: dict[str, dict[str, list[float]]] = {}
        for row, figures in zip(rows, self._figures, strict=True):
            value, samples = figures["auroc_macro"]
            found[row.name] = {name: _with_interval(*figures[name]) for name in self.of.metrics}
            if row is not rows[0]:
                found[row.name]["difference"] = _with_interval(value - best, samples - drawn)
        about = f"{time.strftime('%Y-%m-%d')}; {machine('torch', 'timm')}"
        return Measured(about, tested, self._spread(), {row.name: row.about for row in rows}, found)

    @cached_property
    def _counted(self) -> np.ndarray:
        """(C,) bool: the findings that films enough have, and some have not: all of nih_mini's have pneumonia."""
        targets = self.films[list(self.labels)].to_numpy(np.float64)
        return np.asarray(((targets == 1).sum(axis=0) >= FEWEST) & (targets == 0).any(axis=0))

    @cached_property
    def _figures(self) -> list[dict[str, Figure]]:
        """Of each row the mean over its trainings, by metric."""
        rows, counted = [*self.searches, *self.recipes], self._counted
        targets = self.films[list(self.labels)].to_numpy(np.float64)[:, counted]
        stacked = np.concatenate([row.scores[..., counted] for row in rows])
        of_row = np.repeat(np.arange(len(rows)), [len(row.scores) for row in rows])
        drawn = bootstrap(targets, stacked, self.films["patient"].to_numpy(), self.of.metrics)
        figures: list[dict[str, Figure]] = [{} for _ in rows]
        for name in self.of.metrics:
            points = np.array([macro(per_label(EPOCH_METRICS[name], targets, one)) for one in stacked])
            resampled = macro_samples(drawn[name])
            for index, figure in enumerate(figures):
                trainings = of_row == index
                figure[name] = float(points[trainings].mean()), resampled[:, trainings].mean(axis=1)
        return figures

    def _spread(self) -> str:
        """The median over searches of one space, and from where to where."""
        searches = list(zip(self.searches, self._figures[: len(self.searches)], strict=True))
        places = {_search_of(row.name) for row in self.searches}
        if len(places) < 2 or not self.repeated:
            return ""
        told = []
        for who in ("winner", "ensemble"):
            for name in self.of.metrics:
                values = [figures[name][0] for row, figures in searches if row.name.endswith(f": {who}")]
                middle = f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"
                told.append(f"{who}, {_TITLES[name]} {middle}")
        return f"Median over {len(places)} searches: {'; '.join(told)}."


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.claims")
    parser.add_argument("--films", type=Path, required=True, help="folder of pneumoniamnist.npz and nih_mini")
    parser.add_argument("--recipes", type=Path, help="where benchmarks.published_recipes trained them")
    parser.add_argument("--in-full", type=Path, help="where it trained them in full")
    for of in DATA_SETS:
        name = f"--{of.key.replace('_', '-')}"
        parser.add_argument(name, dest=of.key, type=Path, nargs="+", metavar="STUDY", help="in the order they ran")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trained = {end: folder for end, folder in (("", args.recipes), (_IN_FULL, args.in_full)) if folder}
    columns = {}
    for of in DATA_SETS:
        kept = Path(__file__).with_name(f"claims_{of.key}.json")
        earlier = Measured(**json.loads(kept.read_text("utf-8"))) if kept.exists() else None
        if studies := getattr(args, of.key):
            folders = {end: folder / of.key for end, folder in trained.items()}
            measured = _open(of, args.films, folders, studies).measured
            columns[of] = measured.with_earlier(earlier) if earlier else measured
        elif earlier:
            columns[of] = earlier
        else:
            parser.error(f"{of.title} was never measured: name its studies")
        if args.write:
            kept.write_text(json.dumps(asdict(columns[of]), indent=1) + "\n", "utf-8")
    page = "\n\n".join((_TITLE, _PROTOCOL, "\n".join(_summaries(columns)), _table(columns)))
    print(page)
    if args.write:
        Path(__file__).with_suffix(".md").write_text(page + "\n", "utf-8")


_TITLE = "# Published recipes and the winners of searches"
_PROTOCOL = f"""\
AUROC on the official test films (on nih_mini the mean over the findings with at least {FEWEST} test films that show
them, and some that do not), accuracy at the threshold 0.5, and the paired difference from the winner of the first
search, below 0 where that winner is better; each with a 95 % interval over patients (over films where, as in
PneumoniaMNIST, nobody knows the patients), percentiles of 2,000 resamples. The intervals are over test films alone.
Neither another seed nor the number of comparisons is in them: of so many rows a few lie outside by chance.

Searches: `python -m search.run --space SPACE --data FILMS --seed N`. On PneumoniaMNIST by spaces/pneumonia.yaml. On
nih_mini, in the order in which they ran, by benchmarks/claims_nih_mini.yaml, claims_nih_mini_80px.yaml and
claims_nih_mini_kfold.yaml: three spaces, so that their spread is not that of a search. Minutes are those of the
search with its finals on 2 cores, other programs beside it. Winner and ensemble were chosen on validation films.

The spaces were not: whoever wrote the one for pneumonia, and the recipe pneumonia_small_net in it, had seen what
helps on these test films, the smaller views of zoom_tta above all, and the later spaces for nih_mini have the family
of the recipe that stood above the first search's winner. Other films must confirm these figures. On nih_mini
validation is a poor guide: two fifths of the films for training and validation show pneumonia, and all test films do.

Recipes: their own hyperparameters, random initial weights (ImageNet's cannot be downloaded on this machine), films of
another side, and a central crop of as many pixels as published, which takes less off such films. "In full" is a
recipe with all its epochs; elsewhere the schedule is shortened to what about two minutes of a core pay for, to one
epoch at least: large networks are then far from what they reach. A figure is the mean over the seeds. Left out are
the two recipes that train nothing but a last layer on ImageNet's features.

The commands are in the head of benchmarks/claims.py. A training that is no longer at hand keeps its row, in
claims_DATA_SET.json, as long as the winner that it is compared with is the same to three digits. On nih_mini the first
search was run twice, on two machines: the same seed gave the same winner, the ensemble is the second run's."""


def _summaries(columns: Mapping[DataSet, Measured]) -> Iterator[str]:
    """Of each data set, what was tested, how far apart several searches ended, and which recipes lie higher."""
    for of, found in columns.items():
        names = {one.recipe.name for one in adapted_recipes(of)}
        told = " ".join(filter(None, (found.tested, found.spread, found.above(), *found.absent(names))))
        yield f"- {of.title} ({found.about}): {told}"


def _table(columns: Mapping[DataSet, Measured]) -> str:
    """Everything trained, a line each, with the columns of each data set."""
    cells = {of: {name: _cells(of, found, name) for name in found.trained} for of, found in columns.items()}
    cells[DATA_SETS[0]] |= {name: ["", *figures, ""] for name, figures in PUBLISHED.items()}
    heads = {of: [f"{of.title}: {title}" for title in _head(of)] for of in columns}
    names = dict.fromkeys(name for rows in cells.values() for name in rows)
    searches = sorted((name for name in names if ":" in name), key=_search_of)
    lines = ["| | " + " | ".join(title for head in heads.values() for title in head) + " |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for name in (*searches, *PUBLISHED, *sorted(set(names).difference(searches, PUBLISHED))):
        row = [cell for of, head in heads.items() for cell in cells[of].get(name, [""] * len(head))]
        lines.append(f"| {f'**{name}**' if name in searches else name} | {' | '.join(row)} |")
    return "\n".join(lines)


def _cells(of: DataSet, found: Measured, name: str) -> list[str]:
    figures = found.figures[name]
    told = [figures.get(key) for key in (*of.metrics, "difference")]
    return [found.trained[name], *("{:z.3f} [{:z.3f}, {:z.3f}]".format(*one) if one else "" for one in told)]


def _head(of: DataSet) -> list[str]:
    return ["trained", *(f"{_TITLES[name]} [95 %]" for name in of.metrics), "AUROC minus the winner's"]


def _search_of(name: str) -> str:
    """`search 2` of `search 2: winner`."""
    return name.partition(":")[0]


def _open(of: DataSet, films: Path, recipes: Mapping[str, Path], studies: Sequence[Path]) -> Opened:
    """recipes: folders of trainings, by what is said after a recipe's name."""
    adapted = adapted_recipes(of)
    table = pd.read_parquet(studies[0] / "test" / "films.parquet")
    searches = [row for place, study in enumerate(studies, 1) for row in _of_study(study, place, table["image"])]
    rows = (
        _of_recipe(of, one, folder, f"{one.recipe.name}{end}", films, table["image"])
        for end, folder in recipes.items()
        for one in adapted
    )
    spaces = {(study / "space.yaml").read_text("utf-8") for study in studies}
    labels = adapted[0].recipe.task.labels
    return Opened(of, table, labels, searches, [row for row in rows if row], repeated=len(spaces) == 1)


def _of_study(folder: Path, place: int, images: pd.Series) -> Iterator[Row]:
    """The winner of a study's finals, by all its seeds, the ensemble, and the baselines, which are trained in full."""
    record, ensemble = read_record(folder), read_ensemble(folder)
    if record is None or ensemble is None:
        raise SystemExit(f"{folder}: has no finals yet: python -m search.finalize {folder}")

    def scores(trial: int) -> np.ndarray:
        return read_scores(test_scores_path(folder, trial)).loc[images].to_numpy()

    def row(name: str, finalist: Mapping[str, Any]) -> Row:
        seeds = np.stack([scores(training["trial"]) for training in finalist["trainings"]])
        return Row(name, f"{finalist['baseline'] or finalist['model']}, {_seeds(len(seeds))}", seeds)

    of = {finalist["trial"]: finalist for finalist in record["finalists"]}
    winner = row(f"search {place}: winner", of.pop(record["winner"]))
    minutes = Study(folder).facts["seconds_used"] / 60
    side = load_space(folder / "space.yaml").header.data.image_size
    yield replace(winner, about=f"{winner.about}; {side} px, {minutes:.0f} min")
    members, counts = zip(*ensemble["basis"]["members"], strict=True)
    mean = mean_probability(np.stack([scores(member) for member in members]), counts)
    yield Row(f"search {place}: ensemble", f"{len(members)} networks", mean[None])
    yield from (row(f"search {place}: {one['baseline']}{_IN_FULL}", one) for one in of.values() if one["baseline"])


def _of_recipe(of: DataSet, adapted: Adapted, folder: Path, title: str, films: Path, images: pd.Series) -> Row | None:
    """A recipe's trainings on the test films, None if it is not trained."""
    recipe = adapted.recipe
    trained = sorted(folder.glob(f"{recipe.name}/seed-*/metrics.json"))
    if not trained:
        return None
    scores = []
    for path in trained:
        checkpoint = load_checkpoint(path.with_name("model.pt"))
        if checkpoint.config.image_size != recipe.policy.image_size:
            raise SystemExit(f"{path.parent}: trained at another size; remove it and train it again")
        kept = path.with_name("test-scores.npz")
        if not kept.exists():
            _predict_test(of, recipe, films, checkpoint, kept)
        scores.append(read_scores(kept).loc[images].to_numpy())
    epochs = json.loads(trained[0].read_text("utf-8"))["epochs"]
    about = f"{recipe.policy.image_size} px, {epochs} of {published_epochs(recipe.name)} epochs, {_seeds(len(scores))}"
    return Row(title, about, np.stack(scores))


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _predict_test(of: DataSet, recipe: Recipe, films: Path, checkpoint: Checkpoint, kept: Path) -> None:
    prepared = of.prepare(recipe, films)
    assert prepared.test_cache
    rows = prepared.films[prepared.films["split"] == "test"]
    test = Films.open(prepared.test_cache, rows, recipe.task.labels)
    batches, views = Batches(test, torch.device("cpu")), checkpoint.config.views
    save_scores(kept, test.table["image"], predict(checkpoint.build(), batches, checkpoint.normalise, views=views))


def _with_interval(value: float, samples: np.ndarray) -> list[float]:
    interval = percentile_interval(samples)
    return [value, float(interval.low), float(interval.high)]


if __name__ == "__main__":
    main()
