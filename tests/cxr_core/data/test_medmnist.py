"""MedMNIST's chest sets, and files that are none."""

import re
from pathlib import Path

import numpy as np
import pytest

from cxr_core.data import DataError
from cxr_core.data.medmnist import MedMnist
from cxr_core.labels import CHESTXRAY14


@pytest.fixture(scope="module")
def pneumonia(real_data: Path) -> MedMnist:
    return MedMnist(str(real_data / "pneumoniamnist.npz"))


def arrays(width: int = 1) -> dict[str, np.ndarray]:
    """Eight training films and four of each other part, as MedMNIST stores them."""
    rng, content = np.random.default_rng(0), {}
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        content[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
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


# Small ones


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
    refused(write(tmp_path / "a.npz", train_images=colour), r"train_images is uint8\(8, 28, 28, 3\); grey 8-bit")


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


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.npz"))
    whole = bytearray(path.read_bytes())
    whole[100:200] = bytes(100)  # inside the first compressed array
    path.write_bytes(whole)
    refused(str(path), "cannot be read as a MedMNIST .npz file")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.npz"))
    path.write_bytes(path.read_bytes()[:-500])
    refused(str(path), "cannot be read as a MedMNIST .npz file")
