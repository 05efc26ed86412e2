"""Films for predictions: one picture of each kind of file, and a network trained on such films."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_core.config import Task, TrainConfig
from cxr_core.data import DataName, DataPolicy, PreparedData, TrainingData, prepare
from cxr_core.registry import Chosen
from cxr_core.train import Training
from tests.cxr_core.dicom_films import radiograph

LABELS = ("Mass", "Nodule")
SIZE = 32


def picture(number: int) -> np.ndarray:
    """Grey of 8 bits, wider than high, no two alike and none its own mirror image; bright squares are findings."""
    rng = np.random.default_rng(number)
    film = np.add.outer(np.linspace(0, 60, 50), np.linspace(0, 90, 70)) + rng.integers(0, 40, (50, 70))
    for place, shown in ((8, number & 1), (40, number & 2)):
        film[10:30, place : place + 16] += 60 * bool(shown)
    return film.astype(np.uint8)


def dicom(stored: np.ndarray, path: Path, **attributes: object) -> None:
    """A file of stored values, as `radiograph` takes them."""
    radiograph(stored, **attributes).save_as(path, enforce_file_format=True)


def _deep(film: np.ndarray) -> np.ndarray:
    return film.astype(np.uint16) * 16 + 5


KINDS: dict[str, Callable[[np.ndarray, Path], object]] = {
    "grey.png": lambda film, path: Image.fromarray(film).save(path),
    "deep.png": lambda film, path: Image.fromarray(film.astype(np.uint16) * 257).save(path),
    "rgba.png": lambda film, path: Image.fromarray(film).convert("RGBA").save(path),
    "grey.jpg": lambda film, path: Image.fromarray(film).save(path, quality=90),
    "rgb.jpeg": lambda film, path: Image.fromarray(film).convert("RGB").save(path, quality=90),
    "mono2.dcm": lambda film, path: dicom(_deep(film), path, BitsStored=12, HighBit=11, Modality="DX"),
    "mono1.dcm": lambda film, path: dicom(
        4095 - _deep(film), path, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1"
    ),
    "window.dcm": lambda film, path: dicom(
        _deep(film).astype(np.int16), path, RescaleSlope=2, RescaleIntercept=-900, WindowCenter=2000, WindowWidth=5000
    ),
}
"""Writers of every kind of file that a film comes in, by the end of its name."""


def write_data_set(folder: Path, count: int = 32) -> Path:
    """A table of films of all kinds, each of its own patient, as `csv:` reads it."""
    rows = ["image,patient,split,Mass,Nodule"]
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        KINDS[kind](picture(number), folder / f"{number:02d}_{kind}")
        split = ("train", "val", "test")[(number // len(KINDS)) % 3]
        rows.append(f"{number:02d}_{kind},{number},{split},{number & 1},{number >> 1 & 1}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return folder / "films.csv"


def trained(table: Path, aspect: str = "squash", **config: object) -> tuple[Training, PreparedData]:
    """A short training on the films of a table, through the cache."""
    task = Task("multilabel", LABELS)
    prepared = prepare(DataName("csv", str(table)), DataPolicy(image_size=SIZE, aspect=aspect), task)
    values = {"model": Chosen("small_cnn", {"width": 8}), "epochs": 3, "batch_size": 4, "lr": 1e-2} | config
    data = TrainingData.open(prepared.cache, prepared.development, LABELS)
    training = Training(TrainConfig(task=task, image_size=SIZE, **values), data)
    list(training.epochs())
    return training, prepared


def photograph(shape: tuple[int, int] = (60, 60)) -> np.ndarray:
    """A picture whose colours differ nearly everywhere."""
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)


def content(kind: str, number: int = 3) -> bytes:
    """The bytes of a film of some kind, made in memory where the kind allows it."""
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, kind)
    return file.getvalue()
