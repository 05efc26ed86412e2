"""Films are decoded and resized once: whole or not at all, by one process, and again when they have changed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_core.data import DataError, Source, build_cache, open_cache
from cxr_core.data.cache import cache_root, resize
from cxr_core.data.nih import Nih

REPOSITORY = Path(__file__).resolve().parents[3]
ROUNDING = 1.01  # grey levels: PIL rounds rows and columns one after the other


class Folder(Source):
    """Films by name out of a dictionary; a film may be an exception that reading it raises."""

    kind = "folder"
    labels = ("Mass",)

    def __init__(self, films: dict[str, np.ndarray | Exception]):
        self.content, self.stamps, self.read_films = films, dict.fromkeys(films, "1"), []
        self.films = pd.DataFrame({"image": list(films), "patient": list(films), "split": "train_val"})
        self.films["Mass"] = np.arange(len(films), dtype=np.float32) % 2

    def read(self, image: str) -> np.ndarray:
        self.read_films.append(image)
        if isinstance(self.content[image], Exception):
            raise self.content[image]
        return self.content[image]

    def stamp(self, image: str) -> str:
        return self.stamps[image]


@pytest.fixture
def source() -> Folder:
    rng = np.random.default_rng(0)
    return Folder({f"{row}.png": rng.integers(0, 256, (16, 16), dtype=np.uint8) for row in range(200)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def rows(films: pd.DataFrame) -> pd.DataFrame:
    return films.reset_index(drop=True)


def open_caches(root: Path) -> list[Path]:
    """Folders that a later run would take for a cache."""
    return [path for path in root.iterdir() if path.is_dir() and path.suffix != ".partial"]


# What is in it


def test_a_cache_holds_the_films_in_the_order_of_their_rows(source: Folder, root: Path) -> None:
    images, manifest = open_cache(build_cache(source, source.films, 8, root))
    assert (images.shape, images.dtype) == ((200, 8, 8), np.uint8)
    pd.testing.assert_frame_equal(manifest, source.films)
    for row in (0, 57, 199):
        np.testing.assert_array_equal(images[row], resize(source.content[f"{row}.png"], 8))


def test_a_cache_holds_only_the_films_given(source: Folder, root: Path) -> None:
    kept = source.films[source.films["Mass"] == 1]
    images, manifest = open_cache(build_cache(source, kept, 8, root))
    assert len(images) == 100
    pd.testing.assert_frame_equal(manifest, rows(kept))
    assert set(source.read_films) == set(kept["image"])


def test_the_films_of_a_cache_cannot_be_changed(source: Folder, root: Path) -> None:
    images, _ = open_cache(build_cache(source, source.films, 8, root))
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_real_films_are_cached_as_they_are_read(real_data: Path) -> None:
    source = Nih(str(real_data / "nih_1024"))
    folder = build_cache(source, source.films, 256)
    images, manifest = open_cache(folder)
    assert len(images) == 96
    assert (folder / "unreadable.csv").read_text() == "image,reason\n"
    for row in (0, 50, 95):
        blocks = source.read(manifest["image"][row]).reshape(256, 4, 256, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(images[row], blocks, atol=ROUNDING)


def test_the_root_is_the_one_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("CXR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "cxr-search" / "films"


# Reused or made anew


def test_a_cache_that_exists_is_used_without_reading_a_film(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.films, 8, root)
    source.read_films.clear()
    assert build_cache(source, source.films, 8, root) == folder
    assert source.read_films == []


def test_another_split_of_the_same_films_uses_the_same_cache(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.films, 8, root)
    assert build_cache(source, source.films.assign(split="train"), 8, root) == folder


def test_a_film_whose_stamp_changed_is_read_again(source: Folder, root: Path) -> None:
    old = build_cache(source, source.films, 8, root)
    source.content["3.png"], source.stamps["3.png"] = np.full((16, 16), 77, np.uint8), "2"
    new = build_cache(source, source.films, 8, root)
    assert new != old
    assert (open_cache(new)[0][3] == 77).all()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda films: films.assign(Mass=1 - films["Mass"]), id="labels"),
        pytest.param(lambda films: films.rename(columns={"Mass": "Nodule"}), id="the name of a label"),
        pytest.param(lambda films: films.iloc[:150], id="films"),
        pytest.param(lambda films: films.iloc[::-1], id="order"),
    ],
)
def test_other_rows_have_a_cache_of_their_own(source: Folder, root: Path, change) -> None:
    folder, changed = build_cache(source, source.films, 8, root), change(source.films)
    other = build_cache(source, changed, 8, root)
    assert other != folder
    pd.testing.assert_frame_equal(open_cache(other)[1], rows(changed))


def test_another_size_has_a_cache_of_its_own(source: Folder, root: Path) -> None:
    build_cache(source, source.films, 8, root)
    assert open_cache(build_cache(source, source.films, 4, root))[0].shape == (200, 4, 4)


# Unreadable films


def test_an_unreadable_film_is_listed_and_left_out(source: Folder, root: Path) -> None:
    source.content["57.png"] = OSError("broken data stream")
    source.content["8.png"] = ValueError("not grey")
    folder = build_cache(source, source.films, 8, root)
    images, manifest = open_cache(folder)
    kept = source.films[~source.films["image"].isin(["8.png", "57.png"])]
    pd.testing.assert_frame_equal(manifest, rows(kept))
    for row, image in ((0, "0.png"), (8, "9.png"), (56, "58.png"), (197, "199.png")):
        assert manifest["image"][row] == image
        np.testing.assert_array_equal(images[row], resize(source.content[image], 8))
    listed = pd.read_csv(folder / "unreadable.csv").to_numpy().tolist()
    assert listed == [["8.png", "ValueError: not grey"], ["57.png", "OSError: broken data stream"]]


def test_more_than_one_unreadable_film_in_a_hundred_is_refused_with_the_first(source: Folder, root: Path) -> None:
    for image in ("9.png", "57.png", "58.png"):
        source.content[image] = OSError("broken data stream")
    with pytest.raises(DataError, match=r"^3 of 200 films cannot be read; the first is 9\.png: OSError: broken data"):
        build_cache(source, source.films, 8, root)
    assert open_caches(root) == []


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "flipped"])
def test_a_damaged_png_is_unreadable_and_not_fatal(nih_folder: Path, root: Path, damage: str) -> None:
    source = Nih(str(nih_folder))
    victim = Path(nih_folder / "images_001" / "images" / source.films["image"][3])
    whole = victim.read_bytes()
    middle = len(whole) // 2
    content = {"truncated": whole[:middle], "text": b"hello", "empty": b""}
    content["flipped"] = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    victim.write_bytes(content[damage])
    with pytest.raises(DataError, match=rf"^1 of 16 films cannot be read; the first is {re.escape(victim.name)}: "):
        build_cache(source, source.films, 8, root)  # one in 16 is too many, but it is named
    victim.write_bytes(whole)
    assert len(open_cache(build_cache(source, source.films, 8, root))[0]) == 16


def test_a_film_that_has_vanished_since_its_table_was_read_is_unreadable(nih_folder: Path, root: Path) -> None:
    source = Nih(str(nih_folder))
    Path(nih_folder / "images_001" / "images" / source.films["image"][3]).unlink()
    with pytest.raises(DataError, match=r"^1 of 16 films cannot be read; the first is 00000002_001\.png: FileNotFound"):
        build_cache(source, source.films, 8, root)


# Whole or not at all


BUILD = """
import os, pathlib, signal, sys, time
from cxr_core.data import build_cache, nih

read = nih.Nih.read
log = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def logged(self, image):
    os.write(log, f"{image}\\n".encode())
    time.sleep(0.02)
    if image == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, image)

nih.Nih.read = logged
source = nih.Nih(sys.argv[1])
print(build_cache(source, source.films, 8, pathlib.Path(sys.argv[2])))
"""


def builder(nih_folder: Path, root: Path, die_at: str = "") -> subprocess.Popen:
    """A process that builds the cache, writes each film it reads into a log, and may be killed at one."""
    command = [sys.executable, "-c", BUILD, str(nih_folder), str(root), str(root.parent / "log"), die_at]
    return subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.PIPE)


def test_two_processes_at_once_make_one_cache(nih_folder: Path, root: Path) -> None:
    folders = {Path(process.communicate()[0].decode().strip()) for process in [builder(nih_folder, root) for _ in "ab"]}
    (folder,) = folders
    assert open_caches(root) == [folder]
    assert sorted((root.parent / "log").read_text().split()) == sorted(Nih(str(nih_folder)).films["image"])


def test_a_build_that_is_killed_leaves_no_cache_and_the_next_one_makes_it(nih_folder: Path, root: Path) -> None:
    killed = builder(nih_folder, root, die_at="00000004_000.png")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert open_caches(root) == []
    source = Nih(str(nih_folder))
    images, manifest = open_cache(build_cache(source, source.films, 8, root))
    assert len(images) == 16
    np.testing.assert_array_equal(images[0], resize(source.read(manifest["image"][0]), 8))


def test_a_build_that_fails_leaves_no_cache(source: Folder, root: Path) -> None:
    source.content["3.png"] = RuntimeError("a bug in a reader")
    with pytest.raises(RuntimeError, match="a bug in a reader"):
        build_cache(source, source.films, 8, root)
    assert open_caches(root) == []
    source.content["3.png"] = np.zeros((16, 16), np.uint8)
    assert len(open_cache(build_cache(source, source.films, 8, root))[0]) == 200


# Damage


@pytest.mark.parametrize("name", ["images.npy", "manifest.parquet"])
@pytest.mark.parametrize("left", [None, 0, 7, 0.5], ids=["missing", "empty", "a few bytes", "half"])
def test_a_damaged_cache_is_refused_by_name(source: Folder, root: Path, name: str, left: float | None) -> None:
    folder = build_cache(source, source.films, 8, root)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if left is not None:
        (folder / name).write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    with pytest.raises(DataError, match=rf"^{re.escape(str(folder))}: .*delete the folder"):
        open_cache(folder)


def test_a_cache_with_fewer_films_than_rows_is_refused(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.films, 8, root)
    np.save(folder / "images.npy", np.zeros((199, 8, 8), np.uint8))
    with pytest.raises(DataError, match="199 films but 200 rows"):
        open_cache(folder)


# Resizing


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_reducing_by_a_whole_factor_takes_the_mean_of_each_block(factor: int) -> None:
    film = np.random.default_rng(0).integers(0, 256, (32 * factor, 32 * factor), dtype=np.uint8)
    blocks = film.reshape(32, factor, 32, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(film, 32), blocks, atol=ROUNDING)


def test_reducing_an_oblong_film_squashes_it() -> None:
    film = np.random.default_rng(0).integers(0, 256, (96, 64), dtype=np.uint8)
    blocks = film.reshape(32, 3, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(film, 32), blocks, atol=ROUNDING)


@pytest.mark.parametrize(("side", "size"), [(256, 224), (256, 96), (1024, 224)])
def test_reducing_by_a_broken_factor_keeps_smooth_films_smooth(side: int, size: int) -> None:
    """A wave of 16 px of the smaller film, against the exact mean over each of its pixels."""
    fine = np.arange(side * size) / size  # places on the film, `size` to a pixel, so that `side` make one of the result
    wave = np.round(127 + 100 * np.sin(np.arange(side) * 2 * np.pi * size / side / 16))
    exact = wave[fine.astype(int)].reshape(size, side).mean(axis=1)
    reduced = resize(np.tile(wave.astype(np.uint8), (side, 1)), size)
    np.testing.assert_allclose(reduced, np.tile(exact, (size, 1)), atol=4)


def test_enlarging_is_bilinear() -> None:
    film = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    bilinear = torch.nn.functional.interpolate(torch.from_numpy(film)[None, None].double(), (45, 45), mode="bilinear")
    np.testing.assert_allclose(resize(film, 45), bilinear[0, 0], atol=1)


def test_a_film_of_the_right_size_is_left_alone() -> None:
    film = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(resize(film, 32), film)
