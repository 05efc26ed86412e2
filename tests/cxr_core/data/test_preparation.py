"""From a name to films: what is left out is counted, leaks are refused, the test films lie apart."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_core.data import DataError, DataName, DataPolicy, TrainingData, open_cache, prepare
from cxr_core.data.splits import check_disjoint
from cxr_core.labels import NO_FINDING, Task

POLICY = DataPolicy(image_size=16, validation=0.3)
MASS = Task("binary", ("Mass",))


def name(folder: Path) -> DataName:
    return DataName("nih", str(folder))


def film(folder: Path, image: str) -> Path:
    return folder / "images_001" / "images" / image


@pytest.fixture
def mini(real_data: Path) -> DataName:
    return DataName("nih", str(real_data / "nih_mini"))


# What is found


def test_real_films_are_counted_as_their_tables_say(mini: DataName) -> None:
    prepared = prepare(mini, DataPolicy(image_size=32, validation=0.1))
    table = pd.read_csv(Path(mini.path) / "Data_Entry_2017_v2020.csv")
    facts = prepared.facts
    assert sum(facts["films"].values()) == len(table) == 1000
    assert facts["films"]["test"] == 153
    assert prepared.films["patient"].nunique() == table["Patient ID"].nunique() == 682
    for label in prepared.task.labels:
        positives = sum(part["positive"] for part in facts["labels"][label].values())
        assert positives == table["Finding Labels"].str.split("|").map(lambda found, label=label: label in found).sum()
    assert (prepared.films[NO_FINDING] == 1).sum() == (table["Finding Labels"] == "No Finding").sum()
    check_disjoint(prepared.films)


def test_every_film_and_no_other_is_in_the_cache_of_its_part(mini: DataName) -> None:
    prepared = prepare(mini, DataPolicy(image_size=32))
    for cache, rows in (
        (prepared.cache, prepared.development),
        (prepared.test_cache, prepared.films[prepared.films["split"] == "test"]),
    ):
        assert sorted(open_cache(cache)[1]["image"]) == sorted(rows["image"])


def test_what_is_prepared_can_be_trained_on(mini: DataName) -> None:
    prepared = prepare(mini, DataPolicy(image_size=32))
    data = TrainingData.open(prepared.cache, prepared.development, prepared.task.labels)
    assert len(data.train) + len(data.val) == 847
    assert not {*data.train.table["patient"], *data.val.table["patient"]} & {
        *prepared.films.loc[prepared.films["split"] == "test", "patient"]
    }


def test_prevalence_is_of_the_films_whose_label_is_known(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, Mass=[1, 0, np.nan, np.nan] * 10, Edema=[0, 1] * 20)
    counts = prepare(manifest, DataPolicy(image_size=8, split="random", test=0.0)).facts["labels"]["Mass"]
    assert sum(part["positive"] for part in counts.values()) == 10
    assert sum(part["labelled"] for part in counts.values()) == 20
    assert counts["train"]["prevalence"] == counts["train"]["positive"] / counts["train"]["labelled"]


def test_another_seed_draws_another_validation_split_from_the_same_pixels(nih_folder: Path) -> None:
    one, two = (prepare(name(nih_folder), POLICY, MASS, seed) for seed in (0, 3))
    assert one.cache == two.cache
    assert one.facts["split_hash"] != two.facts["split_hash"]
    assert one.facts["split_hash"] == prepare(name(nih_folder), POLICY, MASS).facts["split_hash"]


# Tasks and views


def test_films_that_a_task_does_not_count_are_not_even_read(mini: DataName) -> None:
    """Cardiomegaly against healthy films: films with other findings have no target."""
    task = Task("binary", ("Cardiomegaly",), "no_finding")
    films = prepare(mini, DataPolicy(image_size=32), task).films
    assert len(films) < 1000
    assert ((films["Cardiomegaly"] == 1) != (films[NO_FINDING] == 1)).all()


def test_no_finding_can_be_predicted_like_any_other_label(mini: DataName) -> None:
    prepared = prepare(mini, DataPolicy(image_size=32), Task("binary", (NO_FINDING,)))
    assert prepared.facts["labels"][NO_FINDING]["train"]["positive"] > 0


def test_only_the_views_asked_for_are_kept(mini: DataName) -> None:
    assert set(prepare(mini, DataPolicy(image_size=32, views=("PA",))).films["view"]) == {"PA"}


@pytest.mark.parametrize(
    ("policy", "task", "message"),
    [
        (DataPolicy(image_size=16, views=("LL",)), MASS, r"no film has the view 'LL'; its views are PA\. Set data\.v"),
        (POLICY, Task("binary", ("Scoliosis",)), r"the label 'Scoliosis' is not in this data set; it has Atelectasis"),
        (POLICY, Task("binary", ("Hernia",)), r"in the train split no label has both positives and negatives"),
        (DataPolicy(image_size=16, folds=9, fold=8), MASS, r"^--data nih:.*: the val split is empty"),
    ],
    ids=["view", "label", "no positives", "more folds than patients"],
)
def test_a_wish_that_the_data_cannot_meet_is_refused(nih_folder: Path, policy, task, message) -> None:
    with pytest.raises(DataError, match=message):
        prepare(name(nih_folder), policy, task)


def test_a_label_without_positives_is_warned_of(nih_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepare(name(nih_folder), POLICY, Task("multilabel", ("Mass", "Hernia")))
    assert "Hernia: 0 positives of" in caplog.text
    assert "Mass" not in caplog.text


# Missing films


def test_films_missing_on_disk_are_refused_above_a_share(nih_folder: Path) -> None:
    film(nih_folder, "00000001_000.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 16 films listed are not on disk \(the first is 00000001_000\.png\)"):
        prepare(name(nih_folder), POLICY, MASS)


def test_missing_films_can_be_allowed_and_are_counted(nih_folder: Path) -> None:
    film(nih_folder, "00000001_000.png").unlink()
    prepared = prepare(name(nih_folder), DataPolicy(image_size=16, validation=0.3, allow_missing=True), MASS)
    assert prepared.missing == ("00000001_000.png",)
    assert len(prepared.films) == 15
    assert any("not on disk" in note for note in prepared.notes)


# Leaks


def copy_film(folder: Path, of: str, onto: str) -> None:
    shutil.copyfile(film(folder, of), film(folder, onto))


def test_an_identical_film_in_the_test_split_is_refused_with_the_patients(nih_folder: Path) -> None:
    copy_film(nih_folder, of="00000001_000.png", onto="00000008_001.png")
    with pytest.raises(
        DataError, match=r"1 picture is in two splits: 00000008_001\.png \(patient 8, test\) = 00000001_0"
    ):
        prepare(name(nih_folder), POLICY, MASS)


def test_identical_films_can_be_dropped_from_the_split_that_learns(nih_folder: Path) -> None:
    copy_film(nih_folder, of="00000001_000.png", onto="00000008_001.png")
    prepared = prepare(name(nih_folder), DataPolicy(image_size=16, validation=0.3, duplicates="drop"), MASS)
    assert "00000001_000.png" not in set(prepared.films["image"])
    assert "00000008_001.png" in set(prepared.films["image"])
    assert prepared.copies == 1


def test_an_identical_film_saved_in_another_format_is_found(nih_folder: Path) -> None:
    with Image.open(film(nih_folder, "00000001_000.png")) as picture:
        picture.convert("RGBA").save(film(nih_folder, "00000008_001.png"))
    with pytest.raises(DataError, match="1 picture is in two splits"):
        prepare(name(nih_folder), POLICY, MASS)


def test_copies_in_a_published_set_without_patients_are_left_out_and_told(real_data: Path) -> None:
    """PneumoniaMNIST: 8 pictures of its validation split lie in its training split, too."""
    prepared = prepare(DataName("medmnist", str(real_data / "pneumoniamnist.npz")), DataPolicy(image_size=28))
    with np.load(real_data / "pneumoniamnist.npz") as arrays:
        val = {picture.tobytes() for picture in arrays["val_images"]}
        twins = sum(picture.tobytes() in val for picture in arrays["train_images"])
    assert prepared.facts["films"] == {"train": 4708 - twins, "val": 524, "test": 624}
    assert prepared.copies == twins > 0
    assert any(f"{twins} films have an identical film in another split" in note for note in prepared.notes)
    assert any("the data set names no patients" in note for note in prepared.notes)


# An own manifest


def write_manifest(folder: Path, **columns: list[float]) -> DataName:
    """Films of noise, one a patient, and a manifest with these labels."""
    count, rng = len(next(iter(columns.values()))), np.random.default_rng(0)
    for row in range(count):
        Image.fromarray(rng.integers(0, 256, (10, 12), dtype=np.uint8)).save(folder / f"{row}.png")
    table = pd.DataFrame(
        {"image": [f"{row}.png" for row in range(count)], "patient": [f"p{row}" for row in range(count)]}
    )
    table.assign(**columns).to_csv(folder / "films.csv", index=False)
    return DataName("csv", str(folder / "films.csv"))


@pytest.mark.parametrize(("uncertain", "positives"), [("ignore", 10), ("zeros", 10), ("ones", 20)])
def test_uncertain_labels_count_as_the_policy_says(tmp_path: Path, uncertain: str, positives: int) -> None:
    manifest = write_manifest(tmp_path, Mass=[1, 0, -1, 0] * 10)
    prepared = prepare(manifest, DataPolicy(image_size=8, split="random", uncertain=uncertain))
    assert (prepared.films["Mass"] == 1).sum() == positives
    assert len(prepared.films) == (30 if uncertain == "ignore" else 40)


def test_an_unreadable_film_is_listed_with_its_reason(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, Mass=[1, 0] * 100)
    (tmp_path / "7.png").write_bytes(b"")
    prepared = prepare(manifest, DataPolicy(image_size=8, split="random", test=0.0))
    ((image, reason),) = prepared.unreadable[["image", "reason"]].to_numpy().tolist()
    assert image == "7.png"
    assert reason
    assert "7.png" not in set(prepared.films["image"])
