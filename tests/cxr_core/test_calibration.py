"""Reliability as scikit-learn bins it, and Platt scaling against its own likelihood and known distortions."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve

from cxr_core.calibration import PlattScaling, reliability
from cxr_core.metrics import auroc, brier, expected_calibration_error

NAN = math.nan


def films(count: int, slope: float = 1.0, intercept: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Films of one finding whose true probability is sigmoid(slope * logit(score) + intercept)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (count, 1))
    truth = expit(slope * logits + intercept)
    return (rng.random((count, 1)) < truth).astype(float), expit(logits)


# Reliability


def test_a_reliability_diagram_is_scikit_learns() -> None:
    targets, scores = (of[:, 0] for of in films(700))
    share, score = calibration_curve(targets, scores, n_bins=15)
    found = reliability(targets, scores)
    np.testing.assert_allclose(found.share, share, atol=1e-12)
    np.testing.assert_allclose(found.score, score, atol=1e-12)
    assert found.films.sum() == 700


def test_the_calibration_error_is_the_mean_gap_of_the_diagram_weighted_by_films() -> None:
    targets, scores = (of[:, 0] for of in films(300, slope=0.4))
    found = reliability(targets, scores)
    error = np.average(np.abs(found.score - found.share), weights=found.films)
    assert expected_calibration_error(targets, scores) == pytest.approx(error, abs=1e-12)


def test_films_that_are_not_labelled_are_in_no_bin() -> None:
    targets, scores = np.array([1, NAN, 0, NAN]), np.array([0.9, 0.9, 0.1, 0.5])
    assert reliability(targets, scores).films.tolist() == [1, 1]
    assert reliability(targets, np.array([0.9, 0.9, NAN, 0.5])).films.tolist() == []
    assert reliability(targets[:0], scores[:0]).films.tolist() == []


# Platt scaling


def test_the_fit_is_the_maximum_of_platts_likelihood() -> None:
    """Written out: smoothed targets (sec. 2.2), and a minimiser that knows nothing of logistic regression."""
    targets, scores = films(200, slope=0.6, intercept=-0.8)
    positives = targets.sum()
    soft = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (200 - positives + 2))[:, 0]

    def loss(of: np.ndarray) -> float:
        p = expit(of[0] * logit(scores[:, 0]) + of[1])
        return float(-(soft * np.log(p) + (1 - soft) * np.log1p(-p)).sum())

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    found = PlattScaling.fit(targets, scores)
    assert [found.slope[0], found.intercept[0]] == pytest.approx(best.x, abs=1e-4)


def test_scores_that_mean_what_they_say_are_left_alone_and_overconfident_ones_are_brought_back() -> None:
    # The standard error of the slope of 20,000 such films is 0.016: 5 of them.
    for slope, intercept in ((1.0, 0.0), (0.5, 0.0), (1.0, -2.0)):
        found = PlattScaling.fit(*films(20_000, slope, intercept))
        assert found.slope[0] == pytest.approx(slope, abs=0.08)
        assert found.intercept[0] == pytest.approx(intercept, abs=0.15)


def test_what_a_weighted_loss_did_to_the_odds_is_taken_back_with_films_it_has_not_seen() -> None:
    """A positive weight of 9 multiplies the odds by 9, so the logits that mean what they say lie log 9 lower."""
    (targets, scores), (others, raised) = films(4000), films(4000, seed=1)
    weighted, to_judge = (expit(logit(of) + math.log(9)) for of in (scores, raised))
    calibrated = PlattScaling.fit(targets, weighted)(to_judge)[:, 0]
    before, truth = to_judge[:, 0], others[:, 0]
    assert expected_calibration_error(truth, before) > 0.2
    assert expected_calibration_error(truth, calibrated) < 0.03
    assert brier(truth, calibrated) < brier(truth, before)
    assert auroc(truth, calibrated) == auroc(truth, before)


def test_scores_that_separate_the_classes_have_a_finite_fit() -> None:
    targets = np.array([[0.0], [0], [0], [1], [1]])
    scaling = PlattScaling.fit(targets, np.array([[0.0], [0.1], [0.2], [0.9], [1.0]]))
    calibrated = scaling(np.array([[0.0], [1.0]]))[:, 0]
    assert np.isfinite(scaling.slope).all()
    assert 0 < calibrated[0] < 0.2
    assert 0.75 < calibrated[1] < 1


def test_each_finding_is_fitted_by_its_own_labelled_films() -> None:
    targets, scores = films(400)
    two, both = np.column_stack([targets, targets]), np.column_stack([scores, scores])
    two[::2, 1] = NAN
    alone = PlattScaling.fit(targets[1::2], scores[1::2])
    found = PlattScaling.fit(two, both)
    assert found.slope[1] == pytest.approx(alone.slope[0])
    assert found.slope[0] != pytest.approx(found.slope[1], rel=1e-4)


@pytest.mark.parametrize("truth", [0.0, 1.0, NAN])
def test_a_finding_that_validation_films_all_lack_or_all_have_is_not_calibrated(truth: float) -> None:
    targets, scores = films(50)
    targets[:] = truth
    scaling = PlattScaling.fit(targets, scores)
    assert np.isnan(scaling.slope).all()
    assert np.isnan(scaling(scores)).all()
