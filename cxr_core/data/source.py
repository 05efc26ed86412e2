"""A data set as its readers give it: a table of films, and a way to read one film."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_core.registry import Registry

readers = Registry("data set")
"""Readers by kind: `reader(path)` gives a Source; `path` is None for a data set that is built in."""


class DataError(Exception):
    """The data cannot be used; the message names the file or film and what to do."""


class Source(ABC):
    """A data set: the table of its films, and their pixels on demand.

    films: one row a film: `image` (unique name), `patient`, `split` ("train_val" and "test", or "train", "val" and
    "test"), a float32 column per label in {0, 1, NaN} (NaN: not labelled) and, where known, `view`, `sex`, `age`.
    boxes: None, or a table `image, label, x, y, width, height` in pixels of the film as `read` gives it.
    A source can be pickled: films are read in several processes.
    """

    kind: str
    films: pd.DataFrame
    labels: tuple[str, ...]
    boxes: pd.DataFrame | None = None

    @abstractmethod
    def read(self, image: str) -> np.ndarray:
        """The film as (height, width) uint8; raises OSError or ValueError if it cannot be read."""

    @abstractmethod
    def stamp(self, image: str) -> str:
        """A short text that changes when the film's pixels may have changed (such as size and time of its file)."""


@dataclass(frozen=True)
class DataName:
    """A data set's name on the command line, `KIND:PATH` or, for one that is built in, `KIND`."""

    kind: str
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> "DataName":
        """Read `KIND:PATH`. Raises DataError if the kind is unknown."""
        kind, _, path = text.partition(":")
        if kind not in readers:
            raise DataError(f"--data {text}: there is no data set kind {kind!r}; known: {', '.join(sorted(readers))}")
        return cls(kind, path or None)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" if self.path else self.kind

    def open(self) -> Source:
        """Read the data set's tables. Raises DataError if they cannot be used."""
        source: Source = readers[self.kind].function(self.path)
        return source
