"""Label sets, and what uncertain, blank and other negatives count as."""

import numpy as np
import pandas as pd
import pytest

from cxr_core.labels import (
    CHESTXRAY14,
    LABEL_SETS,
    NO_FINDING,
    Task,
    add_no_finding,
    mask_for_task,
    resolve_labels,
)

NAN = float("nan")


def table(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({name: np.float32(values) for name, values in columns.items()})


def test_chestxray14_has_the_14_published_findings_in_their_order() -> None:
    assert len(CHESTXRAY14) == 14
    assert (CHESTXRAY14[0], CHESTXRAY14[-1]) == ("Atelectasis", "Hernia")


@pytest.mark.parametrize("name", LABEL_SETS)
def test_a_label_set_names_each_label_once(name: str) -> None:
    assert len(set(LABEL_SETS[name])) == len(LABEL_SETS[name])


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "nan", [0, 1, NAN, NAN]),
        ("zeros", "nan", [0, 1, 0, NAN]),
        ("ones", "nan", [0, 1, 1, NAN]),
        ("ignore", "zero", [0, 1, NAN, 0]),
        ("zeros", "zero", [0, 1, 0, 0]),
        ("ones", "zero", [0, 1, 1, 0]),
    ],
)
def test_policies_say_what_uncertain_and_blank_labels_count_as(uncertain, blank, expected) -> None:
    raw = table(Edema=[0, 1, -1, NAN])
    resolved = resolve_labels(raw, ("Edema",), uncertain, blank)
    np.testing.assert_array_equal(resolved["Edema"], np.float32(expected))
    assert resolved["Edema"].dtype == np.float32
    np.testing.assert_array_equal(raw["Edema"], np.float32([0, 1, -1, NAN]))


def test_columns_that_are_no_labels_are_left_alone() -> None:
    raw = table(Edema=[-1, NAN], age=[-1, NAN])
    np.testing.assert_array_equal(resolve_labels(raw, ("Edema",), "ones", "zero")["age"], [-1, NAN])


def test_no_finding_is_known_only_where_all_findings_are() -> None:
    films = add_no_finding(table(Edema=[0, 1, 0, NAN, NAN], Mass=[0, 0, NAN, 1, NAN]), ("Edema", "Mass"))
    np.testing.assert_array_equal(films[NO_FINDING], np.float32([1, 0, NAN, 0, NAN]))


def test_a_data_sets_own_no_finding_is_kept() -> None:
    films = table(Edema=[0, 1], **{NO_FINDING: [0, 0]})
    assert add_no_finding(films, ("Edema", NO_FINDING)) is films


def test_a_single_label_has_no_no_finding() -> None:
    """It would be its opposite."""
    assert NO_FINDING not in add_no_finding(table(Pneumonia=[0, 1]), ("Pneumonia",)).columns


def test_cardiomegaly_against_no_finding_masks_films_with_other_findings() -> None:
    films = add_no_finding(table(Cardiomegaly=[1, 0, 0, 1], Mass=[0, 0, 1, 1]), ("Cardiomegaly", "Mass"))
    masked = mask_for_task(films, Task("binary", ("Cardiomegaly",), "no_finding"))
    np.testing.assert_array_equal(masked["Cardiomegaly"], np.float32([1, 0, NAN, 1]))


def test_cardiomegaly_against_the_rest_counts_every_film() -> None:
    films = table(Cardiomegaly=[1, 0], Mass=[0, 1])
    assert mask_for_task(films, Task("binary", ("Cardiomegaly",))) is films
