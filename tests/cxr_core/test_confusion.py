"""Counts equal scikit-learn's; confusion matrices of films with several findings equal hand-made ones."""

import math

import numpy as np
import pytest
import sklearn.metrics

from cxr_core.confusion import RATIOS, Counts, call_matrix, called, count, multilabel_confusion_matrix

NAN = math.nan


def films(seed: int = 0, count: int = 300, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, labels)) < 0.3).astype(float)
    targets[rng.random(targets.shape) < 0.15] = NAN
    return targets, rng.random((count, labels)).round(1)


# Counts


def test_counts_equal_scikit_learns_of_the_labelled_films() -> None:
    targets, scores = films()
    thresholds = np.array([0.2, 0.5, 0.7, 1.1])
    counts = count(targets, scores, thresholds)
    for c, threshold in enumerate(thresholds):
        known = ~np.isnan(targets[:, c])
        expected = sklearn.metrics.confusion_matrix(targets[known, c], scores[known, c] >= threshold, labels=[0, 1])
        assert [counts.tn[c], counts.fp[c], counts.fn[c], counts.tp[c]] == expected.ravel().tolist()


def test_one_threshold_serves_all_findings() -> None:
    targets, scores = films()
    np.testing.assert_equal(vars(count(targets, scores, 0.3)), vars(count(targets, scores, np.full(4, 0.3))))


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_finding_without_a_threshold_has_undefined_ratios(ratio: str) -> None:
    targets, scores = films()
    values = getattr(count(targets, scores, np.array([0.5, NAN, 0.5, 0.5])), ratio)
    assert np.isnan(values).tolist() == [False, True, False, False]


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_finding_with_a_score_that_is_no_number_has_undefined_ratios(ratio: str) -> None:
    targets, scores = films()
    targets[0, 2], scores[0, 2] = 1, NAN
    assert np.isnan(getattr(count(targets, scores), ratio)).tolist() == [False, False, True, False]


def test_a_score_at_its_threshold_is_a_call() -> None:
    scores = np.array([[0.25, 0.5]], np.float32)
    assert called(scores, np.array([0.25, 0.75])).tolist() == [[True, False]]


def test_ratios_of_counts_that_are_easy_to_divide() -> None:
    counts = Counts(tp=np.array(3), fp=np.array(1), tn=np.array(5), fn=np.array(1))
    expected = {"accuracy": 8 / 10, "precision": 3 / 4, "sensitivity": 3 / 4, "specificity": 5 / 6, "f1": 3 / 4}
    expected |= {"npv": 5 / 6, "bcr": (3 / 4 + 3 / 4) / 2, "balanced_accuracy": (3 / 4 + 5 / 6) / 2}
    assert {name: float(getattr(counts, name)) for name in RATIOS} == pytest.approx(expected, abs=1e-15)


# Which finding is called which

TWO_OF_THREE = [1.0, 1, 0]
NOTHING = [0.0, 0, 0]


def call_cells(truth: list[float], calls: list[float]) -> set[tuple[int, int]]:
    matrix = call_matrix(np.array([truth]), np.array([calls]) == 1, no_finding=True)
    assert matrix.max() == 1
    return {(int(i), int(j)) for i, j in np.argwhere(matrix)}


@pytest.mark.parametrize(
    ("truth", "calls", "cells"),
    [
        (TWO_OF_THREE, [1, 0, 1], {(0, 0), (0, 2), (1, 0), (1, 2)}),
        (TWO_OF_THREE, NOTHING, {(0, 3), (1, 3)}),
        (NOTHING, [0, 1, 1], {(3, 1), (3, 2)}),
        (NOTHING, NOTHING, {(3, 3)}),
        ([0, NAN, 1], [0, 1, 0], {(2, 3)}),
        ([NAN, NAN, NAN], [0, 1, 0], set()),
    ],
    ids=["several", "none called", "none true", "none at all", "partly labelled", "not labelled"],
)
def test_each_true_finding_counts_against_each_called_one(truth: list, calls: list, cells: set) -> None:
    if cells:
        assert call_cells(truth, calls) == cells
    else:
        assert not call_matrix(np.array([truth]), np.array([calls]) == 1, no_finding=True).any()


def test_chestxray14_has_matrices_of_14_and_with_no_finding_of_15() -> None:
    targets, scores = films(labels=14)
    without, with_no_finding = (call_matrix(targets, called(scores), extra) for extra in (False, True))
    assert with_no_finding.shape == (15, 15)
    np.testing.assert_array_equal(with_no_finding[:14, :14], without)


def test_the_diagonal_of_the_calls_is_the_true_positives() -> None:
    targets, scores = films()
    np.testing.assert_array_equal(np.diag(call_matrix(targets, called(scores))), count(targets, scores).tp)


def test_with_one_finding_a_film_both_matrices_are_the_usual_one() -> None:
    rng = np.random.default_rng(3)
    truth, calls = rng.integers(5, size=(2, 200))
    expected = sklearn.metrics.confusion_matrix(truth, calls, labels=range(5))
    rows = np.eye(5)[:, :4]  # class 4 is no finding
    for matrix in (
        call_matrix(rows[truth], rows[calls] == 1, no_finding=True),
        multilabel_confusion_matrix(rows[truth], rows[calls] == 1),
    ):
        np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize(
    ("truth", "calls", "cells"),
    [
        (TWO_OF_THREE, TWO_OF_THREE, {(0, 0): 1, (1, 1): 1}),
        (TWO_OF_THREE, [1, 0, 0], {(0, 0): 1, (1, 3): 1}),
        (TWO_OF_THREE, NOTHING, {(0, 3): 1, (1, 3): 1}),
        (TWO_OF_THREE, [1, 1, 1], {(0, 0): 1, (1, 1): 1, (0, 2): 1, (1, 2): 1}),
        (TWO_OF_THREE, [1, 0, 1], {(0, 0): 1, (1, 2): 1}),
        (TWO_OF_THREE, [0, 0, 1], {(0, 2): 1, (1, 2): 1}),
        (NOTHING, [0, 1, 1], {(3, 1): 1, (3, 2): 1}),
        (NOTHING, NOTHING, {(3, 3): 1}),
        ([1, NAN, 0], [0, 1, 1], {(0, 2): 1}),
        ([NAN, NAN, NAN], [0, 1, 0], {}),
    ],
    ids=[
        "all found",
        "one missed",
        "all missed",
        "one too many",
        "one for another",
        "one for two",
        "healthy, two called",
        "healthy, none called",
        "partly labelled",
        "not labelled",
    ],
)
def test_the_multilabel_confusion_matrix_of_one_film(truth: list, calls: list, cells: dict) -> None:
    matrix = multilabel_confusion_matrix(np.array([truth]), np.array([calls]) == 1)
    assert {(int(i), int(j)): int(matrix[i, j]) for i, j in np.argwhere(matrix)} == cells


def test_the_matrices_of_films_add_up() -> None:
    targets, scores = films()
    calls = called(scores)
    for matrix in (lambda t, c: call_matrix(t, c, no_finding=True), multilabel_confusion_matrix):
        parts = [matrix(targets[n : n + 1], calls[n : n + 1]) for n in range(len(targets))]
        np.testing.assert_array_equal(matrix(targets, calls), np.sum(parts, axis=0))
