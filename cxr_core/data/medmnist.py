"""Reader of MedMNIST's chest sets: one .npz file with the official train, val and test arrays."""

import os
import zipfile
import zlib

import numpy as np
import pandas as pd

from cxr_core.data.source import DataError, Source, readers
from cxr_core.labels import CHESTXRAY14

_PARTS = ("train", "val", "test")


class MedMnist(Source):
    """PneumoniaMNIST or ChestMNIST at any size (Yang et al. 2023, doi:10.1038/s41597-022-01721-8).

    The files hold no patient ids, so each film stands as a patient of its own and the official split is kept.
    """

    kind = "medmnist"

    def __init__(self, path: str):
        self.path = os.path.abspath(path)
        arrays = _load(self.path)
        width = arrays["train_labels"].shape[1]
        if width not in (1, len(CHESTXRAY14)):
            raise DataError(f"{path}: {width} labels a film; PneumoniaMNIST has 1 and ChestMNIST has 14")
        self.labels = ("Pneumonia",) if width == 1 else CHESTXRAY14
        self._images = {part: arrays[f"{part}_images"] for part in _PARTS}
        self._stamp = f"{os.path.getsize(path)}:{os.stat(path).st_mtime_ns}"
        self.films = pd.concat([self._table(part, arrays[f"{part}_labels"]) for part in _PARTS], ignore_index=True)

    def _table(self, part: str, targets: np.ndarray) -> pd.DataFrame:
        names = [f"{part}/{row}" for row in range(len(targets))]
        table = pd.DataFrame({"image": names, "patient": names, "split": part})
        table[list(self.labels)] = targets.astype(np.float32)
        return table

    def read(self, image: str) -> np.ndarray:
        part, row = image.split("/")
        film: np.ndarray = self._images[part][int(row)]
        return film

    def stamp(self, image: str) -> str:
        return self._stamp


def _load(path: str) -> dict[str, np.ndarray]:
    wanted = [f"{part}_{what}" for part in _PARTS for what in ("images", "labels")]
    try:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in wanted}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; medmnist: takes the path of a MedMNIST .npz file") from None
    except KeyError as missing:
        raise DataError(f"{path}: array {missing} is missing; is this a MedMNIST .npz file?") from None
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as fault:
        raise DataError(f"{path}: cannot be read as a MedMNIST .npz file ({fault})") from None
    for part in _PARTS:
        films, targets = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if films.ndim != 3 or films.dtype != np.uint8 or targets.shape[:1] != films.shape[:1]:
            raise DataError(f"{path}: {part}_images is {films.dtype}{films.shape}; grey 8-bit films are expected")
        if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():
            raise DataError(f"{path}: {part}_labels is not a table of 0 and 1; this is no chest set of MedMNIST")
    return arrays


@readers.register("medmnist")
def medmnist(path: str | None) -> Source:
    """Read `medmnist:FILE.npz`."""
    if path is None:
        raise DataError("medmnist: needs the path of a .npz file: --data medmnist:FILE.npz")
    return MedMnist(path)
