"""What a training sees: films of one split with their targets, and the training and validation pair."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_core.data.cache import open_cache
from cxr_core.data.source import DataError


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

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, index: np.ndarray) -> np.ndarray:
        """Copies of films by their position in this split, (B, H, W) uint8."""
        gathered: np.ndarray = self.images[self.rows[index]]
        return gathered


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The two splits that a training may see. The test split has no place here."""

    train: Films
    val: Films
    labels: tuple[str, ...]

    @classmethod
    def open(cls, cache: Path, split: pd.DataFrame, labels: tuple[str, ...]) -> "TrainingData":
        """Join cached films with their split.

        split: rows of image and split (train or val); films without any of the labels known are left out.
        Raises DataError if the cache lacks a label, or a split ends up empty.
        """
        images, manifest = open_cache(cache)
        if absent := [label for label in labels if label not in manifest.columns]:
            raise DataError(f"label {absent[0]!r} is not in the data set")
        parts = manifest["image"].map(split.set_index("image")["split"]).to_numpy()
        targets = manifest[list(labels)].to_numpy(np.float32)
        labelled = ~np.isnan(targets).all(axis=1)

        def films(part: str) -> Films:
            rows = np.flatnonzero((parts == part) & labelled)
            if not len(rows):
                raise DataError(f"the {part} split has no labelled film")
            return Films(images, rows, targets[rows], manifest.iloc[rows].reset_index(drop=True))

        return cls(films("train"), films("val"), labels)

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
    def pixel_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the training films' pixels, in [0, 1], from at most 2,000 films."""
        every = -(-len(self.train) // 2000)
        counts = np.zeros(256)  # film by film: all at once in float64 they would take gigabytes
        for film in range(0, len(self.train), every):
            counts += np.bincount(self.train.pixels(np.array([film])).ravel(), minlength=256)
        grey, share = np.arange(256) / 255, counts / counts.sum()
        mean = float(grey @ share)
        return mean, max(float((grey - mean) ** 2 @ share) ** 0.5, 1e-3)
