"""Splits are by patient, keep each finding's share, and can be drawn again."""

import numpy as np
import pandas as pd
import pytest

from cxr_core.data import DataError, split_by_patient
from cxr_core.data.nih import Nih
from cxr_core.data.splits import check_disjoint, split_hash

FINDINGS = ("Effusion", "Mass", "Hernia")


@pytest.fixture(scope="module")
def films() -> pd.DataFrame:
    """3,000 films of 1,000 patients: Effusion on every second patient's, Mass on 5 %, Hernia on 2 % of patients'."""
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(0, 1000, 3000))
    prone = rng.random((1000, 3)) < (0.5, 0.05, 0.02)
    table = pd.DataFrame({"image": [f"{row}.png" for row in range(3000)], "patient": patients.astype(str)})
    table[list(FINDINGS)] = (prone[patients] & (rng.random((3000, 3)) < 0.6)).astype(np.float32)
    table["split"] = np.where(patients < 800, "train_val", "test")
    return table


def split(films: pd.DataFrame, share: float = 0.2, seed: int = 0) -> pd.DataFrame:
    return split_by_patient(films, FINDINGS, share, seed)


def rarest_finding(films: pd.DataFrame) -> pd.Series:
    """Of each patient, among the findings on any of the films; '' for the healthy."""
    positive = films.groupby("patient")[list(FINDINGS)].max() == 1
    by_rarity = positive.sum().sort_values().index
    return positive.apply(lambda row: next((finding for finding in by_rarity if row[finding]), ""), axis=1)


def test_a_patient_is_never_in_two_splits(films: pd.DataFrame) -> None:
    for seed in range(5):
        assert (split(films, seed=seed).groupby("patient")["split"].nunique() == 1).all()


def test_the_official_test_split_is_kept(films: pd.DataFrame) -> None:
    drawn = split(films)
    pd.testing.assert_series_equal(drawn["split"] == "test", films["split"] == "test")
    assert set(drawn["split"]) == {"train", "val", "test"}


def test_official_train_and_val_splits_are_kept(films: pd.DataFrame) -> None:
    official = films.assign(split=np.where(films["patient"].astype(int) % 3 == 0, "val", "train"))
    pd.testing.assert_frame_equal(split(official), official)


def test_the_table_given_is_left_alone(films: pd.DataFrame) -> None:
    before = films.copy()
    split(films)
    pd.testing.assert_frame_equal(films, before)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_validation_has_its_share_of_the_patients(films: pd.DataFrame, share: float) -> None:
    drawn = split(films, share)
    pool = drawn[drawn["split"] != "test"]
    in_val = pool.loc[pool["split"] == "val", "patient"].nunique()
    assert in_val == round(share * pool["patient"].nunique())


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_validation_has_its_share_of_each_findings_patients(films: pd.DataFrame, share: float, seed: int) -> None:
    """Of those whose rarest finding it is: to within one patient, whatever the seed."""
    drawn = split(films, share, seed)
    pool = drawn[drawn["split"] != "test"]
    rarest, val = rarest_finding(pool), pool.groupby("patient")["split"].first() == "val"
    for finding in (*FINDINGS, ""):
        patients = int((rarest == finding).sum())
        assert patients >= 8
        assert abs((val & (rarest == finding)).sum() - val.mean() * patients) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_validation_has_its_share_of_each_of_the_14_findings_films(whole_nih: Nih, seed: int) -> None:
    """10 % to within 3 points, which is one sigma for the 141 films of Hernia if films were drawn by chance."""
    drawn = split_by_patient(whole_nih.films, whole_nih.labels, 0.1, seed)
    pool = drawn.loc[drawn["split"] != "test", ["split", *whole_nih.labels]]
    share = pool[pool["split"] == "val"].sum(numeric_only=True) / pool.sum(numeric_only=True)
    assert len(share) == 14
    assert (share - 0.1).abs().max() < 0.03


def test_the_same_seed_draws_the_same_split(films: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(split(films, seed=3), split(films, seed=3))


def test_another_seed_draws_another_split(films: pd.DataFrame) -> None:
    assert not split(films, seed=3)["split"].equals(split(films, seed=4)["split"])


def test_the_split_does_not_depend_on_the_order_of_rows(films: pd.DataFrame) -> None:
    mixed = split(films.sample(frac=1, random_state=0)).sort_index()
    pd.testing.assert_frame_equal(mixed, split(films))


def test_a_film_that_is_not_labelled_belongs_to_its_patient(films: pd.DataFrame) -> None:
    unlabelled = films.copy()
    unlabelled.loc[::3, list(FINDINGS)] = np.nan
    drawn = split(unlabelled)
    assert (drawn.groupby("patient")["split"].nunique() == 1).all()
    assert set(drawn["split"]) == {"train", "val", "test"}


def test_a_patient_in_two_official_splits_is_refused_by_name(films: pd.DataFrame) -> None:
    leaking = films.copy()
    leaking.loc[leaking.index[leaking["patient"] == "17"][0], "split"] = "test"
    with pytest.raises(DataError, match=r"^1 patients have films in two splits: 17; "):
        split(leaking)


def test_many_leaking_patients_are_counted_and_some_named(films: pd.DataFrame) -> None:
    leaking = films.assign(split=np.where(np.arange(len(films)) % 2, "train", "val"))
    both = (leaking.groupby("patient")["split"].nunique() > 1).sum()
    with pytest.raises(DataError, match=rf"^{both} patients have films in two splits: (\d+, ){{4}}\d+ \.\.\.;"):
        check_disjoint(leaking)


def test_a_film_of_nobody_is_refused_by_name(films: pd.DataFrame) -> None:
    """Nobody could say whether its patient is in another split, too."""
    anonymous = films.copy()
    anonymous.loc[4, "patient"] = np.nan
    with pytest.raises(DataError, match=r"4\.png"):
        split(anonymous)


def test_the_smallest_share_is_one_patient(films: pd.DataFrame) -> None:
    drawn = split(films, 1e-6)
    assert drawn.loc[drawn["split"] == "val", "patient"].nunique() == 1


def test_a_share_that_leaves_nobody_to_train_on_is_refused(films: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^the train split is empty"):
        split(films, 1.0)


def test_a_set_without_validation_films_is_refused(films: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^the val split is empty"):
        split(films.assign(split="train"))


# The fingerprint


def test_the_hash_does_not_depend_on_the_order_of_rows(films: pd.DataFrame) -> None:
    assert split_hash(films.sample(frac=1, random_state=0)) == split_hash(films)


def test_the_hash_does_not_depend_on_the_labels(films: pd.DataFrame) -> None:
    assert split_hash(films.assign(Mass=1.0)) == split_hash(films)


@pytest.mark.parametrize("column", ["image", "patient", "split"])
def test_the_hash_changes_when_one_film_moves(films: pd.DataFrame, column: str) -> None:
    moved = films.copy()
    moved.loc[5, column] = "else"
    assert split_hash(moved) != split_hash(films)
