"""Films that another cache holds already: copied, they need not be decoded again."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr_core.data.cache.folder import FORMAT, PIXELS, CacheFacts, cache_facts, open_cache
from cxr_core.data.source import DataError

log = logging.getLogger(__name__)

_COMPARED = 16
"""Films of another cache that are decoded again before the others are believed."""


class _Place(NamedTuple):
    file: int
    offset: int
    pixels: str


class EarlierFilms:
    """Pixels, in finished caches of the same kind, size and aspect, of films with the same name and stamp.

    Name and stamp (size and time of a file) do not prove that two films are the same: two copies of a data set share
    the names, and where an archive has set all times alike, uncompressed films share the sizes, too. So 16 films from
    another cache, spread over those that fit, are decoded; if one of them differs, nothing is taken from that cache.
    """

    def __init__(self, image_size: int) -> None:
        self._image_size = image_size
        self._places: dict[str, _Place] = {}
        self._files: list[int] = []

    def __len__(self) -> int:
        return len(self._places)

    def search(
        self, root: Path, facts: CacheFacts, wanted: dict[str, str], decode: Callable[[Sequence[str]], Iterable[str]]
    ) -> None:
        """Look through the caches under `root`, the newest first.

        wanted: stamps by image. decode: gives the hashes of films as they are read and resized now.
        """
        others = [path for path in root.glob("*px-*") if path.is_dir() and path.suffix != ".partial"]
        for folder in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
            if len(self) == len(wanted):
                return
            try:
                other = cache_facts(folder)
                if _way(other) == _way(facts):
                    self._take(folder, wanted, decode)
            except (DataError, OSError) as fault:
                log.debug("nothing is copied from another cache: %s", fault)

    def _take(self, folder: Path, wanted: dict[str, str], decode: Callable[[Sequence[str]], Iterable[str]]) -> None:
        images, manifest = open_cache(folder)
        same = (manifest["image"].map(wanted) == manifest["stamp"]) & ~manifest["image"].isin(list(self._places))
        found = manifest[same]
        if found.empty:
            return
        sample = found.iloc[np.unique(np.linspace(0, len(found) - 1, _COMPARED).round().astype(int))]
        if list(decode(list(sample["image"]))) != list(sample["pixels"]):
            raise DataError(f"{folder}: holds other pixels under the same names and stamps")
        file = os.open(folder / PIXELS, os.O_RDONLY)
        self._files.append(file)
        header = os.fstat(file).st_size - images.nbytes
        for image, pixels, row in zip(found["image"], found["pixels"], found.index, strict=True):
            self._places[image] = _Place(file, header + row * self._image_size**2, pixels)

    def get(self, image: str) -> np.ndarray | None:
        """The cached pixels of a film, (size, size) uint8, or None if no cache holds them undamaged."""
        if (place := self._places.get(image)) is None:
            return None
        try:
            content = os.pread(place.file, self._image_size**2, place.offset)
        except OSError:
            return None
        if fingerprint(content) != place.pixels:
            return None
        return np.frombuffer(content, np.uint8).reshape(self._image_size, self._image_size)

    def close(self) -> None:
        """Close the files; `get` must not be called any more."""
        for file in self._files:
            os.close(file)


def fingerprint(pixels: bytes | np.ndarray) -> str:
    """Hash of cached pixels, by which identical films are found."""
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()  # type: ignore[arg-type]


def _way(facts: CacheFacts) -> tuple[str, int, str, bool]:
    return facts.kind, facts.image_size, facts.aspect, facts.format == FORMAT
