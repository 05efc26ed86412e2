"""Small things to train on: films with bright squares, a configuration to match, an NIH folder of a few films."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_core.config import Task, TrainConfig
from cxr_core.data.films import Films, TrainingData
from cxr_core.registry import Chosen
from tests.cxr_core.predicted_films import trained, write_data_set

LABELS = ("Mass", "Nodule")


def squares(count: int, rng: np.random.Generator) -> Films:
    """Films of 28 px with a bright square for each finding, at its own place; a tenth of entries is not labelled."""
    present = rng.random((count, 2)) < (0.4, 0.15)
    images = rng.integers(0, 120, (count, 28, 28), dtype=np.uint8)
    for (row, column), shown in zip(((4, 4), (18, 16)), present.T, strict=True):
        images[shown, row : row + 6, column : column + 6] += 90
    targets = np.where(rng.random(present.shape) < 0.1, np.nan, present).astype(np.float32)
    targets[:4] = [[0, 0], [1, 0], [0, 1], [1, 1]]  # each metric is defined for both findings
    names = [f"{row}.png" for row in range(count)]
    return Films(images, np.arange(count), targets, pd.DataFrame({"image": names, "patient": names}))


@pytest.fixture
def data() -> TrainingData:
    rng = np.random.default_rng(0)
    return TrainingData(squares(90, rng), squares(40, rng), LABELS)


@pytest.fixture
def configure() -> Callable[..., TrainConfig]:
    """A configuration that trains on `data` in a blink, with what the test changes."""

    def build(**changes: object) -> TrainConfig:
        values = {"model": Chosen("small_cnn", {"width": 4}), "epochs": 3, "batch_size": 32, "lr": 3e-3} | changes
        return TrainConfig(task=Task("multilabel", LABELS), image_size=28, **values)

    return build


@pytest.fixture
def nih_folder(tmp_path: Path) -> Path:
    """ChestX-ray14's layout with 8 patients of 2 films each, 32 x 32 px; the last two patients are the test split."""
    folder = tmp_path / "nih"
    (folder / "images_001" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, parts = [], {"train_val": [], "test": []}
    for patient in range(1, 9):
        for film in range(2):
            name = f"{patient:08d}_{film:03d}.png"
            Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / "images_001/images" / name)
            finding = ("No Finding", "Effusion", "Infiltration|Mass")[(patient + film) % 3]
            rows.append(f"{name},{finding},{film},{patient},{40 + patient},{'FM'[patient % 2]},PA,32,32,0.14,0.14")
            parts["test" if patient > 6 else "train_val"].append(name)
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *rows]) + "\n")
    for part, names in parts.items():
        (folder / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.fixture
def console_of_the_test() -> Iterator[None]:
    """A command sends the core's messages to the console: to that of the test alone, and not beyond it."""
    core = logging.getLogger("cxr_core")
    handlers, level = core.handlers, core.level
    core.handlers = []
    yield
    core.handlers, core.level = handlers, level


@pytest.fixture(scope="module")
def film_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of films in files of every kind."""
    return write_data_set(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def model(film_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training on these films."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    trained(film_table)[0].save(path)
    return path
