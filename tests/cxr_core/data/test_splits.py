"""Splits are by patient, keep each finding's share, and can be drawn again."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_core.data import DataError, DataPolicy, split_by_patient
from cxr_core.data.data_sets.nih import Nih
from cxr_core.data.splits import check_copies, check_disjoint, drop_copies, split_hash

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
    return split_by_patient(films, FINDINGS, DataPolicy(image_size=32, validation=share), seed)


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


def test_a_film_without_a_split_among_films_with_one_is_refused(films: pd.DataFrame) -> None:
    torn = films.copy()
    torn.loc[7, "split"] = None
    with pytest.raises(DataError, match=r"^7\.png has no split, but other films have"):
        split(torn)


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
    drawn = split_by_patient(whole_nih.films, whole_nih.labels, DataPolicy(image_size=32), seed)
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
    with pytest.raises(DataError, match=r"^1 patient has films in two splits: 17; "):
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


def test_a_set_that_leaves_nobody_to_train_on_is_refused(films: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^the train split is empty \(1 patients in all\); there must be more"):
        split(films[films["patient"] == "17"])


def test_a_set_without_validation_films_is_refused(films: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^the val split is empty .*; call the films for training train_val"):
        split(films.assign(split="train"))


# Random splits and folds


RANDOM = DataPolicy(image_size=32, split="random", validation=0.1, test=0.1)


def test_a_random_split_holds_80_10_10_percent_of_the_patients(films: pd.DataFrame) -> None:
    """As in the published student study: drawn from all patients, whatever the official split says."""
    patients = split_by_patient(films, FINDINGS, RANDOM).groupby("patient")["split"].first()
    assert (patients.groupby(patients).size() / len(patients)).round(2).to_dict() == {
        "test": 0.1,
        "train": 0.8,
        "val": 0.1,
    }


def test_a_random_split_does_not_look_at_the_official_one(films: pd.DataFrame) -> None:
    none = split_by_patient(films.assign(split=None), FINDINGS, RANDOM)
    pd.testing.assert_frame_equal(split_by_patient(films, FINDINGS, RANDOM), none)


def test_a_set_without_an_official_split_gets_a_random_one(films: pd.DataFrame) -> None:
    policy = DataPolicy(image_size=32, split="official")
    drawn = split_by_patient(films.assign(split=None), FINDINGS, policy)
    assert set(drawn["split"]) == {"train", "val", "test"}
    assert (drawn.groupby("patient")["split"].nunique() == 1).all()


def test_a_random_split_may_do_without_a_test_split(films: pd.DataFrame) -> None:
    drawn = split_by_patient(films, FINDINGS, DataPolicy(image_size=32, split="random", test=0.0))
    assert set(drawn["split"]) == {"train", "val"}


def test_each_finding_has_its_share_of_a_random_test_split(films: pd.DataFrame) -> None:
    """Of the patients whose rarest finding it is, to within one."""
    drawn = split_by_patient(films, FINDINGS, RANDOM)
    rarest, test = rarest_finding(drawn), drawn.groupby("patient")["split"].first() == "test"
    for finding in (*FINDINGS, ""):
        assert abs((test & (rarest == finding)).sum() - 0.1 * (rarest == finding).sum()) <= 1


def folds(films: pd.DataFrame, count: int, seed: int = 0) -> list[pd.DataFrame]:
    policies = [DataPolicy(image_size=32, folds=count, fold=fold) for fold in range(count)]
    return [split_by_patient(films, FINDINGS, policy, seed) for policy in policies]


@pytest.mark.parametrize("count", [2, 5, 10])
def test_each_patient_outside_the_test_split_validates_in_one_fold(films: pd.DataFrame, count: int) -> None:
    times = sum((fold["split"] == "val").astype(int) for fold in folds(films, count))
    assert (times[films["split"] == "train_val"] == 1).all()
    assert (times[films["split"] == "test"] == 0).all()


def test_folds_keep_patients_together(films: pd.DataFrame) -> None:
    for fold in folds(films, 5):
        assert (fold.groupby("patient")["split"].nunique() == 1).all()


def test_folds_have_equal_shares_of_each_finding(films: pd.DataFrame) -> None:
    """Of the patients whose rarest finding it is, to within one."""
    for fold in folds(films, 5):
        pool = fold[fold["split"] != "test"]
        rarest, val = rarest_finding(pool), pool.groupby("patient")["split"].first() == "val"
        for finding in (*FINDINGS, ""):
            assert abs((val & (rarest == finding)).sum() - (rarest == finding).sum() / 5) <= 1


def test_folds_take_the_place_of_an_official_validation_split(films: pd.DataFrame) -> None:
    official = films.assign(split=np.where(films["patient"].astype(int) % 3 == 0, "val", "train"))
    assert (sum((fold["split"] == "val").astype(int) for fold in folds(official, 4)) == 1).all()


@given(
    patients=st.lists(st.integers(0, 12), min_size=30, max_size=60).filter(lambda drawn: len(set(drawn)) >= 8),
    labels=st.data(),
    seed=st.integers(0, 2**31),
    policy=st.sampled_from([RANDOM, DataPolicy(image_size=32, validation=0.3), DataPolicy(image_size=32, folds=3)]),
)
@settings(max_examples=60)
def test_whatever_the_films_every_patient_is_in_one_split(patients, labels, seed, policy) -> None:
    table = pd.DataFrame({"image": map(str, range(len(patients))), "patient": patients, "split": None})
    values = st.sampled_from([0.0, 1.0, np.nan])
    for finding in FINDINGS:
        drawn = labels.draw(st.lists(values, min_size=len(patients), max_size=len(patients)))
        table[finding] = np.float32(drawn)
    result = split_by_patient(table, FINDINGS, policy, seed)
    assert (result.groupby("patient")["split"].nunique() == 1).all()
    assert {"train", "val"} <= set(result["split"]) <= {"train", "val", "test"}
    pd.testing.assert_frame_equal(result.drop(columns="split"), table.drop(columns="split"))


# Identical films


@pytest.fixture
def copied() -> tuple[pd.DataFrame, pd.Series]:
    """a = d over train and test, b = e over train and val, c = f within train."""
    films = pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": list("123456"),
            "split": ["train", "train", "train", "test", "val", "train"],
        }
    )
    return films, pd.Series(list("xyzxyz"), index=list("abcdef"))


def test_identical_films_in_two_splits_are_refused_with_films_and_patients(copied) -> None:
    message = (
        r"^2 pictures are in two splits: d \(patient 4, test\) = a \(patient 1, train\); b \(patient 2, train\) = e"
    )
    with pytest.raises(DataError, match=message):
        check_copies(*copied)


def test_identical_films_within_a_split_are_allowed(copied) -> None:
    films, pixels = copied
    check_copies(films[films["image"].isin(["c", "f"])], pixels)


def test_of_identical_films_the_split_that_judges_keeps_its_own(copied) -> None:
    films, pixels = copied
    kept = drop_copies(films, pixels)
    assert kept["image"].tolist() == ["c", "d", "e", "f"]
    check_copies(kept, pixels)


def test_a_picture_in_all_three_splits_stays_in_the_test_split_only() -> None:
    films = pd.DataFrame({"image": list("abc"), "patient": list("abc"), "split": ["train", "val", "test"]})
    assert drop_copies(films, pd.Series("x", index=list("abc")))["image"].tolist() == ["c"]


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
