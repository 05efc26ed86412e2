"""A user's own manifest: what its columns mean, and what is said about one that cannot be used."""

import csv
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_core.data import DataError, DataName
from cxr_core.data.data_sets.csv_manifest import CsvManifest


def grey(path: Path) -> np.ndarray:
    """Put a film there and return it."""
    film = np.random.default_rng(list(path.name.encode())).integers(0, 256, (8, 8), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film).save(path)
    return film


def manifest(folder: Path, text: str, *films: str) -> str:
    """A manifest beside its films, a.png and b.png unless named."""
    for film in films or ("a.png", "b.png"):
        grey(folder / film)
    (folder / "films.csv").write_text(text)
    return str(folder / "films.csv")


def refused(path: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        CsvManifest(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


# What columns mean


def test_a_manifest_needs_film_patient_and_a_label(tmp_path: Path) -> None:
    source = CsvManifest(manifest(tmp_path, "image,patient,Mass\na.png,007,1\nb.png,8,0\n"))
    assert source.labels == ("Mass",)
    expected = {"image": ["a.png", "b.png"], "patient": ["007", "8"], "split": [None, None]}
    assert source.films[list(expected)].to_dict("list") == expected
    assert (source.films["Mass"].tolist(), source.films["Mass"].dtype) == ([1, 0], np.float32)
    assert (source.missing, source.notes, source.not_labels, source.blank) == ((), (), {}, "nan")


def test_every_column_of_0_1_uncertain_and_blanks_is_a_label(tmp_path: Path) -> None:
    text = "Mass,patient,Edema,image,Hernia\n1.0,p,-1,a.png,\n,q,0,b.png,1\n"
    source = CsvManifest(manifest(tmp_path, text))
    assert source.labels == ("Mass", "Edema", "Hernia")
    np.testing.assert_array_equal(source.films[["Mass", "Edema", "Hernia"]], [[1, -1, np.nan], [np.nan, 0, 1]])


def test_another_column_is_no_label_and_the_reason_is_kept(tmp_path: Path) -> None:
    text = "image,patient,Mass,Nodule,site,later\na.png,p,1,1,0,\nb.png,q,0,maybe,Bonn,\n"
    source = CsvManifest(manifest(tmp_path, text))
    assert source.not_labels == {
        "Nodule": "line 3 holds 'maybe', not 0, 1, -1 or nothing",
        "site": "line 3 holds 'Bonn', not 0, 1, -1 or nothing",
        "later": "all its cells are empty",
    }
    assert source.notes[0] == "column 'Nodule' is no label: line 3 holds 'maybe', not 0, 1, -1 or nothing"
    assert set(source.films.columns) == {"image", "patient", "split", "Mass"}


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train_val", "train_val", "test")])
def test_splits_are_taken_as_they_are(tmp_path: Path, splits: tuple[str, ...]) -> None:
    names = ("a.png", "b.png", "c.png")
    rows = [f"{name},{name},{split},1" for name, split in zip(names, splits, strict=True)]
    source = CsvManifest(manifest(tmp_path, "\n".join(["image,patient,split,Mass", *rows]), *names))
    assert tuple(source.films["split"]) == splits


def test_a_split_column_without_content_is_none(tmp_path: Path) -> None:
    source = CsvManifest(manifest(tmp_path, "image,patient,split,Mass\na.png,p,,1\nb.png,q,,0\n"))
    assert source.films["split"].isna().all()


def test_view_sex_and_age_may_be_told(tmp_path: Path) -> None:
    source = CsvManifest(
        manifest(tmp_path, "image,patient,view,sex,age,Mass\na.png,p,PA,female,058Y,1\nb.png,q,,,,0\n")
    )
    first, second = source.films[["view", "sex", "age"]].to_dict("records")
    assert first == {"view": "PA", "sex": "F", "age": 58}
    assert all(pd.isna(value) for value in second.values())


def test_films_lie_beside_the_manifest_or_anywhere(tmp_path: Path) -> None:
    away = tmp_path / "away" / "c.png"
    pixels = {"films/a.png": grey(tmp_path / "here" / "films" / "a.png"), str(away): grey(away)}
    rows = "".join(f"{image},p,1\n" for image in pixels)
    source = CsvManifest(manifest(tmp_path / "here", f"image,patient,Mass\n{rows}"))
    for image, film in pixels.items():
        np.testing.assert_array_equal(source.read(image), film)


def test_a_manifest_is_found_from_the_folder_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(tmp_path, "image,patient,Mass\na.png,p,1\nb.png,q,0\n")
    monkeypatch.chdir(tmp_path)
    source = DataName.parse("csv:films.csv").open()
    monkeypatch.chdir("/")
    assert source.read("a.png").shape == (8, 8)


def test_backslashes_of_windows_are_paths(tmp_path: Path) -> None:
    source = CsvManifest(manifest(tmp_path, "image,patient,Mass\nsub\\a.png,p,1\n", "sub/a.png"))
    assert source.films["image"].tolist() == ["sub/a.png"]
    assert source.read("sub/a.png").shape == (8, 8)


def test_films_that_are_not_on_disk_are_missing(tmp_path: Path) -> None:
    source = CsvManifest(manifest(tmp_path, "image,patient,Mass\na.png,p,1\nc.png,q,0\nb.png,q,0\n"))
    assert source.missing == ("c.png",)
    assert source.films["image"].tolist() == ["a.png", "b.png"]
    assert list(source.films.index) == [0, 1]


def test_a_manifest_reads_dicom_films(tmp_path: Path) -> None:
    pydicom_data = pytest.importorskip("pydicom.data")
    shutil.copy(pydicom_data.get_testdata_file("CT_small.dcm"), tmp_path / "a.dcm")
    source = CsvManifest(manifest(tmp_path, "image,patient,Mass\na.dcm,p,1\n", "unlisted.png"))
    assert source.read("a.dcm").shape == (128, 128)


def test_a_pickled_manifest_reads_the_same_films(tmp_path: Path) -> None:
    source = CsvManifest(manifest(tmp_path, "image,patient,Mass\na.png,p,1\nb.png,q,0\n"))
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read("b.png"), source.read("b.png"))


# Any manifest

NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N"), include_characters=" _-,;\"'"), min_size=1, max_size=8
)
PATIENTS = NAMES.map(str.strip).filter(bool)
VALUES = st.lists(st.sampled_from([0.0, 1.0, -1.0, np.nan]), min_size=2, max_size=2)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Films with any names and patients, and two labels in any pattern of 0, 1, -1 and blanks."""
    stems = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    images = [f"{number}{stem}.png" for number, stem in enumerate(stems)]
    labels = np.array([draw(VALUES) for _ in images])
    labels[0] = np.where(np.isnan(labels).all(axis=0), 1, labels[0])  # an empty column is no label
    return pd.DataFrame(
        {"image": images, "patient": [draw(PATIENTS) for _ in images], "A": labels[:, 0], "B": labels[:, 1]}
    )


@settings(max_examples=50)
@given(table=tables(), seed=st.integers(0, 99))
def test_a_manifest_is_read_as_it_was_written_in_any_order_of_rows(
    table: pd.DataFrame, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for image in table["image"]:
        (folder / image).touch()
    shuffled = table.sample(frac=1, random_state=seed)
    shuffled.to_csv(
        folder / "films.csv", index=False, quoting=random.Random(seed).choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
    )
    source = CsvManifest(str(folder / "films.csv"))
    films = source.films.set_index("image").loc[table["image"]].reset_index()
    assert films["patient"].tolist() == table["patient"].tolist()
    np.testing.assert_array_equal(films[["A", "B"]], table[["A", "B"]])
    assert (source.labels, source.missing) == (("A", "B"), ())
    shutil.rmtree(folder)


# Faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a table with the columns image, patient"),
        ("image,patient,Mass\n", "has a header but no rows"),
        ("film,patient,Mass\na.png,p,1\n", "column 'image' is missing; found: film, patient, Mass"),
        ("Image,patient,Mass\na.png,p,1\n", "column 'image' is missing; did you mean 'Image'?"),
        ("image,patient,Mass\na.png,,1\n", "line 2: 'patient' is empty"),
        ("image;patient;Mass\na.png;p;1\n", "is separated by semicolons; save it with commas"),
        ("image,patient,Mass\na.png,p,1\na.png,p,1\n", "a.png is listed twice, on lines 2 and 3"),
        ("image,patient,Mass\na.png,p,1\nb.png,p,1\n./a.png,p,1\n", "a.png is listed twice, on lines 2 and 4"),
        ("image,patient\na.png,p\n", "no column is a label"),
        ("image,patient,Mass\na.png,p,yes\n", "and empty cells; column 'Mass' is no label: line 2 holds 'yes'"),
        ("image,patient,split,Mass\na.png,p,train,1\nb.png,q,,1\n", "line 3: the split is empty; fill it on all"),
        (
            "image,patient,split,Mass\na.png,p,training,1\n",
            "line 2: unknown split 'training'; did you mean 'train'? ",
        ),
        (
            "image,patient,split,Mass\na.png,p,train,1\nb.png,q,train_val,1\n",
            "line 3 is in train_val, line 2 in train",
        ),
        ("image,patient,sex,Mass\na.png,p,F,1\nb.png,q,X,1\n", "line 3: sex 'X'; give F, M or nothing"),
        ("image,patient,age,Mass\na.png,p,413,1\n", "line 2: age '413'; give years up to 120"),
        ("image,patient,Mass\nc.png,p,1\n", "none of its 1 films is there; the first is looked for at"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_told_what_to_change(tmp_path: Path, text: str, message: str) -> None:
    refused(manifest(tmp_path, text), message)


def test_a_manifest_that_is_not_utf8_is_refused_by_line(tmp_path: Path) -> None:
    path = manifest(tmp_path, "")
    Path(path).write_bytes("image,patient,Mass\na.png,J\xf6rg,1\n".encode("latin-1"))
    refused(path, "line 2: not UTF-8 (byte 26 of the file)")


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    refused(str(tmp_path), "is a folder")


def test_a_manifest_that_is_not_there_is_told_what_csv_takes(tmp_path: Path) -> None:
    refused(
        str(tmp_path / "films.csv"), "no such file; csv: takes the path of a table with the columns image and patient"
    )
