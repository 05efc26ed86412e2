"""Which films a panel shows."""

import numpy as np

from cxr_core.explanation.selection import KINDS, surest

TARGETS = np.array([1, 1, 1, 0, 0, 0, 1, 1, np.nan])
SCORES = np.array([0.9, 0.8, 0.95, 0.7, 0.6, 0.1, 0.2, 0.05, 0.99])
PATIENTS = np.array(list("aabcdefgh"))


def test_the_surest_film_of_each_patient_and_kind_is_taken() -> None:
    found = surest(TARGETS, SCORES, 0.5, PATIENTS, 3)
    assert tuple(found) == KINDS
    assert found["true positives"] == (3, [2, 0])  # film 1 is of the patient of film 0
    assert found["false positives"] == (2, [3, 4])
    assert found["false negatives"] == (2, [7, 6])


def test_no_more_films_are_taken_than_asked_for() -> None:
    assert surest(TARGETS, SCORES, 0.5, PATIENTS, 1)["true positives"] == (3, [2])


def test_a_score_at_the_threshold_is_called() -> None:
    assert surest(TARGETS, SCORES, 0.6, PATIENTS, 3)["false positives"] == (2, [3, 4])


def test_films_that_are_not_labelled_are_of_no_kind() -> None:
    assert all(8 not in rows for _, rows in surest(TARGETS, SCORES, 0.5, PATIENTS, 9).values())


def test_without_a_threshold_nothing_is_called_or_missed() -> None:
    assert set(map(str, surest(TARGETS, SCORES, np.nan, PATIENTS, 3).values())) == {"(0, [])"}
