"""A finished film cache: a folder of pixels, the names of their films, and how they were made."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_core.data.policy import Aspect
from cxr_core.data.source import DataError

PIXELS, MANIFEST, UNREADABLE, FACTS = "images.npy", "manifest.parquet", "unreadable.csv", "cache.json"
FORMAT = 2
"""Raised when the files change, or the pixels that a reader or `resize` makes of a film: older caches lapse."""


@dataclass(frozen=True)
class CacheFacts:
    """How the films of a cache were made, and how many there are. kind: of the data set. format: see `FORMAT`."""

    kind: str
    image_size: int
    aspect: Aspect
    films: int
    format: int
    pillow: str
    numpy: str


def cache_root() -> Path:
    """Folder of all caches: $CXR_CACHE, or cxr-search in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CXR_CACHE") or user / "cxr-search" / "films")


def open_cache(folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """The cached films, (N, S, S) uint8 as a read-only mmap, and their N rows of `image`, `stamp` and `pixels`.

    pixels: hash of a film's cached pixels, the same for identical films. Needs no lock.
    Raises DataError if the cache is damaged.
    """
    facts = cache_facts(folder)
    try:
        images = np.load(folder / PIXELS, mmap_mode="r")
        manifest = pd.read_parquet(folder / MANIFEST)
    except Exception as fault:  # what numpy and pyarrow raise on damaged headers is not documented
        raise _damaged(folder, str(fault)) from None
    if len(images) != len(manifest):
        raise _damaged(folder, f"{len(images)} films but {len(manifest)} rows")
    shape = (facts.films, facts.image_size, facts.image_size)
    if images.shape != shape or images.dtype != np.uint8:
        raise _damaged(folder, f"its films are {images.dtype}{images.shape} instead of uint8{shape}")
    if absent := {"image", "stamp", "pixels"} - set(manifest.columns):
        raise _damaged(folder, f"its manifest has no column {min(absent)!r}")
    return images, manifest


def cache_facts(folder: Path) -> CacheFacts:
    """How a cache was made. Raises DataError if it does not say so."""
    try:
        return CacheFacts(**json.loads((folder / FACTS).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise _damaged(folder, str(fault)) from None


def unreadable_films(folder: Path) -> pd.DataFrame:
    """Rows of `image` and `reason`: the films that could not be read and were left out."""
    try:
        return pd.read_csv(folder / UNREADABLE, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as fault:
        raise _damaged(folder, str(fault)) from None


def _damaged(folder: Path, fault: str) -> DataError:
    return DataError(f"{folder}: the film cache is damaged ({fault}); delete the folder, it is made anew")
