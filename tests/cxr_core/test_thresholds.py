"""A fitted threshold is the best of all thresholds, tried one by one in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_core.confusion import count
from cxr_core.thresholds import fit_thresholds, in_json

NAN = math.nan
films = st.lists(st.tuples(st.sampled_from([0.0, 1.0, NAN]), st.integers(0, 8)), min_size=1, max_size=25)
levels = st.fractions(Fraction(1, 20), 1, max_denominator=20)


def arrays(films: list[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    """One finding as (N, 1) targets and scores, which are eighths and so exact."""
    targets, eighths = np.array(films).T
    return targets[:, None], eighths[:, None] / 8


def each_threshold(films: list[tuple[float, int]]) -> dict[float, tuple[int, int, int, int]]:
    """tp, fp, tn, fn of each score and of infinity as threshold, highest first."""
    table = {}
    for threshold in sorted({*(score / 8 for _, score in films), math.inf}, reverse=True):
        pairs = [(target, score / 8 >= threshold) for target, score in films if not math.isnan(target)]
        table[threshold] = tuple(pairs.count(pair) for pair in ((1, True), (0, True), (0, False), (1, False)))
    return table


def classes(films: list[tuple[float, int]]) -> tuple[int, int]:
    targets = [target for target, _ in films]
    return targets.count(1), targets.count(0)


@given(films)
def test_youdens_threshold_has_the_greatest_index_and_is_the_highest_with_it(films: list) -> None:
    (fitted,) = fit_thresholds(*arrays(films), "youden")
    positives, negatives = classes(films)
    if not positives or not negatives:
        assert math.isnan(fitted)
        return
    table = each_threshold(films)
    index = {t: Fraction(tp, positives) - Fraction(fp, negatives) for t, (tp, fp, _, _) in table.items()}
    assert fitted == max(t for t in index if index[t] == max(index.values()))


@given(films)
def test_the_threshold_for_f1_has_the_greatest_and_is_the_highest_with_it(films: list) -> None:
    (fitted,) = fit_thresholds(*arrays(films), "f1")
    if not classes(films)[0]:
        assert math.isnan(fitted)
        return
    f1 = {t: Fraction(2 * tp, 2 * tp + fp + fn) for t, (tp, fp, _, fn) in each_threshold(films).items()}
    assert fitted == max(t for t in f1 if f1[t] == max(f1.values()))


@given(films, levels)
def test_the_threshold_for_a_sensitivity_is_the_highest_that_reaches_it(films: list, level: Fraction) -> None:
    (fitted,) = fit_thresholds(*arrays(films), "sensitivity", float(level))
    positives, _ = classes(films)
    if not positives:
        assert math.isnan(fitted)
        return
    assert fitted == max(t for t, (tp, *_) in each_threshold(films).items() if Fraction(tp, positives) >= level)


@given(films, levels)
def test_the_threshold_for_a_specificity_is_the_lowest_score_that_reaches_it(films: list, level: Fraction) -> None:
    (fitted,) = fit_thresholds(*arrays(films), "specificity", float(level))
    _, negatives = classes(films)
    if not negatives:
        assert math.isnan(fitted)
        return
    labelled = [(target, score) for target, score in films if not math.isnan(target)]
    table = each_threshold(labelled)
    assert fitted == min(t for t, (_, _, tn, _) in table.items() if Fraction(tn, negatives) >= level)


@given(films, st.sampled_from(["youden", "f1"]), st.randoms(use_true_random=False))
def test_the_order_of_the_films_does_not_matter(films: list, rule: str, random) -> None:
    shuffled = random.sample(films, len(films))
    np.testing.assert_array_equal(fit_thresholds(*arrays(films), rule), fit_thresholds(*arrays(shuffled), rule))


def test_one_half_is_one_half_whatever_the_films() -> None:
    assert fit_thresholds(np.full((3, 2), NAN), np.zeros((3, 2)), "half").tolist() == [0.5, 0.5]


def test_each_finding_has_its_own_threshold() -> None:
    targets = np.array([[0.0, 0, 1], [1, 0, 1], [1, 1, 1]])
    scores = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    np.testing.assert_array_equal(fit_thresholds(targets, scores, "youden"), [0.4, 0.8, NAN])


def test_calls_at_the_fitted_threshold_keep_the_sensitivity_in_single_precision() -> None:
    rng = np.random.default_rng(0)
    targets, scores = (rng.random((500, 3)) < 0.2).astype(np.float32), rng.random((500, 3)).astype(np.float32)
    thresholds = fit_thresholds(targets, scores, "sensitivity", 0.9)
    counts = count(targets, scores, thresholds)
    positives = targets.sum(axis=0)
    # The scores differ, so one call fewer would be too few.
    np.testing.assert_array_equal(counts.tp, np.ceil(0.9 * positives))


def test_a_specificity_that_no_score_reaches_calls_nothing() -> None:
    thresholds = fit_thresholds(np.array([[0.0], [1.0]]), np.array([[0.7], [0.7]]), "specificity", 0.95)
    assert thresholds.tolist() == [math.inf]


def test_a_score_that_is_no_number_leaves_the_threshold_undefined() -> None:
    targets, scores = np.array([[0.0], [1.0]]), np.array([[0.2], [NAN]])
    assert np.isnan(fit_thresholds(targets, scores, "youden")).all()


@pytest.mark.parametrize(
    ("rule", "level", "message"),
    [
        ("best", None, "no threshold rule 'best'; rules are half, youden, f1, sensitivity, specificity"),
        ("sensitivity", None, "'sensitivity' needs a level"),
        ("youden", 0.9, "'youden' takes no level"),
        ("specificity", 95, "specificity cannot be kept at 95"),
        ("sensitivity", 0.0, "sensitivity cannot be kept at 0.0"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(rule: str, level: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_thresholds(np.array([[0.0], [1.0]]), np.array([[0.2], [0.3]]), rule, level)


def test_a_threshold_in_json_calls_what_it_called() -> None:
    assert in_json(0.25) == 0.25
    assert in_json(np.inf) == 2.0  # no probability reaches it
    assert in_json(np.nan) is None
