"""From a data set's name to films that can be trained on: labels resolved, splits drawn, pixels cached, leaks found."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_core.data.cache import build_cache, open_cache, unreadable_films
from cxr_core.data.policy import DataPolicy
from cxr_core.data.progress_bar import film_bar
from cxr_core.data.source import DataError, DataName, Source
from cxr_core.data.splits import check_copies, drop_copies, split_by_patient, split_hash
from cxr_core.labels import NO_FINDING, Task, add_no_finding, mask_for_task, resolve_labels

log = logging.getLogger(__name__)

_MISSING_SHARE = 0.01
"""Share of films that may be missing on disk before a data set is taken for an incomplete download."""
PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Films ready for training, and what there is to tell of them.

    films: every film that can be used: image, patient, split (train, val or test), all labels in {0, 1, NaN}, and
    view, sex, age where known. cache: pixels of the training and validation films. test_cache: pixels of the test
    films, in a folder of their own that no training is given; None without a test split.
    unreadable: image and reason of the films left out. missing: films that are listed but not on disk.
    copies: films left out of a split because another one has the same picture. notes: sentences for the user.
    """

    name: DataName
    policy: DataPolicy
    task: Task
    seed: int
    labels: tuple[str, ...]
    films: pd.DataFrame
    cache: Path
    test_cache: Path | None
    unreadable: pd.DataFrame
    missing: tuple[str, ...]
    copies: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def development(self) -> pd.DataFrame:
        """The films that trainings may see: all but the test's."""
        return self.films[self.films["split"] != "test"].reset_index(drop=True)

    def save(self, folder: Path) -> None:
        """Write down which film is in which split, with its labels: `films.parquet`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "films.parquet.partial"
        with partial.open("wb") as file:  # of a path that is no UTF-8, pyarrow makes nothing
            self.films.to_parquet(file, index=False)
        partial.replace(folder / "films.parquet")

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for records and reports, as JSON takes them."""
        parts = {part: rows for part in PARTS if len(rows := self.films[self.films["split"] == part])}
        return {
            "data": str(self.name.absolute()),
            "films": {part: len(rows) for part, rows in parts.items()},
            "patients": {part: int(rows["patient"].nunique()) for part, rows in parts.items()},
            "labels": {
                label: {part: _count(rows[label]) for part, rows in parts.items()} for label in self.task.labels
            },
            "unreadable": len(self.unreadable),
            "missing": len(self.missing),
            "copies": self.copies,
            "notes": list(self.notes),
            "split_hash": split_hash(self.films),
        }


def _count(values: pd.Series) -> dict[str, Any]:
    """Films that carry a label, films where it is known, and their ratio (None where it is known of none)."""
    positive, labelled = int((values == 1).sum()), int(values.notna().sum())
    return {"positive": positive, "labelled": labelled, "prevalence": positive / labelled if labelled else None}


def prepare(
    name: DataName, policy: DataPolicy, task: Task | None = None, seed: int = 0, root: Path | None = None
) -> PreparedData:
    """Read a data set's tables, split it by patient, and build or reuse the caches of its pixels.

    task: what is to be predicted; None takes all labels of the data set. seed: of the splits that are drawn.
    root: folder of the caches. Raises DataError, with the remedy, if the data cannot be used.
    """
    started = time.monotonic()
    source = name.open()
    policy = replace(policy, blank=policy.blank or source.blank)
    _check_missing(name, source, policy)
    films, known = _labelled_films(name, source, policy)
    task = task or Task("multilabel" if len(source.labels) > 1 else "binary", source.labels)
    films = _for_task(name, source, films, known, task)
    try:
        films = split_by_patient(films, task.labels, policy, seed)
    except DataError as fault:
        raise DataError(f"--data {name}: {fault}") from None
    caches = {}
    for what, chosen in (("training and validation", films["split"] != "test"), ("test", films["split"] == "test")):
        if chosen.any():
            with film_bar(f"{what} films") as on_film:
                images = films.loc[chosen, "image"].tolist()
                caches[what] = build_cache(source, images, policy.image_size, policy.aspect, root, on_film)
    unreadable = pd.concat([unreadable_films(cache) for cache in caches.values()], ignore_index=True)
    pixels = pd.concat([open_cache(cache)[1].set_index("image")["pixels"] for cache in caches.values()])
    films = films[films["image"].isin(pixels.index)]
    films, copies = _without_copies(source, films, pixels, policy)
    prepared = PreparedData(
        name=name,
        policy=policy,
        task=task,
        seed=seed,
        labels=known,
        films=films.reset_index(drop=True),
        cache=caches["training and validation"],
        test_cache=caches.get("test"),
        unreadable=unreadable,
        missing=source.missing,
        copies=len(copies),
        notes=(*source.notes, *_notes(source, copies)),
        seconds=time.monotonic() - started,
    )
    _check_labels(prepared)
    return prepared


def _check_missing(name: DataName, source: Source, policy: DataPolicy) -> None:
    missing, listed = len(source.missing), len(source.films) + len(source.missing)
    if missing > _MISSING_SHARE * listed and not policy.allow_missing:
        raise DataError(
            f"--data {name}: {missing:,} of the {listed:,} films listed are not on disk (the first is "
            f"{source.missing[0]}); finish the download, or go on without them: --allow-missing"
        )


def _labelled_films(name: DataName, source: Source, policy: DataPolicy) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The source's films of the views wanted, with labels as the policies take them, and the names of the labels."""
    films = resolve_labels(source.films, source.labels, policy.uncertain, policy.blank or source.blank)
    films = add_no_finding(films, source.labels)
    labels = tuple(dict.fromkeys([*source.labels, *([NO_FINDING] if NO_FINDING in films.columns else [])]))
    if policy.views:
        there = sorted(set(films["view"].dropna())) if "view" in films.columns else []
        if unknown := [view for view in policy.views if view not in there]:
            raise DataError(
                f"--data {name}: no film has the view {unknown[0]!r}; "
                f"{'its views are ' + ', '.join(there) if there else 'it does not tell views'}. Set data.views"
            )
        films = films[films["view"].isin(policy.views)]
    return films, labels


def _for_task(name: DataName, source: Source, films: pd.DataFrame, known: tuple[str, ...], task: Task) -> pd.DataFrame:
    """The films that have a label of the task. Raises DataError if the data set lacks one of its labels."""
    wanted = (*task.labels, *([NO_FINDING] if task.against == "no_finding" else []))
    if absent := [label for label in wanted if label not in known]:
        why = f" ({source.not_labels[absent[0]]})" if absent[0] in source.not_labels else ""
        raise DataError(
            f"--data {name}: the label {absent[0]!r} is not in this data set{why}; it has {', '.join(known)}. "
            "Set task.labels"
        )
    films = mask_for_task(films, task)
    labelled = films[list(task.labels)].notna().any(axis=1)
    if not labelled.any():
        raise DataError(
            f"--data {name}: no film has a known value of {', '.join(task.labels)}; see data.uncertain, data.blank and "
            "task.against, by which values count as unknown"
        )
    return films[labelled]


def _without_copies(
    source: Source, films: pd.DataFrame, pixels: pd.Series, policy: DataPolicy
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The films without those that another split has, too, and those left out. Raises DataError if that is refused."""
    # Where patients are not known, identical films are one patient's, and the published test films must stay.
    if policy.duplicates == "refuse" and source.patients_known:
        check_copies(films, pixels)
    kept = drop_copies(films, pixels)
    return kept, films[~films["image"].isin(kept["image"])]


def _notes(source: Source, copies: pd.DataFrame) -> list[str]:
    notes = []
    if not source.patients_known:
        notes.append(
            "the data set names no patients: each film stands as one of its own, and where a patient has several, "
            "splits share patients and intervals are too narrow"
        )
    if len(copies):
        lesser = ", ".join(f"{count} of {part}" for part, count in copies["split"].value_counts().items())
        which = "1 film has" if len(copies) == 1 else f"{len(copies):,} films have"
        notes.append(f"{which} an identical film in another split, left out: {lesser}")
    if source.missing:
        which = "1 film is" if len(source.missing) == 1 else f"{len(source.missing):,} films are"
        notes.append(f"{which} listed but not on disk; the first is {source.missing[0]}")
    return notes


def _check_labels(prepared: PreparedData) -> None:
    """Raise DataError if nothing can be learnt or judged; warn of single labels."""
    for part in ("train", "val"):
        rows = prepared.films[prepared.films["split"] == part]
        one_sided = [label for label in prepared.task.labels if rows[label].dropna().nunique() < 2]
        if len(one_sided) == len(prepared.task.labels):
            raise DataError(
                f"--data {prepared.name}: in the {part} split no label has both positives and negatives "
                f"({len(rows)} films); give it more films, or another data.validation or seed"
            )
        for label in one_sided:
            count = _count(rows[label])
            log.warning(
                "%s: %d positives of %d films in %s; its AUROC there is undefined",
                label,
                count["positive"],
                count["labelled"],
                part,
            )
