"""The paediatric pneumonia films as they are unpacked: whose they are, what they show, and what is refused."""

import math
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_core.data import DataError, DataName
from cxr_core.data.data_sets.kermany import Kermany

# Names as they stand in the archives.
KAGGLE = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/IM-0429-0001.jpeg",
    "train/NORMAL/IM-0429-0001-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0429-0001.jpeg",
    "train/PNEUMONIA/person1000_bacteria_2931.jpeg",
    "train/PNEUMONIA/person1000_virus_1681.jpeg",
    "train/PNEUMONIA/person100_virus_184.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person100_bacteria_475.jpeg",
)
MENDELEY_3 = (
    "train/NORMAL/NORMAL-1003233-0001.jpeg",
    "train/PNEUMONIA/BACTERIA-1008087-0001.jpeg",
    "train/PNEUMONIA/BACTERIA-1008087-0002.jpeg",
    "train/PNEUMONIA/VIRUS-1012734-0001.jpeg",
    "test/NORMAL/NORMAL-3464500-0001.jpeg",
    "test/PNEUMONIA/VIRUS-3464501-0001.jpeg",
)


def unpacked(folder: Path, *images: str) -> Path:
    """The data set as empty files: nothing may look into them."""
    for image in images:
        path = folder / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def films(folder: Path) -> pd.DataFrame:
    return Kermany(str(folder)).films.set_index("image")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Kermany(str(folder))
    assert message in str(caught.value)


# Patients, splits and labels


@pytest.mark.parametrize("images", [KAGGLE, MENDELEY_3])
def test_every_film_is_read_once_and_in_order(images: tuple[str, ...], tmp_path: Path) -> None:
    assert Kermany(str(unpacked(tmp_path, *reversed(images)))).films["image"].tolist() == sorted(images)


@pytest.mark.parametrize(
    ("image", "patient"),
    [
        ("train/PNEUMONIA/person1000_bacteria_2931.jpeg", "train/person1000"),
        ("train/PNEUMONIA/person1000_virus_1681.jpeg", "train/person1000"),
        ("train/PNEUMONIA/person100_virus_184.jpeg", "train/person100"),
        ("train/NORMAL/IM-0115-0001.jpeg", "train/IM-0115"),
        ("train/NORMAL/IM-0429-0001.jpeg", "train/IM-0429"),
        ("train/NORMAL/IM-0429-0001-0001.jpeg", "train/IM-0429"),
        ("train/NORMAL/NORMAL2-IM-0429-0001.jpeg", "train/NORMAL2-IM-0429"),
        ("val/PNEUMONIA/person1946_bacteria_4874.jpeg", "train/person1946"),
        ("test/PNEUMONIA/person100_bacteria_475.jpeg", "test/person100"),
    ],
)
def test_the_patient_is_in_the_name(image: str, patient: str, tmp_path: Path) -> None:
    assert films(unpacked(tmp_path, *KAGGLE)).loc[image, "patient"] == patient


def test_the_patient_is_in_the_name_of_mendeleys_third_version(tmp_path: Path) -> None:
    patients = films(unpacked(tmp_path, *MENDELEY_3))["patient"]
    assert patients["train/PNEUMONIA/BACTERIA-1008087-0001.jpeg"] == "train/1008087"
    assert patients.nunique() == len(MENDELEY_3) - 1


def test_val_joins_train(tmp_path: Path) -> None:
    split = films(unpacked(tmp_path, *KAGGLE))["split"]
    assert split.to_dict() == {image: "test" if image.startswith("test/") else "train_val" for image in KAGGLE}


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("train/NORMAL/IM-0115-0001.jpeg", [0, 0, 0]),
        ("train/PNEUMONIA/person1000_bacteria_2931.jpeg", [1, 1, 0]),
        ("train/PNEUMONIA/person1000_virus_1681.jpeg", [1, 0, 1]),
        ("train/PNEUMONIA/IM-0115-0002.jpeg", [1, math.nan, math.nan]),
        ("train/NORMAL/NORMAL-1003233-0001.jpeg", [0, 0, 0]),
        ("train/PNEUMONIA/BACTERIA-1008087-0001.jpeg", [1, 1, 0]),
        ("train/PNEUMONIA/VIRUS-1012734-0001.jpeg", [1, 0, 1]),
    ],
)
def test_folder_and_name_tell_pneumonia_and_its_cause(image: str, labels: list[float], tmp_path: Path) -> None:
    row = films(unpacked(tmp_path, *KAGGLE, image)).loc[image, ["Pneumonia", "Bacterial", "Viral"]]
    np.testing.assert_array_equal(row.to_numpy(float), labels)


def test_labels_are_float32_and_every_film_is_ap(tmp_path: Path) -> None:
    source = Kermany(str(unpacked(tmp_path, *KAGGLE)))
    assert (source.films[list(source.labels)].dtypes == np.float32).all()
    assert (source.films["view"] == "AP").all()


NUMBER = st.integers(0, 30)
NAMES = {
    "NORMAL": st.one_of(
        st.builds("IM-{:04d}-{:04d}".format, NUMBER, NUMBER),
        st.builds("NORMAL2-IM-{:04d}-0001-{:04d}".format, NUMBER, NUMBER),
        st.builds("NORMAL-{}-{:04d}".format, NUMBER, NUMBER),
    ),
    "PNEUMONIA": st.one_of(
        st.builds("person{}_bacteria_{}".format, NUMBER, NUMBER),
        st.builds("person{}_virus_{}".format, NUMBER, NUMBER),
        st.builds("VIRUS-{}-{:04d}".format, NUMBER, NUMBER),
    ),
}
FOLDERS = [f"{part}/{group}" for part in ("train", "val", "test") for group in NAMES]
TREES = st.fixed_dictionaries(
    {folder: st.sets(NAMES[folder.split("/")[1]], min_size=1, max_size=8) for folder in FOLDERS}
)


@settings(max_examples=25)
@given(tree=TREES)
def test_no_patient_is_in_both_splits_and_no_film_is_lost(tree: dict[str, set[str]]) -> None:
    images = [f"{folder}/{name}.jpeg" for folder, names in tree.items() for name in names]
    with TemporaryDirectory() as folder:
        table = Kermany(str(unpacked(Path(folder), *images))).films
    assert sorted(images) == table["image"].tolist()
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert (table["image"].str.startswith("test/") == table["split"].eq("test")).all()
    assert (table["Pneumonia"] == table["image"].str.contains("/PNEUMONIA/")).all()


# Where the films are


@pytest.mark.parametrize("inside", ["", "chest_xray", "chest_xray/chest_xray"])
def test_the_folder_may_be_that_of_the_films_or_lie_above(inside: str, tmp_path: Path) -> None:
    unpacked(tmp_path / inside, *KAGGLE)
    assert films(tmp_path).index.tolist() == sorted(KAGGLE)


def test_the_archives_second_copy_and_apples_files_are_left_out(tmp_path: Path) -> None:
    unpacked(tmp_path / "chest_xray", *KAGGLE)
    unpacked(tmp_path / "chest_xray" / "chest_xray", *KAGGLE)
    unpacked(
        tmp_path / "chest_xray" / "__MACOSX" / "chest_xray", *(f"{Path(i).parent}/._{Path(i).name}" for i in KAGGLE)
    )
    unpacked(tmp_path / "chest_xray", ".DS_Store", "train/.DS_Store", "train/NORMAL/._IM-0115-0001.jpeg")
    unpacked(
        tmp_path / "chest_xray", "train/NORMAL/.DS_Store", "train/__MACOSX/._NORMAL", "train/.ipynb_checkpoints/a.jpeg"
    )
    source = Kermany(str(tmp_path))
    assert source.films["image"].tolist() == sorted(KAGGLE)
    assert source.notes == (f"{tmp_path / 'chest_xray' / 'chest_xray'}: a second copy of the data set, not read",)


def test_val_may_be_missing(tmp_path: Path) -> None:
    images = sorted(image for image in KAGGLE if not image.startswith("val/"))
    assert films(unpacked(tmp_path, *images)).index.tolist() == images


def test_a_film_is_read_by_its_name(tmp_path: Path) -> None:
    grey = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8)
    name = "train/NORMAL/IM-0115-0001.jpeg"
    Image.fromarray(grey).save(unpacked(tmp_path, *KAGGLE) / name, quality=100)
    source = pickle.loads(pickle.dumps(DataName.parse(f"kermany:{tmp_path}").open()))
    np.testing.assert_allclose(source.read(name).astype(int), grey, atol=2)
    assert source.stamp(name) != source.stamp(KAGGLE[1])


# What is refused


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", f"{tmp_path / 'nowhere'}: no such folder")


def test_the_folder_must_be_given() -> None:
    with pytest.raises(DataError, match="--data kermany:FOLDER"):
        DataName.parse("kermany").open()


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_without_train_or_test_is_refused(part: str, tmp_path: Path) -> None:
    unpacked(tmp_path, *(image for image in KAGGLE if not image.startswith(f"{part}/")))
    refused(tmp_path, "holds both train/ and test/")


@pytest.mark.parametrize("name", ["chest7.jpeg", "person_virus_1.jpeg", "IM-0115.jpeg", "IM-0115-0001 (1).jpeg"])
def test_a_film_that_does_not_tell_its_patient_is_named(name: str, tmp_path: Path) -> None:
    unpacked(tmp_path, *KAGGLE, f"train/NORMAL/{name}")
    refused(tmp_path, f"{tmp_path / 'train' / 'NORMAL' / name}: the name does not tell the patient")


@pytest.mark.parametrize("image", ["train/COVID/IM-1-1.jpeg", "train/IM-1-1.jpeg", "test/COVID/sub/IM-1-1.jpeg"])
def test_a_film_of_neither_class_is_named(image: str, tmp_path: Path) -> None:
    unpacked(tmp_path, *KAGGLE, image)
    refused(tmp_path, "in neither NORMAL/ nor PNEUMONIA/")


def test_a_folder_among_films_is_named(tmp_path: Path) -> None:
    unpacked(tmp_path, *KAGGLE, "train/NORMAL/more/IM-0116-0001.jpeg")
    refused(tmp_path, f"{tmp_path / 'train' / 'NORMAL' / 'more'}: a folder among films")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_class_without_films_is_refused(folder: str, tmp_path: Path) -> None:
    unpacked(tmp_path, *(image for image in KAGGLE if not image.startswith(folder)))
    (tmp_path / folder).mkdir(exist_ok=True)
    refused(tmp_path, f"{tmp_path / folder}: holds no film")


@pytest.mark.parametrize("image", ["train/NORMAL/person1_virus_6.jpeg", "test/PNEUMONIA/NORMAL-1-0001.jpeg"])
def test_a_film_whose_name_contradicts_its_folder_is_named(image: str, tmp_path: Path) -> None:
    unpacked(tmp_path, *KAGGLE, image)
    refused(tmp_path, f"{tmp_path / image}: named")
