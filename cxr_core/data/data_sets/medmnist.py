"""Reader of MedMNIST's chest sets: one .npz file with the official train, val and test arrays."""

import math
import os
import threading
import zipfile
import zlib
from typing import IO

import numpy as np
import pandas as pd

from cxr_core.data.source import DataError, Source, readers
from cxr_core.labels import CHESTXRAY14

_PARTS = ("train", "val", "test")
_BLOCK = 16 * 2**20  # bytes of films that are unpacked at once
_BLOCKS_KEPT = 8  # small sets stay in memory, and threads may read somewhat out of order


class MedMnist(Source):
    """PneumoniaMNIST or ChestMNIST at any size (Yang et al. 2023, doi:10.1038/s41597-022-01721-8).

    The files hold no patient ids, so each film stands as a patient of its own and the official split is kept.
    Films are unpacked block by block when they are read, so that the set need not fit into memory (224 px ChestMNIST
    takes 5.6 GB); read them in the order of `films`, for going back in a large array unpacks it from its start.
    """

    kind = "medmnist"
    patients_known = False

    def __init__(self, path: str):
        self.path = os.path.abspath(path)
        targets, self._shapes = _open(path)
        width = targets["train"].shape[1]
        if any(table.shape[1] != width for table in targets.values()) or width not in (1, len(CHESTXRAY14)):
            raise DataError(f"{path}: {width} labels a film; PneumoniaMNIST has 1 and ChestMNIST has 14")
        self.labels = ("Pneumonia",) if width == 1 else CHESTXRAY14
        self._stamp = f"{os.path.getsize(path)}:{os.stat(path).st_mtime_ns}"
        self.films = pd.concat([self._table(part, targets[part]) for part in _PARTS], ignore_index=True)
        self._forget()

    def _table(self, part: str, targets: np.ndarray) -> pd.DataFrame:
        names = [f"{part}/{row}" for row in range(len(targets))]
        table = pd.DataFrame({"image": names, "patient": names, "split": part})
        table[list(self.labels)] = targets.astype(np.float32)
        return table

    def _forget(self) -> None:
        """Start without open streams and unpacked films: they cannot be pickled, nor shared after a fork."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._streams: dict[str, tuple[IO[bytes], int]] = {}
        self._blocks: dict[tuple[str, int], np.ndarray] = {}

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_streams", "_blocks")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._forget()

    def read(self, image: str) -> np.ndarray:
        if self._process != os.getpid():
            self._forget()
        part, row = image.split("/")
        if not 0 <= int(row) < self._shapes[part][0]:
            raise ValueError(f"{self.path}: has no film {row} in {part}")
        block, place = divmod(int(row), self._films_a_block(part))
        with self._lock:
            if (part, block) not in self._blocks:
                films = self._unpack(part, block)
                while len(self._blocks) >= _BLOCKS_KEPT:
                    del self._blocks[next(iter(self._blocks))]
                self._blocks[part, block] = films
            film: np.ndarray = self._blocks[part, block][place].copy()  # alone, it would keep the whole block
        return film

    def _films_a_block(self, part: str) -> int:
        return max(1, _BLOCK // math.prod(self._shapes[part][1:]))

    def _unpack(self, part: str, block: int) -> np.ndarray:
        count, *shape = self._shapes[part]
        first = block * self._films_a_block(part)
        films = min(self._films_a_block(part), count - first)
        try:
            stream, header = self._streams.get(part) or self._stream(part)
            stream.seek(header + first * math.prod(shape))
            content = stream.read(films * math.prod(shape))
        except (KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as fault:
            self._streams.pop(part, None)
            raise ValueError(f"{self.path}: {part}_images is damaged ({fault})") from None
        if len(content) < films * math.prod(shape):
            raise ValueError(f"{self.path}: {part}_images is cut off")
        return np.frombuffer(content, np.uint8).reshape(films, *shape)

    def _stream(self, part: str) -> tuple[IO[bytes], int]:
        """The unpacked bytes of a part's films, and where behind the array's header they begin."""
        with zipfile.ZipFile(self.path) as archive:
            stream = archive.open(f"{part}_images.npy")  # stays open behind the archive
        _header(stream)
        opened = stream, stream.tell()
        self._streams[part] = opened
        return opened

    def stamp(self, image: str) -> str:
        return self._stamp


def _open(path: str) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """The labels of each part and the shape of its films, which stay packed."""
    targets, shapes = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = [f"{part}_{what}" for part in _PARTS for what in ("images", "labels")]
            if absent := [name for name in wanted if f"{name}.npy" not in archive.namelist()]:
                raise DataError(f"{path}: array {absent[0]!r} is missing; is this a MedMNIST .npz file?")
            for part in _PARTS:
                targets[part] = _labels(path, archive, part)
                with archive.open(f"{part}_images.npy") as stream:
                    shapes[part], dtype, by_column = _header(stream)
                if len(shapes[part]) != 3 or dtype != np.uint8 or by_column or shapes[part][0] != len(targets[part]):
                    raise DataError(
                        f"{path}: {part}_images is {dtype}{shapes[part]} with {len(targets[part])} labels; "
                        "grey 8-bit films with as many labels are expected"
                    )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; medmnist: takes the path of a MedMNIST .npz file") from None
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as fault:
        raise DataError(f"{path}: cannot be read as a MedMNIST .npz file ({fault})") from None
    return targets, shapes


def _labels(path: str, archive: zipfile.ZipFile, part: str) -> np.ndarray:
    with archive.open(f"{part}_labels.npy") as stream:
        targets: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():
        raise DataError(f"{path}: {part}_labels is not a table of 0 and 1; this is no chest set of MedMNIST")
    return targets


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type and order (True: column by column) of the array whose bytes follow in the stream."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    return shape, dtype, by_column


@readers.register("medmnist")
def medmnist(path: str | None) -> Source:
    """Read `medmnist:FILE.npz`."""
    if path is None:
        raise DataError("medmnist: needs the path of a .npz file: --data medmnist:FILE.npz")
    return MedMnist(path)
