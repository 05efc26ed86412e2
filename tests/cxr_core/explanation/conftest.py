"""Films with a bright square, boxes around it, and a network that has learnt to see it."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_core.train_command import main as train

SIDE, SQUARE = 64, 16
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
RECIPE = """name: squares
task: {kind: multilabel, labels: [Mass, Effusion]}
data: {image_size: 32, validation: 0.25}
objective: {metric: auroc_macro}
space: {model: {small_cnn: {width: 8}}, augment: none, lr: 1e-2, batch_size: 8, epochs: 8}
"""


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command's `main` in this process: its exit code, what it printed, and its messages."""

    def run(main: Callable[[list[str]], int], *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*map(str, words), "--device", "cpu"])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def boxed_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ChestX-ray14's layout: 40 patients of 2 films; Mass: a square with a box, Effusion: a bright lower quarter."""
    folder = tmp_path_factory.mktemp("boxed")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows, boxes, parts = [HEADER], ["Image Index,Finding Label,Bbox [x,y,w,h]"], {"train_val": [], "test": []}
    for number in range(80):
        name, shown = f"{number // 2:08d}_{number % 2:03d}.png", [bool(number & 1), bool(number & 2)]
        film = rng.integers(0, 90, (SIDE, SIDE))
        if shown[0]:
            x, y = rng.integers(0, SIDE - SQUARE, 2)
            film[y : y + SQUARE, x : x + SQUARE] += 160
            boxes.append(f"{name},Mass,{x * 16},{y * 16},{SQUARE * 16},{SQUARE * 16}")  # of 1,024 px
        if shown[1]:
            film[3 * SIDE // 4 :] += 60
        Image.fromarray(film.astype(np.uint8)).save(folder / "images" / name)
        shown[1] ^= number % 3 == 1  # labels may be wrong
        findings = "|".join(name for name, here in zip(("Mass", "Effusion"), shown, strict=True) if here)
        rows.append(f"{name},{findings or 'No Finding'},0,{number // 2},50,F,PA,{SIDE},{SIDE},0.1,0.1")
        parts["test" if number >= 56 else "train_val"].append(name)
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")
    for part, names in parts.items():
        (folder / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(boxed_films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of a training on these films, in the folder that the command leaves."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "squares.yaml").write_text(RECIPE)
    words = [str(folder / "squares.yaml"), "--data", f"nih:{boxed_films}", "--out", str(folder / "out")]
    core = logging.getLogger("cxr_core")
    handlers = list(core.handlers)
    assert train([*words, "--device", "cpu", "--json"]) == 0
    core.handlers = handlers
    return folder / "out" / "model.pt"
