"""A data set's name, and what every reader promises."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxr_core.data import DataError, DataName, Source, readers

WITH_A_PATH = sorted(set(readers) - {"phantom"})


@pytest.fixture
def open_any(nih_folder: Path, tmp_path: Path) -> Callable[[str], Source]:
    """A small data set of a kind."""

    def open_kind(kind: str) -> Source:
        if kind == "nih":
            return DataName(kind, str(nih_folder)).open()
        if kind == "medmnist":
            rng, arrays = np.random.default_rng(0), {}
            for part, count in (("train", 8), ("val", 4), ("test", 4)):
                arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
                arrays[f"{part}_labels"] = rng.integers(0, 2, (count, 1), dtype=np.uint8)
            np.savez(tmp_path / "small.npz", **arrays)
            return DataName(kind, str(tmp_path / "small.npz")).open()
        if kind == "phantom":
            return DataName(kind).open()
        pytest.skip(f"no small data set of kind {kind}")

    return open_kind


# Names


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("phantom", "phantom", None),
        ("phantom:", "phantom", None),
        ("nih:/a/b", "nih", "/a/b"),
        ("nih:C:/x", "nih", "C:/x"),
    ],
)
def test_a_name_is_a_kind_and_a_path(text: str, kind: str, path: str | None) -> None:
    assert DataName.parse(text) == DataName(kind, path)


@pytest.mark.parametrize("text", ["phantom", "nih:/a/b", "medmnist:C:/x.npz"])
def test_a_name_is_written_as_it_is_read(text: str) -> None:
    assert str(DataName.parse(text)) == text


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"no data set kind 'nhi'; known: .*medmnist, .*nih"):
        DataName.parse("nhi:/a")


# Readers


@pytest.mark.parametrize("kind", WITH_A_PATH)
def test_a_reader_of_files_asks_for_a_path(kind: str) -> None:
    with pytest.raises(DataError, match=f"--data {kind}:"):
        DataName(kind).open()


@pytest.mark.parametrize("kind", WITH_A_PATH)
def test_a_path_that_is_not_there_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}/absent: no such (file|folder); {kind}: takes"):
        DataName(kind, str(tmp_path / "absent")).open()


@pytest.mark.parametrize("kind", readers)
def test_a_table_has_the_columns_of_the_contract(kind: str, open_any: Callable[[str], Source]) -> None:
    source = open_any(kind)
    assert {"image", "patient", "split", *source.labels} <= set(source.films.columns)
    assert source.films["image"].is_unique
    assert set(source.films["split"]) in ({"train_val", "test"}, {"train", "val", "test"})
    targets = source.films[list(source.labels)]
    assert (targets.dtypes == np.float32).all()
    assert set(np.unique(targets)) <= {0, 1}


@pytest.mark.parametrize("kind", readers)
def test_a_film_is_read_as_grey_bytes(kind: str, open_any: Callable[[str], Source]) -> None:
    source = open_any(kind)
    film = source.read(source.films["image"].iloc[-1])
    assert (film.ndim, film.dtype) == (2, np.uint8)


@pytest.mark.parametrize("kind", readers)
def test_a_pickled_source_reads_the_same_films(kind: str, open_any: Callable[[str], Source]) -> None:
    source = open_any(kind)
    again, image = pickle.loads(pickle.dumps(source)), source.films["image"].iloc[0]
    np.testing.assert_array_equal(again.read(image), source.read(image))
    assert again.stamp(image) == source.stamp(image)
