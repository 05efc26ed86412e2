"""The picture of a training can be drawn of any history."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_core.curves import draw_curves
from cxr_core.history import History


def history(*areas: float) -> History:
    rows = [
        {"epoch": epoch, "learning_rate": 0.1 / epoch, "train_loss": 0.5, "log_loss": 0.6, "auroc_macro": area}
        for epoch, area in enumerate(areas, 1)
    ]
    return History("auroc_macro", rows)


@pytest.mark.parametrize("areas", [(0.6, 0.8, 0.7), (0.6,), (math.nan, math.nan), (0.5,) * 100])
def test_a_picture_is_drawn_of_any_number_of_epochs(areas: tuple[float, ...], tmp_path: Path) -> None:
    draw_curves(history(*areas), "tiny", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 800
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_picture_shows_the_values(tmp_path: Path) -> None:
    pictures = []
    for areas in ((0.6, 0.8, 0.7), (0.6, 0.7, 0.8)):
        draw_curves(history(*areas), "tiny", tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            pictures.append(np.asarray(picture.convert("L")))
    differing = (pictures[0] != pictures[1]).any(axis=1).nonzero()[0] / len(pictures[0])
    assert differing.min() > 0.3  # the losses above are the same
    assert differing.max() < 0.75  # and the learning rate below
