"""ChestX-ray14 in its published layout: real films, the whole tables, and folders with faults."""

import csv
import pickle
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_core.data import DataError
from cxr_core.data.cache.resize import resize
from cxr_core.data.data_sets.nih import Nih
from cxr_core.labels import CHESTXRAY14

LABELS = list(CHESTXRAY14)
TABLE = "Data_Entry_2017_v2020.csv"


@pytest.fixture(scope="module")
def mini(real_data: Path) -> Nih:
    return Nih(str(real_data / "nih_mini"))


@pytest.fixture(scope="module")
def published(real_data: Path) -> Nih:
    """96 films as published."""
    return Nih(str(real_data / "nih_1024"))


def edit(path: Path, old: str, new: str, count: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Nih(str(folder))


# A thousand real films


def test_the_mini_set_has_its_1000_films_of_682_patients(mini: Nih) -> None:
    assert (len(mini.films), mini.films["patient"].nunique(), mini.missing) == (1000, 682, ())


def test_the_mini_set_is_split_by_its_lists(mini: Nih) -> None:
    assert mini.films["split"].value_counts().to_dict() == {"train_val": 847, "test": 153}


def test_the_mini_set_has_49_boxes(mini: Nih) -> None:
    assert len(mini.boxes) == 49
    assert mini.boxes["image"].isin(mini.films["image"]).all()


@pytest.mark.parametrize("folder", ["nih_mini", "nih_1024"])
def test_a_row_says_what_the_published_table_says(folder: str, real_data: Path) -> None:
    films = Nih(str(real_data / folder)).films.set_index("image")
    with (real_data / folder / TABLE).open(newline="") as table:
        for row in csv.DictReader(table):
            film, findings = films.loc[row["Image Index"]], set(row["Finding Labels"].split("|"))
            assert {label for label in LABELS if film[label] == 1} == findings - {"No Finding"}
            assert (film["patient"], film["view"]) == (row["Patient ID"], row["View Position"])
            assert (film["sex"], film["age"]) == (row["Patient Gender"], int(row["Patient Age"]))


def test_a_film_of_the_mini_set_is_256_px_wide(mini: Nih) -> None:
    assert mini.read(mini.films["image"].iloc[0]).shape == (256, 256)


@pytest.mark.parametrize("folder", ["nih_mini", "nih_1024"])
def test_boxes_lie_on_the_film_as_it_is_read(folder: str, real_data: Path) -> None:
    source = Nih(str(real_data / folder))
    for box in source.boxes.itertuples():
        height, width = source.read(box.image).shape
        assert 0 <= box.x < box.x + box.width <= width
        assert 0 <= box.y < box.y + box.height <= height


# 96 films as published


def test_films_are_found_in_all_numbered_folders(published: Nih, real_data: Path) -> None:
    shares = [len(list((real_data / "nih_1024" / f"images_00{n}" / "images").iterdir())) for n in (1, 2)]
    assert len(published.films) == sum(shares) == 96
    assert min(shares) > 0


def test_every_film_as_published_is_read_as_1024_px_of_grey(published: Nih) -> None:
    for image in published.films["image"]:
        film = published.read(image)
        assert (film.shape, film.dtype) == ((1024, 1024), np.uint8)
        assert film.std() > 10


def test_the_four_films_with_four_channels_are_read_as_their_grey(published: Nih, real_data: Path) -> None:
    paths = list((real_data / "nih_1024").glob("images_*/images/*.png"))
    channels = {path: np.asarray(Image.open(path)) for path in paths if Image.open(path).mode == "RGBA"}
    assert len(channels) == 4
    for path, film in channels.items():
        np.testing.assert_array_equal(published.read(path.name), film[..., 0])


def test_a_film_is_the_same_in_both_sizes(published: Nih, mini: Nih) -> None:
    """Not turned, not mirrored, not another patient's: within 2 grey levels on average after reduction."""
    for image in published.films["image"][::12]:
        reduced, small = resize(published.read(image), 256).astype(float), mini.read(image).astype(float)
        assert np.abs(reduced - small).mean() < 2
        assert np.abs(reduced[:, ::-1] - small).mean() > 8


# The tables of the whole set: Wang et al. 2017, version 2020


def test_the_whole_set_has_112120_films_of_30805_patients(whole_nih: Nih) -> None:
    assert (len(whole_nih.films), whole_nih.films["patient"].nunique()) == (112_120, 30_805)


def test_the_official_splits_have_their_films_and_patients(whole_nih: Nih) -> None:
    splits = whole_nih.films.groupby("split")["patient"]
    assert splits.size().to_dict() == {"train_val": 86_524, "test": 25_596}
    assert splits.nunique().to_dict() == {"train_val": 28_008, "test": 2_797}


def test_the_official_splits_share_no_patient(whole_nih: Nih) -> None:
    assert (whole_nih.films.groupby("patient")["split"].nunique() == 1).all()


def test_each_finding_is_as_frequent_as_published(whole_nih: Nih) -> None:
    assert whole_nih.films[LABELS].sum().astype(int).to_dict() == {
        "Atelectasis": 11_559,
        "Cardiomegaly": 2_776,
        "Effusion": 13_317,
        "Infiltration": 19_894,
        "Mass": 5_782,
        "Nodule": 6_331,
        "Pneumonia": 1_431,
        "Pneumothorax": 5_302,
        "Consolidation": 4_667,
        "Edema": 2_303,
        "Emphysema": 2_516,
        "Fibrosis": 1_686,
        "Pleural_Thickening": 3_385,
        "Hernia": 227,
    }


def test_60361_films_have_no_finding_and_20796_have_several(whole_nih: Nih) -> None:
    findings = whole_nih.films[LABELS].sum(axis=1)
    assert ((findings == 0).sum(), (findings > 1).sum()) == (60_361, 20_796)


def test_the_positive_weights_of_hernia_and_pneumonia_are_the_known_ones(whole_nih: Nih) -> None:
    positives = whole_nih.films[["Hernia", "Pneumonia"]].sum()
    weights = (len(whole_nih.films) - positives) / positives
    assert weights["Hernia"] == pytest.approx(492.9, abs=0.1)
    assert weights["Pneumonia"] == pytest.approx(77.35, abs=0.01)


def test_the_pooled_positives_of_train_val_give_the_batch_weights_of_the_paper(whole_nih: Nih) -> None:
    targets = whole_nih.films.loc[whole_nih.films["split"] == "train_val", LABELS].to_numpy()
    assert (targets.size, targets.sum(dtype=int)) == (1_211_336, 53_970)
    assert targets.size / targets.sum(dtype=int) == pytest.approx(22.4, abs=0.05)
    assert targets.size / (targets == 0).sum() == pytest.approx(1.047, abs=0.0005)


def test_calling_every_test_film_healthy_is_right_in_92_per_cent(whole_nih: Nih) -> None:
    targets = whole_nih.films.loc[whole_nih.films["split"] == "test", LABELS].to_numpy()
    assert (targets == 0).mean() == pytest.approx(0.924, abs=0.0005)


def test_the_official_test_split_is_a_shifted_one(whole_nih: Nih) -> None:
    splits = whole_nih.films.groupby("split")
    lying = splits["view"].agg(lambda views: (views == "AP").mean())
    assert lying.to_dict() == pytest.approx({"train_val": 0.35, "test": 0.57}, abs=0.005)
    films_each = splits.size() / splits["patient"].nunique()
    assert films_each.to_dict() == pytest.approx({"train_val": 3.1, "test": 9.2}, abs=0.06)


def test_all_984_boxes_lie_on_880_films_of_the_test_split(whole_nih: Nih) -> None:
    boxes = whole_nih.boxes
    assert (len(boxes), boxes["image"].nunique()) == (984, 880)
    assert boxes["image"].isin(whole_nih.films.loc[whole_nih.films["split"] == "test", "image"]).all()


def test_the_box_label_infiltrate_is_infiltration(whole_nih: Nih, real_data: Path) -> None:
    spelt = (real_data / "nih_tables" / "BBox_List_2017.csv").read_text()
    assert spelt.count(",Infiltrate,") == 123
    assert whole_nih.boxes["label"].value_counts().to_dict() == {
        "Atelectasis": 180,
        "Effusion": 153,
        "Cardiomegaly": 146,
        "Infiltration": 123,
        "Pneumonia": 120,
        "Pneumothorax": 98,
        "Mass": 85,
        "Nodule": 79,
    }


# Other releases and layouts


def test_the_first_release_is_read_the_same(nih_folder: Path) -> None:
    latest = Nih(str(nih_folder)).films
    (nih_folder / TABLE).rename(nih_folder / "Data_Entry_2017.csv")
    pd.testing.assert_frame_equal(Nih(str(nih_folder)).films, latest)


def test_patient_sex_is_patient_gender(nih_folder: Path) -> None:
    latest = Nih(str(nih_folder)).films
    edit(nih_folder / TABLE, "Patient Gender", "Patient Sex")
    pd.testing.assert_frame_equal(Nih(str(nih_folder)).films, latest)


@pytest.mark.parametrize(("written", "age"), [("041Y", 41), ("006M", 0.5), ("000D", 0), ("41", 41)])
def test_an_age_may_carry_its_unit(nih_folder: Path, written: str, age: float) -> None:
    edit(nih_folder / TABLE, ",41,", f",{written},")
    ages = Nih(str(nih_folder)).films.groupby("patient")["age"].first()
    assert (ages["1"], ages["2"]) == (age, 42)


def test_an_age_that_nobody_has_is_unknown_and_noted(nih_folder: Path) -> None:
    """The first release holds a patient of 413 years."""
    edit(nih_folder / TABLE, ",42,", ",413Y,")
    source = Nih(str(nih_folder))
    assert source.films.loc[source.films["patient"] == "2", "age"].isna().all()
    assert source.notes == (f"{TABLE}: 2 of 16 ages count as unknown; the first is '413Y' on line 4",)


def test_a_trailing_empty_column_does_not_matter(nih_folder: Path) -> None:
    """Some copies of the first release have one."""
    latest = Nih(str(nih_folder)).films
    edit(nih_folder / TABLE, "\n", ",\n")
    pd.testing.assert_frame_equal(Nih(str(nih_folder)).films, latest)


def test_films_may_lie_in_one_folder(nih_folder: Path) -> None:
    (nih_folder / "images_001" / "images").rename(nih_folder / "images")
    assert len(Nih(str(nih_folder)).films) == 16


def test_a_film_in_two_folders_is_read_from_the_first(nih_folder: Path) -> None:
    first = nih_folder / "images_001" / "images"
    before = Nih(str(nih_folder)).read("00000001_000.png")
    (nih_folder / "images_002" / "images").mkdir(parents=True)
    Image.new("L", (32, 32)).save(nih_folder / "images_002" / "images" / "00000001_000.png")
    source = Nih(str(nih_folder))
    np.testing.assert_array_equal(source.read("00000001_000.png"), before)
    assert source.paths["00000001_000.png"] == str(first.resolve() / "00000001_000.png")
    assert source.notes == (
        "films that lie in two folders: 1, first 00000001_000.png; images_001/images/00000001_000.png is read",
    )


def test_a_folder_of_films_may_be_a_link(nih_folder: Path, tmp_path: Path) -> None:
    shutil.move(nih_folder / "images_001", tmp_path / "elsewhere")
    (nih_folder / "images_001").symlink_to(tmp_path / "elsewhere")
    assert len(Nih(str(nih_folder)).films) == 16


def test_without_the_official_lists_there_is_no_split_and_a_note(nih_folder: Path) -> None:
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih_folder / name).unlink()
    source = Nih(str(nih_folder))
    assert source.films["split"].isna().all()
    assert source.notes == ("the official lists are missing; test and validation films are drawn by patient",)


def test_films_of_the_lists_that_the_table_lacks_are_noted(nih_folder: Path) -> None:
    rows = (nih_folder / TABLE).read_text().splitlines()
    (nih_folder / TABLE).write_text("\n".join(rows[:14]) + "\n")
    source = Nih(str(nih_folder))
    assert len(source.films) == 13
    (note,) = source.notes
    assert note.startswith(f"{TABLE} lacks 3 of the 16 films in the official lists, first 00000007_001.png; ")


def test_the_order_of_rows_does_not_matter(nih_folder: Path) -> None:
    films = Nih(str(nih_folder)).films
    header, *rows = (nih_folder / TABLE).read_text().splitlines()
    random.Random(0).shuffle(rows)
    (nih_folder / TABLE).write_text("\n".join([header, *rows]) + "\n")
    again = Nih(str(nih_folder)).films
    assert list(again["image"]) != list(films["image"])
    pd.testing.assert_frame_equal(again.sort_values("image", ignore_index=True), films)


def boxes_of(folder: Path, *rows: str) -> Nih:
    """The folder's films with a box list as published, whose header ends in empty columns."""
    (folder / "BBox_List_2017.csv").write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *rows]) + "\n")
    return Nih(str(folder))


def test_boxes_are_scaled_to_the_copy_along_both_sides(nih_folder: Path) -> None:
    Image.new("L", (512, 256)).save(nih_folder / "images_001/images/00000007_000.png")
    (box,) = boxes_of(nih_folder, "00000007_000.png,Infiltrate,100,200,300,400,,,").boxes.to_dict("records")
    assert box == {
        "image": "00000007_000.png",
        "label": "Infiltration",
        "x": 50,
        "y": 50,
        "width": 150,
        "height": 100,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("00000007_000.png,Infiltrates,1,2,3,4", "line 2: unknown finding 'Infiltrates'"),
        ("00000007_000.png,Mass,1,two,3,4", "line 2: y is 'two'; a number is expected"),
        ("00000007_000.png,Mass,1,inf,3,4", "line 2: y is 'inf'"),
        ("00000007_000.png,Mass,1,2,3", "line 2: 5 cells instead of 6"),
        ("00000007_000.png,Mass,1,2,3,", r"line 2: 'h\]' is empty"),
    ],
)
def test_a_malformed_box_is_told_when_boxes_are_asked_for(nih_folder: Path, row: str, message: str) -> None:
    source = boxes_of(nih_folder, row)
    with pytest.raises(DataError, match=f"BBox_List_2017.csv: {message}"):
        _ = source.boxes


def test_a_source_whose_boxes_were_asked_for_can_be_pickled(nih_folder: Path) -> None:
    source = boxes_of(nih_folder, "00000007_000.png,Mass,1,2,3,4")
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(source)).boxes, source.boxes)


def test_boxes_may_be_absent(nih_folder: Path) -> None:
    assert Nih(str(nih_folder)).boxes is None


def test_a_stamp_changes_with_its_film_only(nih_folder: Path) -> None:
    source = Nih(str(nih_folder))
    first, second = source.films["image"][:2]
    before = source.stamp(first), source.stamp(second)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(nih_folder / "images_001" / "images" / first)
    assert source.stamp(first) != before[0]
    assert source.stamp(second) == before[1]


# Faults


def test_a_folder_without_table_is_refused(nih_folder: Path) -> None:
    (nih_folder / TABLE).unlink()
    refused(nih_folder, f"holds neither {TABLE} nor Data_Entry_2017.csv")


@pytest.mark.parametrize("column", ["Finding Labels", "Patient ID", "View Position", "Patient Gender"])
def test_a_missing_column_is_named(nih_folder: Path, column: str) -> None:
    edit(nih_folder / TABLE, column, "Something Else")
    refused(nih_folder, f"{TABLE}: column '{column}' is missing; .*found: .*Something Else")


@pytest.mark.parametrize("name", ["train_val_list.txt", "test_list.txt"])
def test_one_list_without_the_other_is_refused(nih_folder: Path, name: str) -> None:
    (nih_folder / name).unlink()
    refused(nih_folder, f"{name}: the official list is missing")


def test_a_film_in_neither_list_is_named(nih_folder: Path) -> None:
    edit(nih_folder / "test_list.txt", "00000008_001.png\n", "")
    refused(nih_folder, rf"{TABLE}: line 17: 00000008_001\.png is in neither official list")


def test_a_film_in_both_lists_is_named(nih_folder: Path) -> None:
    edit(nih_folder / "test_list.txt", "00000008_001.png\n", "00000008_001.png\n00000001_001.png\n")
    refused(nih_folder, r"00000001_001\.png is in both official lists")


def test_a_list_that_is_not_text_is_named(nih_folder: Path) -> None:
    (nih_folder / "test_list.txt").write_bytes(b"\x1f\x8b\x08\x00")
    refused(nih_folder, r"test_list\.txt: line 1: not UTF-8")


def test_an_unknown_finding_is_named(nih_folder: Path) -> None:
    edit(nih_folder / TABLE, "Effusion", "Effusions", 1)
    refused(nih_folder, f"{TABLE}: line 2: unknown finding 'Effusions'; known: Atelectasis, ")


def test_films_that_are_not_on_disk_are_missing(nih_folder: Path) -> None:
    for name in ("00000003_001.png", "00000001_000.png"):
        (nih_folder / "images_001/images" / name).unlink()
    source = Nih(str(nih_folder))
    assert source.missing == ("00000001_000.png", "00000003_001.png")
    assert not source.films["image"].isin(source.missing).any()
    assert list(source.films.index) == list(range(14))


def test_a_folder_without_any_film_is_refused(nih_folder: Path) -> None:
    shutil.rmtree(nih_folder / "images_001")
    refused(nih_folder, r"none of the 16 films .* \(the first is 00000001_000\.png\); unpack the archives")


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n\xff\xfe" * 9, b"<html>\n<a,b,c>\n</html>\n"], ids=["empty", "film", "web page"]
)
def test_a_table_that_is_none_is_refused_by_name(nih_folder: Path, content: bytes) -> None:
    (nih_folder / TABLE).write_bytes(content)
    refused(nih_folder, re.escape(f"{nih_folder / TABLE}: "))


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("Patient ID", "00000003_001.png,Effusion,1,3,", "00000003_001.png,Effusion,1,,"),
        ("Finding Labels", "00000003_000.png,No Finding,", "00000003_000.png,,"),
    ],
)
def test_a_row_without_patient_or_findings_is_refused(nih_folder: Path, column: str, old: str, new: str) -> None:
    """Its film would be in no patient's split, or be taken for a healthy one."""
    edit(nih_folder / TABLE, old, new)
    refused(nih_folder, f"{TABLE}: line [67]: '{column}' is empty")


def test_a_film_listed_twice_is_refused_by_name(nih_folder: Path) -> None:
    table = nih_folder / TABLE
    table.write_text(table.read_text() + table.read_text().splitlines()[3] + "\n")
    refused(nih_folder, rf"{TABLE}: 00000002_000\.png is listed twice, on lines 4 and 18; keep one")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_a_table_cut_off_anywhere_is_a_part_with_a_note_or_refused_by_name(
    nih_folder: Path, data: st.DataObject
) -> None:
    table, whole = nih_folder / TABLE, nih_folder / "whole"
    if not whole.exists():
        shutil.copy(table, whole)
    content = whole.read_bytes()
    table.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    listed = [row.split(",")[0] for row in whole.read_text().splitlines()[1:]]
    complaint = source = None
    try:
        source = Nih(str(nih_folder))
    except DataError as fault:
        complaint = str(fault)
    if source is None:
        assert complaint.startswith(f"{table}: ")
    else:
        assert list(source.films["image"]) == listed[: len(source.films)]
        assert len(source.notes) == (len(source.films) < len(listed))
