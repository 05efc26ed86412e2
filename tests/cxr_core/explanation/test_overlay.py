"""`python -m cxr_core.predict --overlay`: a picture a film, of what was called on it."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_core.data.film_files import read_film
from cxr_core.explanation import GradCam
from cxr_core.predict import Predictor
from cxr_core.predict_command import main
from tests.cxr_core.predicted_films import content

pytestmark = pytest.mark.usefixtures("console_of_the_test")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_command: Run) -> Run:
    return partial(run_command, main)


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def film_of(picture: Path) -> str:
    """The name of the film that a picture is of: without the hash of its path and the suffix."""
    return picture.name.rpartition(".")[0].rpartition(".")[0]


def colour(path: Path) -> float:
    """Share of the pixels of a picture that are no grey."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return float((np.ptp(pixels, axis=-1) > 60).mean())


def runs(marked: np.ndarray) -> list[np.ndarray]:
    """Positions that are marked, in pieces that hang together but for a grid's lines."""
    places = np.flatnonzero(marked)
    return np.split(places, np.flatnonzero(np.diff(places) > 3) + 1)


def test_every_kind_of_film_has_a_picture(model: Path, film_table: Path, tmp_path: Path, run: Run) -> None:
    films = sorted(film_table.parent.glob("0[0-5]_*"))
    code, out, _ = run(model, *films, "--overlay", tmp_path / "out", "--json")
    assert code == 0
    assert len(out.splitlines()) == len(films)
    assert [film_of(path) for path in pictures(tmp_path / "out")] == [film.name for film in films]


def test_heat_is_drawn_where_something_was_called_and_nowhere_else(
    model: Path, film_table: Path, tmp_path: Path, run: Run
) -> None:
    films = sorted(map(str, film_table.parent.glob("0?_*")))
    _, out, _ = run(model, *films, "--overlay", tmp_path / "out", "--json")
    predictor = Predictor.load(model)
    squares = torch.from_numpy(np.stack([predictor.square(read_film(film)) for film in films]))[:, None] / 255
    given = predictor.normalise(squares)
    maps = [GradCam(predictor.model, given)(given, [finding] * len(films)) for finding in (0, 1)]
    expected = {}
    for row, findings in enumerate(json.loads(line)["findings"] for line in out.splitlines()):
        called = [of["above"] for of in findings.values()]
        expected[Path(films[row]).name] = any(on and heat[row].any() for on, heat in zip(called, maps, strict=True))
    assert set(expected.values()) == {True, False}
    drawn = {
        path.name.rpartition(".")[0].rpartition(".")[0]: colour(path) > 0.01 for path in pictures(tmp_path / "out")
    }
    assert drawn == expected


@pytest.mark.parametrize(("width", "height"), [(140, 70), (70, 140)])
def test_the_film_keeps_its_aspect(model: Path, tmp_path: Path, run: Run, width: int, height: int) -> None:
    """A film that is dark but for its frame, found again on the white page by what is dark."""
    film = np.random.default_rng(0).integers(0, 60, (height, width), np.uint8)
    film[::9, ::9] = 255
    Image.fromarray(film).save(tmp_path / "film.png")
    run(model, tmp_path / "film.png", "--overlay", tmp_path / "out")
    with Image.open(pictures(tmp_path / "out")[0]) as image:
        dark = np.asarray(image.convert("L")) < 120
    rows = max(runs(dark.mean(axis=1) > 0.15), key=len)
    film_itself = runs(dark[rows].mean(axis=0) > 0.5)[0]  # heat maps come after it
    assert len(film_itself) / len(rows) == pytest.approx(width / height, rel=0.03)


def test_films_of_the_same_name_in_two_folders_have_a_picture_each(model: Path, tmp_path: Path, run: Run) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "film.png").write_bytes(content("PNG"))
    code, _, _ = run(model, tmp_path / "a", tmp_path / "b", "--overlay", tmp_path / "out")
    assert code == 0
    assert len(pictures(tmp_path / "out")) == 2


def test_a_picture_that_is_there_is_not_overwritten(model: Path, film_table: Path, tmp_path: Path, run: Run) -> None:
    films = sorted(film_table.parent.glob("0?_grey.png"))
    assert run(model, films[0], "--overlay", tmp_path / "out")[0] == 0
    (path,) = pictures(tmp_path / "out")
    path.write_bytes(b"of my own")
    code, out, err = run(model, *reversed(films), "--overlay", tmp_path / "out")
    assert (code, out) == (3, "")
    assert f"{path}: there already; nothing is overwritten" in err
    assert [each.read_bytes() for each in pictures(tmp_path / "out")] == [b"of my own"]


def test_a_folder_that_cannot_be_made_is_told(model: Path, film_table: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    code, out, err = run(model, film_table.parent / "00_grey.png", "--overlay", tmp_path / "file" / "out")
    assert (code, out) == (3, "")
    assert "cannot be made" in err


def test_a_picture_that_cannot_be_written_is_told_with_its_film(
    model: Path, film_table: Path, tmp_path: Path, run: Run
) -> None:
    film = film_table.parent / "00_grey.png"
    run(model, film, "--overlay", tmp_path / "out")
    (path,) = pictures(tmp_path / "out")
    path.unlink()
    # A folder in the place of the unfinished picture, which even root cannot write.
    path.with_name(f".{path.stem}.{os.getpid()}.partial").mkdir()
    code, _, err = run(model, film, "--overlay", tmp_path / "out")
    assert code == 3
    assert f"the picture of {film} cannot be written" in err


def test_a_refused_film_has_no_picture(model: Path, film_table: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "no.png").write_text("no film")
    code, _, _ = run(model, tmp_path / "no.png", film_table.parent / "00_grey.png", "--overlay", tmp_path / "out")
    assert code == 2
    assert [path.name.startswith("00_grey.png") for path in pictures(tmp_path / "out")] == [True]
