"""The two splits that a training sees, out of the cache."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_core.data import DataError, Films, Source, TrainingData, build_cache

LABELS = ("Mass", "Nodule")
NAN = float("nan")
MASS = [0, 1, NAN, 1, 0, NAN, 1, 0, 0, 1]
NODULE = [NAN, 0, NAN, 1, 0, 0, 0, 0, NAN, 1]
SPLIT = ["train", "train", "train", "val", "test", "train", "val", "train", "train", "val"]  # film 2 is not labelled


class Ten(Source):
    """Ten films of 12 px, of noise."""

    kind = "ten"
    labels = LABELS
    images = np.random.default_rng(0).integers(0, 256, (10, 12, 12), dtype=np.uint8)

    def read(self, image: str) -> np.ndarray:
        return self.images[int(Path(image).stem)]

    def stamp(self, image: str) -> str:
        return "1"


@pytest.fixture
def table() -> pd.DataFrame:
    names = {"image": [f"{row}.png" for row in range(10)], "patient": [f"p{row}" for row in range(10)]}
    return pd.DataFrame({**names, "split": SPLIT, "Nodule": np.float32(NODULE), "Mass": np.float32(MASS)})


@pytest.fixture
def cache(tmp_path: Path, table: pd.DataFrame) -> Path:
    return build_cache(Ten(), table["image"].tolist(), 12, root=tmp_path)


@pytest.fixture
def data(cache: Path, table: pd.DataFrame) -> TrainingData:
    return TrainingData.open(cache, table, LABELS)


def films_of(images: np.ndarray) -> TrainingData:
    films = Films(images, np.arange(len(images)), np.zeros((len(images), 1), np.float32), pd.DataFrame())
    return TrainingData(films, films, ("Mass",))


def test_films_without_any_known_label_are_left_out(data: TrainingData) -> None:
    assert data.train.rows.tolist() == [0, 1, 5, 7, 8]


def test_a_film_with_one_known_label_is_kept(cache: Path, table: pd.DataFrame) -> None:
    assert TrainingData.open(cache, table, ("Mass",)).train.rows.tolist() == [0, 1, 7, 8]


def test_the_test_split_has_no_place_in_a_training(data: TrainingData) -> None:
    assert 4 not in [*data.train.rows, *data.val.rows]
    assert data.val.rows.tolist() == [3, 6, 9]


def test_targets_are_in_the_order_of_the_labels_asked_for(data: TrainingData, cache: Path, table: pd.DataFrame) -> None:
    expected = np.float32([MASS, NODULE]).T
    np.testing.assert_array_equal(data.train.targets, expected[data.train.rows])
    np.testing.assert_array_equal(
        TrainingData.open(cache, table, LABELS[::-1]).val.targets[:, 1], expected[[3, 6, 9], 0]
    )


def test_a_split_may_list_films_in_any_order(cache: Path, table: pd.DataFrame, data: TrainingData) -> None:
    mixed = TrainingData.open(cache, table.sample(frac=1, random_state=0), LABELS)
    np.testing.assert_array_equal(mixed.train.rows, data.train.rows)


def test_a_film_that_is_not_in_the_split_is_not_seen(cache: Path, table: pd.DataFrame) -> None:
    assert TrainingData.open(cache, table.drop(index=[1, 3]), LABELS).val.rows.tolist() == [6, 9]


def test_a_row_of_the_table_belongs_to_its_film(data: TrainingData) -> None:
    assert data.val.table["image"].tolist() == ["3.png", "6.png", "9.png"]
    assert data.val.table.index.tolist() == [0, 1, 2]


def test_pixels_are_those_of_the_films_asked_for(data: TrainingData) -> None:
    np.testing.assert_array_equal(data.val.pixels(np.array([2, 0])), Ten.images[[9, 3]])


def test_pixels_are_copies(data: TrainingData) -> None:
    before = data.val.pixels(np.array([0]))
    data.val.pixels(np.array([0]))[:] = 0
    np.testing.assert_array_equal(data.val.pixels(np.array([0])), before)


def test_the_image_size_is_the_films(data: TrainingData) -> None:
    assert data.image_size == 12


def test_counts_are_the_labelled_positives_and_negatives_of_training(data: TrainingData) -> None:
    targets = np.array([MASS, NODULE])[:, [0, 1, 5, 7, 8]]
    np.testing.assert_array_equal(data.counts, [(targets == 1).sum(axis=1), (targets == 0).sum(axis=1)])


def test_films_are_copied_to_where_they_are_asked_for(data: TrainingData) -> None:
    out = np.zeros((2, 12, 12), np.uint8)
    data.val.pixels(np.array([2, 0]), out=out)
    np.testing.assert_array_equal(out, data.val.pixels(np.array([2, 0])))


def test_pixel_statistics_are_those_of_the_training_films(data: TrainingData) -> None:
    pixels, found = Ten.images[[0, 1, 5, 7, 8]] / 255, data.pixel_statistics
    assert (found.mean, found.std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-9)
    np.testing.assert_allclose(found.mean_image, pixels.mean(axis=0), rtol=1e-12)
    around = np.sqrt(((pixels - pixels.mean(axis=0)) ** 2).mean())
    assert found.std_around_mean_image == pytest.approx(around, rel=1e-9)


def test_the_deviation_of_blank_films_is_not_zero() -> None:
    found = films_of(np.full((3, 4, 4), 51, np.uint8)).pixel_statistics
    assert found.mean == pytest.approx(0.2)
    assert found.std == found.std_around_mean_image == pytest.approx(1e-3)


def test_pixel_statistics_are_taken_once(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.pixel_statistics
    monkeypatch.setattr(Films, "pixels", None)
    assert data.pixel_statistics is first


@pytest.mark.parametrize("count", [2000, 2001, 3999, 6500])
def test_pixel_statistics_are_taken_from_at_most_2000_films(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read, pixels = [], Films.pixels
    monkeypatch.setattr(Films, "pixels", lambda self, index: read.extend(index) or pixels(self, index))
    rng = np.random.default_rng(0)
    data = films_of(rng.integers(0, 256, (count, 2, 2), dtype=np.uint8))
    mean = data.pixel_statistics.mean
    assert 500 < len(read) <= 2000
    assert max(read) > 0.9 * count  # spread over the whole split
    assert abs(mean - 0.5) < 5 * 0.29 / (4 * len(read)) ** 0.5  # 5 sigma


def test_a_label_that_the_data_set_lacks_is_named(cache: Path, table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^label 'Hernia' is not in the data set$"):
        TrainingData.open(cache, table, ("Mass", "Hernia"))


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_split_without_labelled_films_is_refused(cache: Path, table: pd.DataFrame, part: str) -> None:
    with pytest.raises(DataError, match=f"^the {part} split has no labelled film$"):
        TrainingData.open(cache, table[table["split"] != part], LABELS)


def test_a_share_of_the_films_is_of_whole_patients_and_within_every_larger_share() -> None:
    films = [f"film{number}" for number in range(600)]
    rows = [{"image": film, "patient": f"p{number // 3}", "split": "train"} for number, film in enumerate(films)]
    table = pd.DataFrame(rows)
    train = Films(np.zeros((600, 2, 2), np.uint8), np.arange(600), np.zeros((600, 1), np.float32), table)
    whole = TrainingData(train, train, ("Mass",))
    small, large = whole.share(0.25).train, whole.share(0.5).train
    assert set(small.table["image"]) < set(large.table["image"])
    assert (small.table.groupby("patient").size() == 3).all()
    # 200 patients, each in with probability 1/4: a binomial deviate of four standard deviations has odds of 1 in 16,000
    assert abs(small.table["patient"].nunique() - 50) < 4 * (200 * 0.25 * 0.75) ** 0.5
    assert [f"film{row}" for row in small.rows] == small.table["image"].tolist()


def test_a_last_training_may_learn_from_the_validation_films_too(cache: Path, table: pd.DataFrame) -> None:
    data = TrainingData.open(cache, table, LABELS)
    together = data.with_validation()
    assert sorted(together.train.table["image"]) == sorted([*data.train.table["image"], *data.val.table["image"]])
    for place, image in enumerate(together.train.table["image"]):
        assert np.array_equal(together.train.pixels(np.array([place]))[0], Ten.images[int(Path(image).stem)])
    assert np.array_equal(together.counts, data.counts + [np.nansum(t, axis=0) for t in _classes(data.val.targets)])
    assert together.val is data.val


def _classes(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return targets, 1 - targets
