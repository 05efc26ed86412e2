"""MedMNIST's chest sets, and files that are none."""

import io
import multiprocessing
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxr_core.data import DataError
from cxr_core.data.data_sets import medmnist
from cxr_core.data.data_sets.medmnist import MedMnist
from cxr_core.labels import CHESTXRAY14

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def pneumonia(real_data: Path) -> MedMnist:
    return MedMnist(str(real_data / "pneumoniamnist.npz"))


def arrays(width: int = 1, side: int = 28, films: int = 8) -> dict[str, np.ndarray]:
    """Training films and four of each other part, as MedMNIST stores them."""
    rng, content = np.random.default_rng(0), {}
    for part, count in (("train", films), ("val", 4), ("test", 4)):
        content[f"{part}_images"] = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        content[f"{part}_labels"] = rng.integers(0, 2, (count, width), dtype=np.uint8)
    return content


def write(path: Path, **changes: np.ndarray | None) -> str:
    content = {name: array for name, array in (arrays() | changes).items() if array is not None}
    np.savez_compressed(path, **content)
    return str(path)


def refused(path: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(path)}: {reason}"):
        MedMnist(path)


# The real file


def test_pneumoniamnist_has_its_published_splits(pneumonia: MedMnist) -> None:
    assert pneumonia.films["split"].value_counts().to_dict() == {"train": 4708, "val": 524, "test": 624}


def test_pneumoniamnist_has_its_published_labels(pneumonia: MedMnist) -> None:
    """Normal and pneumonia films of each split (MedMNIST v2, its info.json)."""
    positives = pneumonia.films.groupby("split")["Pneumonia"].sum()
    assert positives.to_dict() == {"train": 3494, "val": 389, "test": 390}


def test_a_film_is_the_array_of_its_row(pneumonia: MedMnist, real_data: Path) -> None:
    with np.load(real_data / "pneumoniamnist.npz") as archive:
        for part, row in (("train", 17), ("val", 523), ("test", 0)):
            np.testing.assert_array_equal(pneumonia.read(f"{part}/{row}"), archive[f"{part}_images"][row])
            label = pneumonia.films.set_index("image").at[f"{part}/{row}", "Pneumonia"]
            assert label == archive[f"{part}_labels"][row, 0]


def test_each_film_stands_as_a_patient_of_its_own(pneumonia: MedMnist) -> None:
    assert pneumonia.films["patient"].is_unique
    assert not pneumonia.patients_known


# Small ones


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three films of 28 px are unpacked at once, so that eight of them are three blocks."""
    monkeypatch.setattr(medmnist, "_BLOCK", 3 * 28 * 28)


@pytest.mark.parametrize("side", [28, 64, 128])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_films_of_any_size_are_read_packed_or_not(tmp_path: Path, save: Callable[..., None], side: int) -> None:
    content = arrays(side=side)
    save(tmp_path / "a.npz", **content)
    source = MedMnist(str(tmp_path / "a.npz"))
    for image in source.films["image"]:
        part, row = image.split("/")
        np.testing.assert_array_equal(source.read(image), content[f"{part}_images"][int(row)])


@pytest.mark.usefixtures("small_blocks")
def test_films_are_the_same_in_any_order(tmp_path: Path) -> None:
    source, content = MedMnist(write(tmp_path / "a.npz")), arrays()
    for row in (7, 0, 5, 2, 6, 3, 1, 4):
        np.testing.assert_array_equal(source.read(f"train/{row}"), content["train_images"][row])


@pytest.mark.usefixtures("small_blocks")
def test_no_more_than_eight_blocks_are_kept_in_memory(tmp_path: Path) -> None:
    source = MedMnist(write(tmp_path / "a.npz", **arrays(films=90)))
    for image in source.films["image"]:
        source.read(image)
    assert sum(len(block) for block in source._blocks.values()) <= 8 * 3 < len(source.films)


@pytest.mark.usefixtures("small_blocks")
def test_several_threads_read_the_same_films(tmp_path: Path) -> None:
    source, content, faults = MedMnist(write(tmp_path / "a.npz")), arrays(), []

    def read_all(step: int) -> None:
        for row in range(64):
            film = row * step % 8
            if not np.array_equal(source.read(f"train/{film}"), content["train_images"][film]):
                faults.append(film)

    threads = [threading.Thread(target=read_all, args=(step,)) for step in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.usefixtures("small_blocks")
def test_a_source_that_has_read_films_can_be_pickled_without_them(tmp_path: Path) -> None:
    source = MedMnist(write(tmp_path / "a.npz"))
    fresh = len(pickle.dumps(source))
    film = source.read("train/7")
    pickled = pickle.dumps(source)
    assert len(pickled) == fresh
    np.testing.assert_array_equal(pickle.loads(pickled).read("train/7"), film)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_processes_read_the_same_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They must not share a place in the file."""
    monkeypatch.setattr(medmnist, "_BLOCK", 8 * 64 * 64)
    content = arrays(side=64, films=800)
    source = MedMnist(write(tmp_path / "a.npz", **content))
    source.read("train/0")

    def read_all() -> None:
        films = [source.read(f"train/{row}") for row in range(800)]
        os._exit(0 if np.array_equal(films, content["train_images"]) else 3)

    children = [multiprocessing.get_context("fork").Process(target=read_all) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4


def test_a_film_may_be_written_on(tmp_path: Path) -> None:
    source = MedMnist(write(tmp_path / "a.npz"))
    source.read("val/0")[:] = 0
    np.testing.assert_array_equal(source.read("val/0"), arrays()["val_images"][0])


def test_fourteen_labels_are_chestmnist(tmp_path: Path) -> None:
    np.savez(tmp_path / "chest.npz", **arrays(width=14))
    source = MedMnist(str(tmp_path / "chest.npz"))
    assert source.labels == CHESTXRAY14
    np.testing.assert_array_equal(source.films.loc[:7, list(CHESTXRAY14)], arrays(width=14)["train_labels"])


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    before = MedMnist(path).stamp("train/0")
    write(tmp_path / "a.npz", extra=np.zeros(1000))
    assert MedMnist(path).stamp("train/0") != before


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.npz", val_labels=None), "array 'val_labels")


def test_colour_films_are_refused(tmp_path: Path) -> None:
    colour = np.zeros((8, 28, 28, 3), np.uint8)
    refused(
        write(tmp_path / "a.npz", train_images=colour),
        r"train_images is uint8\(8, 28, 28, 3\) with 8 labels; grey",
    )


def test_films_of_other_depth_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.npz", val_images=np.zeros((4, 28, 28), np.float32)), "val_images is float32")


def test_more_labels_than_films_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.npz", test_labels=np.zeros((5, 1), np.uint8)), "test_images")


@pytest.mark.parametrize("shape", [(8, 3), (8,)])
def test_another_number_of_labels_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    others = {f"{part}_labels": np.zeros((count, *shape[1:]), np.uint8) for part, count in (("val", 4), ("test", 4))}
    refused(write(tmp_path / "a.npz", train_labels=np.zeros(shape, np.uint8), **others), "")


def test_a_set_of_several_classes_is_refused(tmp_path: Path) -> None:
    """OrganAMNIST and OCTMNIST are grey, too, and have one column of labels, but more than two classes."""
    refused(write(tmp_path / "a.npz", train_labels=np.arange(8, dtype=np.uint8)[:, None]), "")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY"], ids=["empty", "text", "zip", "npy"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    refused(str(tmp_path / "a.npz"), "cannot be read as a MedMNIST .npz file")


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    refused(str(tmp_path / "a.npy"), "cannot be read as a MedMNIST .npz file")


def damage(path: str, member: str, behind: int = 300) -> None:
    """Zero 100 bytes within the packed content of one array."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(f"{member}.npy").header_offset
    whole = bytearray(Path(path).read_bytes())
    whole[start + behind : start + behind + 100] = bytes(100)
    Path(path).write_bytes(whole)


def test_damaged_labels_are_refused(tmp_path: Path) -> None:
    many = {f"{part}_labels": np.random.default_rng(0).integers(0, 2, (2000, 1), dtype=np.uint8) for part in PARTS}
    films = {f"{part}_images": np.zeros((2000, 4, 4), np.uint8) for part in PARTS}
    path = write(tmp_path / "a.npz", **many, **films)
    damage(path, "val_labels")
    refused(path, "cannot be read as a MedMNIST .npz file")


def test_damaged_films_cannot_be_read(tmp_path: Path) -> None:
    """They are not unpacked before: at 224 px that would take half a minute each time the set is opened."""
    path = write(tmp_path / "a.npz")
    damage(path, "train_images")
    source = MedMnist(path)
    with pytest.raises(ValueError, match=f"^{re.escape(path)}: train_images is damaged"):
        source.read("train/0")
    assert source.read("val/0").shape == (28, 28)


@pytest.mark.usefixtures("small_blocks")
def test_films_before_the_damage_can_still_be_read_after_it_was_met(tmp_path: Path) -> None:
    content = arrays(films=200)
    path = write(tmp_path / "a.npz", **content)
    damage(path, "train_images", behind=100_000)
    source = MedMnist(path)
    with pytest.raises(ValueError, match="train_images is damaged"):
        source.read("train/199")
    np.testing.assert_array_equal(source.read("train/0"), content["train_images"][0])


def test_films_that_end_early_cannot_be_read(tmp_path: Path) -> None:
    """Their header promises eight films, and three are there."""
    path = write(tmp_path / "a.npz", train_images=None)
    array = io.BytesIO()
    np.save(array, arrays()["train_images"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", array.getvalue()[: 128 + 3 * 28 * 28])
    with pytest.raises(ValueError, match="train_images is cut off"):
        MedMnist(path).read("train/0")


@pytest.mark.parametrize("image", ["train/8", "val/4", "train/-1"])
def test_a_film_that_is_not_there_cannot_be_read(tmp_path: Path, image: str) -> None:
    with pytest.raises(ValueError, match="has no film"):
        MedMnist(write(tmp_path / "a.npz")).read(image)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.npz"))
    path.write_bytes(path.read_bytes()[:-500])
    refused(str(path), "cannot be read as a MedMNIST .npz file")
