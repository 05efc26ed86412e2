"""A data set's name, and what every reader promises."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_core.data import DataError, DataName, DataPolicy, Source, TrainingData, prepare, readers
from cxr_core.labels import CHEXPERT14

WITH_A_PATH = sorted(set(readers) - {"phantom"})


def put(path: Path) -> None:
    """A film of noise, another one at each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    film = np.random.default_rng(list(str(path).encode())).integers(0, 256, (24, 20), dtype=np.uint8)
    Image.fromarray(film).save(path)


def small_medmnist(folder: Path) -> str:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(folder / "small.npz", **arrays)
    return str(folder / "small.npz")


def small_kermany(folder: Path) -> str:
    for person in range(8):
        put(folder / "train" / "PNEUMONIA" / f"person{person}_bacteria_{person}.jpeg")
        put(folder / "train" / "NORMAL" / f"IM-{person:04d}-0001.jpeg")
    put(folder / "test" / "PNEUMONIA" / "person1_virus_77.jpeg")
    put(folder / "test" / "NORMAL" / "IM-0001-0002.jpeg")
    return str(folder)


def small_chexpert(folder: Path) -> str:
    head = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *CHEXPERT14])
    for part, patients in (("train", range(12)), ("valid", range(64540, 64544))):
        rows = [head]
        for patient in patients:
            image = f"{part}/patient{patient:05d}/study1/view1_frontal.jpg"
            put(folder / image)
            values = [str(float((patient + label) % 2)) if label % 5 else "-1.0" for label in range(13)]
            rows.append(f"CheXpert-v1.0/{image},Male,{40 + patient % 9},Frontal,AP,{','.join(values)},")
        (folder / f"{part}.csv").write_text("\n".join(rows) + "\n")
    return str(folder)


def small_csv(folder: Path) -> str:
    rows = ["image,patient,Mass,Edema"]
    for film in range(16):
        put(folder / f"{film}.png")
        rows.append(f"{film}.png,p{film:02d},{film % 2},{('0', '1', '-1', '')[film // 2 % 4]}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "films.csv")


@pytest.fixture
def name_any(nih_folder: Path, tmp_path: Path) -> Callable[[str], DataName]:
    """A small data set of a kind."""
    makers = {"medmnist": small_medmnist, "kermany": small_kermany, "chexpert": small_chexpert, "csv": small_csv}

    def name(kind: str) -> DataName:
        if kind == "phantom":
            return DataName(kind)
        return DataName(kind, str(nih_folder) if kind == "nih" else makers[kind](tmp_path))

    return name


@pytest.fixture
def open_any(name_any: Callable[[str], DataName]) -> Callable[[str], Source]:
    return lambda kind: name_any(kind).open()


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


def test_a_path_may_begin_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave `~` as it is behind a colon."""
    monkeypatch.setenv("HOME", "/home/ada")
    assert DataName.parse("nih:~/films") == DataName("nih", "/home/ada/films")


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


@pytest.mark.parametrize("kind", WITH_A_PATH)
def test_a_path_that_the_system_refuses_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)  # longer than any file system takes
    with pytest.raises(DataError, match=f"^{path}: .*File name too long"):
        DataName(kind, str(path)).open()


@pytest.mark.parametrize("kind", readers)
def test_a_table_has_the_columns_of_the_contract(kind: str, open_any: Callable[[str], Source]) -> None:
    source = open_any(kind)
    assert {"image", "patient", "split", *source.labels} <= set(source.films.columns)
    assert source.films["image"].is_unique
    assert set(source.films["split"]) in ({"train_val", "test"}, {"train", "val", "test"}, {None})
    targets = source.films[list(source.labels)]
    assert (targets.dtypes == np.float32).all()
    assert set(np.unique(targets.to_numpy()[targets.notna()])) <= {0, 1, -1}


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


@pytest.mark.parametrize("kind", WITH_A_PATH)
def test_every_kind_of_data_set_can_be_trained_on(kind: str, name_any: Callable[[str], DataName]) -> None:
    prepared = prepare(name_any(kind), DataPolicy(image_size=16, validation=0.4))
    data = TrainingData.open(prepared.cache, prepared.development, prepared.task.labels)
    assert len(data.train) > 0
    assert len(data.val) > 0
    assert set(np.unique(data.train.targets[~np.isnan(data.train.targets)])) == {0, 1}
