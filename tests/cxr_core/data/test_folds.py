"""K-fold validation of the development patients: each judges once, and the last fold is the study's own split."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import check_cv

from cxr_core.data import DataError, Films, TrainingData
from cxr_core.data.splits import parts_by_patient

LABELS = ("Mass", "Hernia")


def data_of(train: int, val: int, seed: int = 0) -> TrainingData:
    """So many patients of one to four films each; a fifth has a mass, and a tenth of all a hernia."""
    rng = np.random.default_rng(seed)
    rows = [
        {"patient": f"p{patient:04d}", "split": "train" if patient < train else "val", "Mass": ill, "Hernia": rare}
        for patient, (ill, rare) in enumerate(rng.random((train + val, 2)) < (0.2, 0.1))
        for _ in range(rng.integers(1, 5))
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=seed, ignore_index=True)
    table["image"] = [f"{row}.png" for row in table.index]
    table[list(LABELS)] = table[list(LABELS)].astype(np.float32)
    table.loc[table.index % 11 == 3, "Mass"] = np.nan
    images = np.arange(len(table) * 4, dtype=np.uint8).reshape(-1, 2, 2)

    def part(name: str) -> Films:
        mine = table[table["split"] == name]
        return Films(images, mine.index.to_numpy(), mine[list(LABELS)].to_numpy(), mine.reset_index(drop=True))

    return TrainingData(part("train"), part("val"), LABELS)


def patients(films: Films) -> set[str]:
    return set(films.table["patient"])


@settings(max_examples=30, deadline=None)
@given(folds=st.integers(2, 7), train=st.integers(12, 60), val=st.integers(1, 20), seed=st.integers(0, 99))
def test_every_patient_judges_once_and_no_patient_is_on_both_sides(folds: int, train: int, val: int, seed: int) -> None:
    data = data_of(train, val, seed)
    everyone = patients(data.train) | patients(data.val)
    parts = [data.fold(index, folds) for index in range(folds)]
    for part in parts:
        assert not patients(part.train) & patients(part.val)
        assert patients(part.train) | patients(part.val) == everyone
    judging = [patient for part in parts for patient in patients(part.val)]
    assert sorted(judging) == sorted(everyone)


def test_the_folds_are_what_scikit_learn_calls_a_cross_validation() -> None:
    """Its splitter of predefined folds, told which fold each film judges in, draws the same pairs of sets."""
    data = data_of(40, 10)
    parts = [data.fold(index, 4) for index in range(4)]
    rows = np.sort(np.concatenate([data.train.rows, data.val.rows]))
    pairs = [(np.searchsorted(rows, part.train.rows), np.searchsorted(rows, part.val.rows)) for part in parts]
    for (train, test), (learnt, judged) in zip(check_cv(pairs).split(rows), pairs, strict=True):
        assert set(train) | set(test) == set(range(len(rows)))
        assert (sorted(train), sorted(test)) == (sorted(learnt), sorted(judged))
    assert sorted(np.concatenate([judged for _, judged in pairs])) == list(range(len(rows)))


def test_the_last_fold_is_the_split_as_it_is() -> None:
    data = data_of(30, 10)
    for folds in (2, 3, 5):
        assert data.fold(folds - 1, folds) is data


def test_the_validation_patients_are_learnt_from_in_every_other_fold() -> None:
    data = data_of(30, 10)
    for index in range(4):
        assert patients(data.val) <= patients(data.fold(index, 5).train)


def test_a_film_keeps_its_pixels_targets_and_row_of_the_table() -> None:
    data = data_of(30, 10)
    one = data.fold(1, 4)
    for films in (one.train, one.val):
        assert [f"{row}.png" for row in films.rows] == films.table["image"].tolist()
        np.testing.assert_array_equal(films.targets, films.table[list(LABELS)].to_numpy(np.float32))
        assert np.array_equal(films.pixels(np.arange(len(films))), films.images[films.rows])


def test_parts_are_of_equal_size_and_each_has_its_share_of_each_finding() -> None:
    """Drawn without strata, the parts' patients with a mass, some 18, would have a standard deviation of about 4."""
    data, folds = data_of(500, 50), 6
    ill = data.train.table.groupby("patient")[list(LABELS)].max() == 1
    parts = [ill.loc[sorted(patients(data.fold(index, folds).val))] for index in range(folds - 1)]
    assert {len(part) for part in parts} == {100}
    rarest = [part["Hernia"].sum() for part in parts]
    assert max(rarest) - min(rarest) <= 1
    others = [(part["Mass"] & ~part["Hernia"]).sum() for part in parts]
    assert max(others) - min(others) <= 1


def test_the_folds_do_not_depend_on_the_order_in_which_the_films_lie() -> None:
    data = data_of(40, 10)
    order = np.random.default_rng(1).permutation(len(data.train))
    films = data.train
    mixed = Films(films.images, films.rows[order], films.targets[order], films.table.iloc[order].reset_index(drop=True))
    again = TrainingData(mixed, data.val, LABELS)
    for index in range(3):
        assert patients(again.fold(index, 4).val) == patients(data.fold(index, 4).val)


def test_another_number_of_folds_is_another_division() -> None:
    data = data_of(60, 10)
    first = [patients(data.fold(0, folds).val) for folds in (3, 4, 5)]
    assert [len(part) for part in first] == [30, 20, 15]
    assert not any(other <= one for one, other in pairwise(first))


def test_patients_who_share_a_picture_are_on_one_side_and_nobody_else_moves() -> None:
    """Three pictures of two patients each, in a chain, of four who would be in four parts."""
    data = data_of(60, 10)
    alone = parts_by_patient(data.train.table, LABELS, 4)
    chain = [alone.index[alone == part][0] for part in (3, 1, 2, 0)]
    copies = [
        {"patient": patient, "image": f"{patient} {place}", "pixels": place}
        for place, pair in enumerate(pairwise(chain))
        for patient in pair
    ]
    table = pd.concat([data.train.table.assign(pixels=data.train.table["image"]), pd.DataFrame(copies)])
    parts = parts_by_patient(table, LABELS, 4, table.set_index("image")["pixels"])
    assert parts[chain].tolist() == [0, 0, 0, 0]
    assert parts.drop(chain).to_dict() == alone.drop(chain).to_dict()


def test_identical_pictures_do_not_judge_what_is_learnt_from_them() -> None:
    data = data_of(60, 10)
    images = data.train.table["image"]
    places = np.arange(len(images))
    twins = pd.Series(np.where(places < 12, places // 2, places), index=images)
    apart = lambda one: set(one.val.table["image"].map(twins)).isdisjoint(one.train.table["image"].map(twins))  # noqa: E731
    assert not all(apart(data.fold(index, 5)) for index in range(4))
    assert all(apart(replace(data, pixels=twins).fold(index, 5)) for index in range(4))


def test_fewer_patients_than_parts_are_refused_with_the_remedy() -> None:
    data = data_of(3, 5)
    data.fold(0, 4)
    with pytest.raises(DataError, match=r"3 training patients cannot be divided into 4 parts.*objective\.folds"):
        data.fold(0, 5)


@pytest.mark.parametrize("index", [-1, 3])
def test_there_are_no_other_folds(index: int) -> None:
    with pytest.raises(ValueError, match=f"no fold {index} of 3"):
        data_of(12, 4).fold(index, 3)
