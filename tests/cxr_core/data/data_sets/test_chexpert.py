"""CheXpert in its published layouts: which table is which split, and where its films lie."""

import pickle
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_core.data import DataError
from cxr_core.data.data_sets.chexpert import Chexpert
from cxr_core.labels import CHEXPERT14

LABELS = list(CHEXPERT14)
HEADER = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *LABELS])
TRAIN = [
    # no finding ... pneumonia and others in the published order, most of them not mentioned
    "train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "train/patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "train/patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,AP,,,,,,,,,,,,,,",
]
VALID = ["valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP" + ",0.0,1.0" * 7]
TEST = [
    "test/patient64741/study1/view1_frontal.jpg" + ",1.0,0.0" * 7,
    "test/patient64741/study1/view2_lateral.jpg" + ",1.0,0.0" * 7,
]


def films(rows: list[str]) -> list[str]:
    return [row.split(",")[0] for row in rows]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(list(str(path).encode())).integers(0, 256, (10, 12), dtype=np.uint8)).save(
        path
    )


def table(path: Path, rows: list[str], prefix: str, header: str = HEADER) -> None:
    path.write_text("\n".join([header, *(prefix + row for row in rows)]) + "\n")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """CheXpert-v1.0-small: train and valid."""
    folder = tmp_path / "CheXpert-v1.0-small"
    for film in films(TRAIN + VALID):
        put(folder / film)
    table(folder / "train.csv", TRAIN, "CheXpert-v1.0-small/")
    table(folder / "valid.csv", VALID, "CheXpert-v1.0-small/")
    return folder


def add_test(folder: Path, name: str = "test_labels.csv") -> None:
    """The labelled test as it comes with CheXlocalize: no patient data, paths without a prefix."""
    for film in films(TEST):
        put(folder / film)
    table(folder / name, TEST, "", ",".join(["Path", *LABELS]))


def splits(folder: Path) -> dict[str, str]:
    return Chexpert(str(folder)).films.set_index("image")["split"].to_dict()


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Chexpert(str(folder))


# What the tables say


def test_labels_are_kept_as_published(small: Path) -> None:
    source = Chexpert(str(small))
    row = source.films.set_index("image").loc["train/patient00002/study2/view1_frontal.jpg"]
    assert source.labels == CHEXPERT14
    assert {label for label in LABELS if row[label] == 1} == {"Lung Opacity", "Fracture"}
    assert {label for label in LABELS if row[label] == -1} == {
        "Cardiomegaly",
        "Edema",
        "Consolidation",
        "Atelectasis",
        "Pleural Effusion",
    }
    assert np.isnan(row["No Finding"])
    assert (source.films[LABELS].dtypes == np.float32).all()


def test_a_finding_that_is_not_mentioned_counts_as_absent(small: Path) -> None:
    assert Chexpert(str(small)).blank == "zero"


def test_a_film_is_of_the_patient_in_its_path(small: Path) -> None:
    patients = Chexpert(str(small)).films["patient"].tolist()
    assert patients == ["patient00001", "patient00002", "patient00002", "patient00003", "patient64541"]


def test_sex_age_and_view_are_told_as_elsewhere(small: Path) -> None:
    rows = Chexpert(str(small)).films
    assert rows["sex"].fillna("not known").tolist() == ["F", "M", "M", "not known", "M"]
    assert rows["age"].tolist() == [68, 87, 87, 0, 73]
    assert rows["view"].tolist() == ["AP", "PA", "Lateral", "AP", "AP"]


def test_the_labelled_test_tells_no_more_than_frontal_or_lateral(small: Path) -> None:
    add_test(small)
    rows = Chexpert(str(small)).films.query("split == 'test'")
    assert rows["view"].tolist() == ["Frontal", "Lateral"]
    assert rows[["sex", "age"]].isna().all().all()


def test_an_age_that_nobody_has_is_unknown_and_noted(small: Path) -> None:
    table(small / "train.csv", [TRAIN[0].replace(",68,", ",680,"), *TRAIN[1:]], "")
    source = Chexpert(str(small))
    assert np.isnan(source.films["age"][0])
    assert source.notes == ("train.csv: 1 of 4 ages count as unknown; the first is '680' on line 2",)


def test_the_order_of_rows_does_not_matter(small: Path) -> None:
    before = Chexpert(str(small)).films
    rows = list(TRAIN)
    random.Random(1).shuffle(rows)
    table(small / "train.csv", rows, "")
    again = Chexpert(str(small)).films
    assert list(again["image"]) != list(before["image"])
    pd.testing.assert_frame_equal(again.sort_values("image", ignore_index=True), before)


# Splits


def test_without_a_labelled_test_valid_is_the_test_split(small: Path) -> None:
    assert splits(small) == dict.fromkeys(films(TRAIN), "train_val") | dict.fromkeys(films(VALID), "test")


@pytest.mark.parametrize("name", ["test.csv", "test_labels.csv"])
def test_with_a_labelled_test_all_splits_are_as_published(small: Path, name: str) -> None:
    add_test(small, name)
    parts = (TRAIN, "train"), (VALID, "val"), (TEST, "test")
    assert splits(small) == {film: part for rows, part in parts for film in films(rows)}


def test_a_test_without_labels_is_left_out_and_noted(small: Path) -> None:
    table(small / "test.csv", films(TEST), "", "Path")
    source = Chexpert(str(small))
    assert set(source.films["split"]) == {"train_val", "test"}
    assert source.films["image"].str.startswith("test/").sum() == 0
    assert source.notes == ("test.csv has no labels and is left out",)


def test_train_alone_has_no_official_split(small: Path) -> None:
    (small / "valid.csv").unlink()
    source = Chexpert(str(small))
    assert source.films["split"].isna().all()
    assert source.notes == ("there is neither valid.csv nor a labelled test; all splits are drawn by patient",)


def test_a_patient_of_two_tables_is_refused(small: Path) -> None:
    table(small / "valid.csv", [VALID[0].replace("64541", "00002")], "")
    refused(small, r"patient00002 is in both train\.csv and valid\.csv")


# Where films lie


def test_the_folder_above_will_do(small: Path) -> None:
    assert splits(small.parent) == splits(small)


def test_the_name_of_the_folder_does_not_matter(small: Path) -> None:
    before = splits(small)
    small.rename(small.parent / "chex")
    source = Chexpert(str(small.parent / "chex"))
    assert source.films.set_index("image")["split"].to_dict() == before
    assert source.read(source.films["image"].iloc[-1]).shape == (10, 12)


def test_films_may_lie_in_the_batches_of_the_full_download(small: Path) -> None:
    tables = small.rename(small.parent / "CheXpert-v1.0 batch 1 (validate & csv)")
    (small.parent / "CheXpert-v1.0 batch 3 (train 2)").mkdir()
    (tables / "train").rename(small.parent / "CheXpert-v1.0 batch 2 (train 1)")
    moved = "CheXpert-v1.0 batch 3 (train 2)/patient00003"
    (small.parent / "CheXpert-v1.0 batch 2 (train 1)" / "patient00003").rename(small.parent / moved)
    source = Chexpert(str(small.parent))
    assert (len(source.films), source.missing) == (5, ())
    assert source.paths[films(TRAIN)[3]] == str(small.parent.resolve() / moved / "study1" / "view1_frontal.jpg")


def test_validation_films_may_lie_in_val_as_in_chexlocalize(small: Path) -> None:
    (small / "valid").rename(small / "val")
    (small / "valid.csv").rename(small / "val_labels.csv")
    assert splits(small)[films(VALID)[0]] == "test"


def test_films_that_are_not_on_disk_are_missing(small: Path) -> None:
    (small / films(TRAIN)[1]).unlink()
    source = Chexpert(str(small))
    assert source.missing == (films(TRAIN)[1],)
    assert list(source.films.index) == list(range(4))


def test_a_pickled_source_reads_the_same_films(small: Path) -> None:
    source = Chexpert(str(small))
    again = pickle.loads(pickle.dumps(source))
    for image in source.films["image"]:
        np.testing.assert_array_equal(again.read(image), source.read(image))


# Faults


def test_a_folder_without_train_csv_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "neither it nor a folder in it holds train.csv")


def test_two_copies_below_a_folder_are_told_apart_by_the_user(small: Path) -> None:
    (small.parent / "CheXpert-v1.0").mkdir()
    table(small.parent / "CheXpert-v1.0" / "train.csv", TRAIN, "")
    refused(small.parent, r"CheXpert-v1\.0 and CheXpert-v1\.0-small hold train\.csv; name one of them")


def test_a_folder_without_any_film_is_refused(small: Path) -> None:
    (small / "train").rename(small / "elsewhere")
    (small / "valid").rename(small / "elsewhere2")
    refused(small, "none of the 5 films of the tables is there, the first train/patient00001/study1/view1_frontal.jpg")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Pleural Effusion", "Pleural effusions", "'Pleural Effusion' is missing; did you mean 'Pleural effusions'"),
        ("-1.0", "?", r"line 3: Cardiomegaly is '\?'; 1\.0, 0\.0, -1\.0 and nothing are known"),
        ("train/patient00001/", "", "line 2: 'CheXpert-v1.0-small/study1/view1_frontal.jpg' is no path such as"),
        ("view2_lateral", "view1_frontal", "is listed twice, on lines 3 and 4"),
        (",,,,,,,,,,,,,,\n", ",\n", "line 5: 6 cells instead of 19"),
    ],
)
def test_a_fault_of_a_table_is_told_with_its_place(small: Path, old: str, new: str, message: str) -> None:
    text = (small / "train.csv").read_text()
    assert old in text
    (small / "train.csv").write_text(text.replace(old, new))
    refused(small, rf"train\.csv: .*{message}")
