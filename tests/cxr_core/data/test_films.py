"""The two splits that a training sees, out of the cache."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_core.data import DataError, Films, TrainingData

LABELS = ("Mass", "Nodule")
NAN = float("nan")
MASS = [0, 1, NAN, 1, 0, NAN, 1, 0, 0, 1]
NODULE = [NAN, 0, NAN, 1, 0, 0, 0, 0, NAN, 1]
SPLIT = ["train", "train", "train", "val", "test", "train", "val", "train", "train", "val"]  # film 2 is not labelled


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (10, 12, 12), dtype=np.uint8))
    manifest = pd.DataFrame({"image": [f"{row}.png" for row in range(10)], "patient": [f"p{row}" for row in range(10)]})
    manifest.assign(Nodule=np.float32(NODULE), Mass=np.float32(MASS)).to_parquet(tmp_path / "manifest.parquet")
    return tmp_path


@pytest.fixture
def split(cache: Path) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"{row}.png" for row in range(10)], "split": SPLIT})


@pytest.fixture
def data(cache: Path, split: pd.DataFrame) -> TrainingData:
    return TrainingData.open(cache, split, LABELS)


def films_of(images: np.ndarray) -> TrainingData:
    films = Films(images, np.arange(len(images)), np.zeros((len(images), 1), np.float32), pd.DataFrame())
    return TrainingData(films, films, ("Mass",))


def test_films_without_any_known_label_are_left_out(data: TrainingData) -> None:
    assert data.train.rows.tolist() == [0, 1, 5, 7, 8]


def test_a_film_with_one_known_label_is_kept(cache: Path, split: pd.DataFrame) -> None:
    assert TrainingData.open(cache, split, ("Mass",)).train.rows.tolist() == [0, 1, 7, 8]


def test_the_test_split_has_no_place_in_a_training(data: TrainingData) -> None:
    assert 4 not in [*data.train.rows, *data.val.rows]
    assert data.val.rows.tolist() == [3, 6, 9]


def test_targets_are_in_the_order_of_the_labels_asked_for(data: TrainingData, cache: Path, split: pd.DataFrame) -> None:
    expected = np.float32([MASS, NODULE]).T
    np.testing.assert_array_equal(data.train.targets, expected[data.train.rows])
    np.testing.assert_array_equal(
        TrainingData.open(cache, split, LABELS[::-1]).val.targets[:, 1], expected[[3, 6, 9], 0]
    )


def test_a_split_may_list_films_in_any_order(cache: Path, split: pd.DataFrame, data: TrainingData) -> None:
    mixed = TrainingData.open(cache, split.sample(frac=1, random_state=0), LABELS)
    np.testing.assert_array_equal(mixed.train.rows, data.train.rows)


def test_a_film_that_is_not_in_the_split_is_not_seen(cache: Path, split: pd.DataFrame) -> None:
    assert TrainingData.open(cache, split.drop(index=[1, 3]), LABELS).val.rows.tolist() == [6, 9]


def test_a_row_of_the_table_belongs_to_its_film(data: TrainingData) -> None:
    assert data.val.table["image"].tolist() == ["3.png", "6.png", "9.png"]
    assert data.val.table.index.tolist() == [0, 1, 2]


def test_pixels_are_those_of_the_films_asked_for(data: TrainingData, cache: Path) -> None:
    images = np.load(cache / "images.npy")
    np.testing.assert_array_equal(data.val.pixels(np.array([2, 0])), images[[9, 3]])


def test_pixels_are_copies(data: TrainingData) -> None:
    before = data.val.pixels(np.array([0]))
    data.val.pixels(np.array([0]))[:] = 0
    np.testing.assert_array_equal(data.val.pixels(np.array([0])), before)


def test_the_image_size_is_the_films(data: TrainingData) -> None:
    assert data.image_size == 12


def test_counts_are_the_labelled_positives_and_negatives_of_training(data: TrainingData) -> None:
    targets = np.array([MASS, NODULE])[:, [0, 1, 5, 7, 8]]
    np.testing.assert_array_equal(data.counts, [(targets == 1).sum(axis=1), (targets == 0).sum(axis=1)])


def test_moments_are_the_mean_and_deviation_of_all_training_pixels(data: TrainingData, cache: Path) -> None:
    pixels = np.load(cache / "images.npy")[[0, 1, 5, 7, 8]] / 255
    assert data.pixel_moments == pytest.approx((pixels.mean(), pixels.std()), rel=1e-9)


def test_the_deviation_of_blank_films_is_not_zero() -> None:
    assert films_of(np.full((3, 4, 4), 51, np.uint8)).pixel_moments == pytest.approx((0.2, 1e-3))


@pytest.mark.parametrize("count", [2000, 2001, 3999, 6500])
def test_moments_are_taken_from_at_most_2000_films(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read, pixels = [], Films.pixels
    monkeypatch.setattr(Films, "pixels", lambda self, index: read.extend(index) or pixels(self, index))
    rng = np.random.default_rng(0)
    data = films_of(rng.integers(0, 256, (count, 2, 2), dtype=np.uint8))
    mean, _ = data.pixel_moments
    assert 500 < len(read) <= 2000
    assert max(read) > 0.9 * count  # spread over the whole split
    assert abs(mean - 0.5) < 5 * 0.29 / (4 * len(read)) ** 0.5  # 5 sigma


def test_a_label_that_the_data_set_lacks_is_named(cache: Path, split: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^label 'Hernia' is not in the data set$"):
        TrainingData.open(cache, split, ("Mass", "Hernia"))


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_split_without_labelled_films_is_refused(cache: Path, split: pd.DataFrame, part: str) -> None:
    with pytest.raises(DataError, match=f"^the {part} split has no labelled film$"):
        TrainingData.open(cache, split[split["split"] != part], LABELS)
