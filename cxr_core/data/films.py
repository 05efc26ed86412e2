"""What a training sees: films of one split with their targets, and the training and validation pair."""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_core.data.cache import cache_facts, open_cache
from cxr_core.data.source import DataError
from cxr_core.data.splits import check_copies, check_disjoint, parts_by_patient

_STATISTICS_FILMS = 2000
"""Films that pixel statistics are taken from, spread over the split; the mean is then known to a grey level of 255."""


@dataclass(frozen=True, eq=False)
class Films:
    """Films of one split, not copied: `images` is the whole cache as an mmap and `rows` says which are meant.

    images: (M, H, W) uint8. rows: (N,) positions in `images`. targets: (N, C) float32 in {0, 1, NaN}.
    table: the N rows of the manifest (image, patient, view, sex, age where known).
    """

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    table: pd.DataFrame

    @classmethod
    def open(cls, cache: Path, films: pd.DataFrame, labels: tuple[str, ...]) -> "Films":
        """Join cached pixels with the table of one split, in the order in which the films lie on disk.

        films: rows of image and the labels in {0, 1, NaN}; films that the cache lacks (unreadable ones), and those
        without any of the labels known, are left out.
        """
        return _join(*open_cache(cache), films, labels)

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copies of films by their position in this split, (B, H, W) uint8, into `out` if it is given."""
        # At the default mode "raise" numpy first gathers into a buffer of its own: half as fast.
        return np.take(self.images, self.rows[index], axis=0, out=out, mode="clip")

    def those(self, taken: np.ndarray) -> "Films":
        """Some of the films; taken: (N,) bool."""
        return Films(self.images, self.rows[taken], self.targets[taken], self.table[taken].reset_index(drop=True))

    def joined(self, other: "Films") -> "Films":
        """These films, followed by others of the same cache."""
        rows, targets = np.concatenate((self.rows, other.rows)), np.concatenate((self.targets, other.targets))
        return Films(self.images, rows, targets, pd.concat([self.table, other.table], ignore_index=True))


@dataclass(frozen=True, eq=False)
class PixelStatistics:
    """Pixels of films in [0, 1]: their mean and standard deviation, the mean film (H, W) and the deviation from it."""

    mean: float
    std: float
    mean_image: np.ndarray
    std_around_mean_image: float


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The two splits that a training may see. The test split has no place here.

    pixels: fingerprints of the films' pixels by image name, if they are known.
    """

    train: Films
    val: Films
    labels: tuple[str, ...]
    aspect: str = "squash"
    pixels: pd.Series | None = None

    @classmethod
    def open(cls, cache: Path, films: pd.DataFrame, labels: tuple[str, ...]) -> "TrainingData":
        """Join cached pixels with the films' table.

        films: rows of image, patient, split (train or val) and the labels in {0, 1, NaN}; films that the cache lacks
        (unreadable ones), and those without any of the labels known, are left out.
        Raises DataError if a label is missing, a split ends up empty, or the splits share a patient or a film.
        """
        images, manifest = open_cache(cache)
        if absent := [label for label in labels if label not in films.columns]:
            raise DataError(f"label {absent[0]!r} is not in the data set")
        films = films[(films["split"] != "test") & films["image"].isin(manifest["image"])]
        check_disjoint(films)
        pixels = manifest.set_index("image")["pixels"]
        check_copies(films, pixels)

        def part(name: str) -> Films:
            split = _join(images, manifest, films[films["split"] == name], labels)
            if not len(split):
                raise DataError(f"the {name} split has no labelled film")
            return split

        return cls(part("train"), part("val"), labels, cache_facts(cache).aspect, pixels)

    def share(self, fraction: float) -> "TrainingData":
        """The same with about a fraction of the training patients; a smaller share is part of a larger one.

        Raises DataError if no film is left.
        """
        patients = self.train.table["patient"].astype(str)
        taken = patients.map({patient: _lot(patient) < fraction for patient in patients.unique()}).to_numpy(bool)
        if not taken.any():
            raise DataError(f"a share of {fraction:g} of the training patients holds no film; raise it")
        return replace(self, train=self.train.those(taken))

    def with_validation(self) -> "TrainingData":
        """The same with the validation films among those for training, for a last training that nothing judges.

        The validation split stays as it is; what is measured on it says nothing any more.
        """
        return replace(self, train=self.train.joined(self.val))

    def fold(self, index: int, folds: int) -> "TrainingData":
        """The same films, divided otherwise: each patient judges in one of the folds, and is learnt from in the others.

        index: 0 to folds - 1. The last fold is the split as it is; the others divide its training patients among them,
        stratified, and have its validation patients among those for training. Patients who share a picture stay on one
        side. Raises DataError if there are fewer training patients than folds to divide them into.
        """
        if not 0 <= index < folds:
            raise ValueError(f"there is no fold {index} of {folds}")
        if index == folds - 1:
            return self
        judges = parts_by_patient(self.train.table, self.labels, folds - 1, self.pixels) == index
        judging = self.train.table["patient"].map(judges).to_numpy(bool)
        return replace(self, train=self.train.those(~judging).joined(self.val), val=self.train.those(judging))

    @property
    def image_size(self) -> int:
        """Side of the square films, in pixels."""
        return int(self.train.images.shape[-1])

    @cached_property
    def counts(self) -> np.ndarray:
        """Positive and negative training films of each label, (2, C) float64; unlabelled ones count as neither."""
        targets = self.train.targets
        return np.stack([np.nansum(targets, axis=0), np.nansum(1 - targets, axis=0)]).astype(np.float64)

    @cached_property
    def pixel_statistics(self) -> PixelStatistics:
        """What normalisations need to know of the training films' pixels, from at most 2,000 films."""
        positions = range(0, len(self.train), -(-len(self.train) // _STATISTICS_FILMS))
        sums, squares = np.zeros(self.train.images.shape[1:], np.int64), 0
        for position in positions:  # film by film: all at once they would take gigabytes
            film = self.train.pixels(np.array([position]))[0].astype(np.int64)
            sums += film
            squares += int((film * film).sum())
        mean_image = sums / (255 * len(positions))
        mean, square = float(mean_image.mean()), squares / (255**2 * len(positions) * mean_image.size)
        return PixelStatistics(
            mean=mean,
            std=_deviation(square - mean**2),
            mean_image=mean_image,
            std_around_mean_image=_deviation(square - float((mean_image**2).mean())),
        )


def _join(images: np.ndarray, manifest: pd.DataFrame, films: pd.DataFrame, labels: tuple[str, ...]) -> Films:
    place = pd.Series(np.arange(len(manifest)), index=manifest["image"])
    table = films[films["image"].isin(place.index) & films[list(labels)].notna().any(axis=1)]
    table = table.iloc[place[table["image"]].argsort(kind="stable")].reset_index(drop=True)
    rows = place[table["image"]].to_numpy()
    return Films(images, rows, table[list(labels)].to_numpy(np.float32, copy=True), table)


def _lot(patient: str) -> float:
    """A patient's number in [0, 1): drawn from the name, so that it is the same in every process and study."""
    return int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest()) / 2**64


def _deviation(variance: float) -> float:
    """Square root of a variance, at least 1e-3: films without any contrast can still be divided by it."""
    return math.sqrt(max(variance, 1e-6))
