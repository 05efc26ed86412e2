"""The cache of films: decoded and resized once, then shared by every trial of a node through mmap."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from cxr_core.data.source import DataError, Source

log = logging.getLogger(__name__)

_UNREADABLE_SHARE = 0.01
"""Share of films that may be unreadable before the data set is refused."""


def cache_root() -> Path:
    """Folder of all caches: $CXR_CACHE, or cxr-search in the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CXR_CACHE") or user / "cxr-search" / "films")


def build_cache(source: Source, films: pd.DataFrame, image_size: int, root: Path | None = None) -> Path:
    """Read and resize films once; return the folder that holds them, at once if it exists.

    The folder holds `images.npy` (N x image_size x image_size, uint8), `manifest.parquet` (the same N rows) and
    `unreadable.csv`. Its name is a hash of the films, their files' stamps, their labels and the size. It appears
    whole or not at all; of several processes one builds it and the others wait.
    films: the rows of `source.films` to keep; give no test films for a search, and no trial can read them.
    Raises DataError if more than 1 % of the films cannot be read.
    """
    folder = (root or cache_root()) / _key(source, films, image_size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _write(source, films, image_size, partial)
            partial.rename(folder)
    return folder


def open_cache(folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """The cached films, (N, H, W) uint8 as a read-only mmap, and their N rows. Raises DataError if damaged."""
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        manifest = pd.read_parquet(folder / "manifest.parquet")
    except Exception as fault:  # what numpy and pyarrow raise on damaged headers is not documented
        raise DataError(f"{folder}: the film cache is damaged ({fault}); delete the folder, it is made anew") from None
    if len(images) != len(manifest):
        raise DataError(f"{folder}: {len(images)} films but {len(manifest)} rows; delete the folder, it is made anew")
    return images, manifest


def _key(source: Source, films: pd.DataFrame, image_size: int) -> str:
    digest = hashlib.sha256(f"{source.kind} {image_size} squash {list(films.columns)}".encode())
    for image in films["image"]:
        digest.update(f"{image} {_stamp(source, image)}\n".encode())
    digest.update(pd.util.hash_pandas_object(films.drop(columns="split"), index=False).to_numpy().tobytes())
    return f"{source.kind}-{image_size}px-{digest.hexdigest()[:16]}"


def _stamp(source: Source, image: str) -> str:
    try:
        return source.stamp(image)
    except OSError:  # vanished since the table was read: it will be among the unreadable films
        return "unreadable"


def _write(source: Source, films: pd.DataFrame, image_size: int, folder: Path) -> None:
    shape = (len(films), image_size, image_size)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    kept: list[int] = []
    unreadable: list[tuple[str, str]] = []
    for row, (film, reason) in enumerate(_read_all(source, list(films["image"]), image_size)):
        if film is None:
            unreadable.append((films["image"].iloc[row], reason))
            log.warning("unreadable film, left out: %s (%s)", *unreadable[-1])
            continue
        images[len(kept)] = film
        kept.append(row)
    if len(unreadable) > _UNREADABLE_SHARE * len(films):
        raise DataError(
            f"{len(unreadable)} of {len(films)} films cannot be read; the first is {unreadable[0][0]}: "
            f"{unreadable[0][1]}. Repair or remove them"
        )
    images.flush()
    if unreadable:
        _shorten(folder / "images.npy", len(kept))
    films.iloc[kept].to_parquet(folder / "manifest.parquet", index=False)
    pd.DataFrame(unreadable, columns=["image", "reason"]).to_csv(folder / "unreadable.csv", index=False)


def _shorten(path: Path, count: int) -> None:
    """Keep the first films of a file, which may be larger than the memory."""
    images, partial = np.load(path, mmap_mode="r"), path.with_suffix(".shorter")
    shape = (count, *images.shape[1:])
    shorter = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, count, 1000):
        shorter[start : start + 1000] = images[start : min(start + 1000, count)]
    shorter.flush()
    partial.replace(path)


def _read_all(source: Source, images: list[str], image_size: int) -> Iterator[tuple[np.ndarray | None, str]]:
    # Threads suffice: decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(lambda image: _read_one(source, image, image_size), images)


def _read_one(source: Source, image: str, size: int) -> tuple[np.ndarray | None, str]:
    try:
        return resize(source.read(image), size), ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:  # PIL's faults for broken files
        return None, f"{type(fault).__name__}: {fault}"


def resize(film: np.ndarray, size: int) -> np.ndarray:
    """Squash a (H, W) uint8 film to (size, size) uint8: block means at whole factors, else bilinear, antialiased."""
    if film.shape == (size, size):
        return film
    # At a broken factor PIL's box takes now one row, now two: a jitter of half a pixel.
    blocks = all(side % size == 0 for side in film.shape)
    method = Image.Resampling.BOX if blocks else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(film).resize((size, size), method, reducing_gap=None))
