"""A data set as its readers give it: a table of films, and a way to read one film."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from cxr_core.data.film_files import film_size, read_film
from cxr_core.registry import Registry

readers = Registry("data set")
"""Readers by kind: `reader(path)` gives a Source; `path` is None for a data set that is built in."""


class DataError(Exception):
    """The data cannot be used; the message names the file or film and what to do."""


class Source(ABC):
    """A data set: the table of its films, and their pixels on demand.

    films: one row a film: `image` (unique name), `patient`, `split` ("train_val" and "test", or "train", "val" and
    "test"; None on every row where the data set has no official split), a float32 column per label in {0, 1, -1, NaN}
    (-1: uncertain, NaN: not mentioned) and, where known, `view`, `sex`, `age` (years).
    blank: what a finding that is not mentioned means by the data set's own convention.
    patients_known: False where each film stands as a patient of its own, for want of better knowledge.
    not_labels: columns that could have been labels, and why they are none.
    missing: films that the tables list and the disk lacks; `films` has no row for them.
    notes: what the reader found odd and how it dealt with it, a sentence each.
    boxes: None, or a table `image, label, x, y, width, height` in pixels of the film as `read` gives it.
    A source can be pickled: films are read in several processes.
    """

    kind: str
    films: pd.DataFrame
    labels: tuple[str, ...]
    blank: Literal["zero", "nan"] = "nan"
    patients_known: bool = True
    not_labels: Mapping[str, str] = MappingProxyType({})
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    boxes: pd.DataFrame | None = None

    @abstractmethod
    def read(self, image: str) -> np.ndarray:
        """The film as (height, width), uint8 or uint16 over the type's whole range, black to white.

        Raises OSError or ValueError, with the reason, if it cannot be read.
        """

    def size(self, image: str) -> tuple[int, int]:
        """Width and height of the film as `read` gives it, in pixels. Raises OSError or ValueError as `read` does."""
        height, width = self.read(image).shape
        return width, height

    @abstractmethod
    def stamp(self, image: str) -> str:
        """A short text that changes when the film's pixels may have changed (such as size and time of its file)."""


class FilmFolder(Source):
    """A data set whose films are files. paths: the file of each film, by its name in `films`."""

    paths: dict[str, str]

    def read(self, image: str) -> np.ndarray:
        return read_film(self.paths[image])

    def size(self, image: str) -> tuple[int, int]:
        return film_size(self.paths[image])

    def stamp(self, image: str) -> str:
        status = os.stat(self.paths[image])
        return f"{status.st_size}:{status.st_mtime_ns}"


@dataclass(frozen=True)
class DataName:
    """A data set's name on the command line, `KIND:PATH` or, for one that is built in, `KIND`."""

    kind: str
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> "DataName":
        """Read `KIND:PATH`; `~` is the user's folder. Raises DataError if the kind is unknown."""
        kind, _, path = text.partition(":")
        if kind not in readers:
            raise DataError(f"--data {text}: there is no data set kind {kind!r}; known: {', '.join(sorted(readers))}")
        return cls(kind, os.path.expanduser(path) or None)  # after a colon the shell leaves ~ as it is

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" if self.path else self.kind

    def absolute(self) -> "DataName":
        """The same with an absolute path."""
        return self if self.path is None else DataName(self.kind, str(Path(self.path).resolve()))

    def open(self) -> Source:
        """Read the data set's tables. Raises DataError if they cannot be used."""
        try:
            source: Source = readers[self.kind].function(self.path)
        except OSError as fault:
            raise DataError(
                f"{fault.filename or self.path}: {fault.strerror or fault}; it must be there and readable for you"
            ) from None
        return source
