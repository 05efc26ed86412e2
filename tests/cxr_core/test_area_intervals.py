"""Intervals of AUROC and AUPRC: formulas written out, and how often they hold the truth where percentiles do not."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr_core.area_intervals import Support, area_intervals
from cxr_core.bootstrap import bootstrap, percentile_interval

NAN = math.nan
Z = 1.959964


def support(patients: Sequence[int], step: float = 1e-6) -> Support:
    return Support(np.array(patients), np.full(len(patients), step))


def test_a_step_is_what_a_perfect_area_loses_by_its_last_pair() -> None:
    """Of 3 films with the finding and 4 without, ranked rightly but for one pair; of none with it, and of no others."""
    truth, scores = np.array([1, 1, 0, 1, 0, 0, 0], float), np.arange(7.0)[::-1]
    targets = np.stack([truth, np.zeros(7), np.where(truth == 1, 1, NAN)], axis=1)
    for metric, area, of_positives in (
        ("auroc_macro", roc_auc_score, NAN),
        ("auprc_macro", average_precision_score, 1 / 12),
    ):
        rests_on = Support.of(metric, targets, range(7))
        assert rests_on is not None
        np.testing.assert_allclose(rests_on.steps, [1 - area(truth, scores), NAN, of_positives])
    assert Support.of("log_loss", targets, range(7)) is None


def test_patients_are_those_of_the_rarer_class_and_not_its_films() -> None:
    patients = ["a", "a", "a", "b", "c", "c", "d"]
    targets = np.array([[1, 1, 1, 0, 0, 0, NAN], [1, 1, 0, 1, 1, 1, 0]], float).T
    rests_on = Support.of("auroc_macro", targets, patients)
    assert rests_on is not None
    np.testing.assert_array_equal(rests_on.patients, [1, 2])


def test_the_interval_of_a_finding_is_normal_on_the_logit_scale_with_the_variance_of_n_patients() -> None:
    rng = np.random.default_rng(0)
    values, samples = rng.random(3), rng.random((99, 3))
    samples[::7, 1] = NAN
    values[2] = samples[:, 2] = NAN
    interval, _ = area_intervals(values, samples, support([5, 40, 0]), level=0.9)
    for c, n in ((0, 5), (1, 40)):
        drawn = samples[~np.isnan(samples[:, c]), c]
        reach = 1.6448536 * np.std(logit(drawn), ddof=1) * math.sqrt(n / (n - 1))
        bounds = expit(logit(values[c]) + np.array([-reach, reach]))
        np.testing.assert_allclose([interval.low[c], interval.high[c]], bounds, rtol=1e-7)
    assert np.isnan([interval.low[2], interval.high[2]]).all()
    assert interval.defined.tolist() == [99, 84, 0]


def test_the_mean_has_what_the_variance_of_each_finding_lacks() -> None:
    """Of n patients 1 in n - 1; of one patient all but what the others' films vary, as one of the other findings."""
    rng = np.random.default_rng(1)
    samples = 0.7 + rng.normal(0, [0.05, 0.03, 0.001], (500, 3))
    values = np.array([0.7, 0.72, 0.5])
    _, mean = area_intervals(values, samples, support([5, 10, 1]))
    variance = samples.var(axis=0, ddof=1)
    of_one = [variance[0] * 5 / 4 * 5, variance[1] * 10 / 9 * 10]
    lacking = variance[0] / 4 + variance[1] / 9 + np.mean(of_one) - variance[2]
    drawn = samples.mean(axis=1)
    reach = Z * np.std(logit(drawn), ddof=1) * math.sqrt(1 + lacking / 9 / drawn.var(ddof=1))
    expected = expit(logit(values.mean()) + np.array([-reach, reach]))
    np.testing.assert_allclose([mean.low, mean.high], expected, rtol=1e-6)


def test_a_finding_that_all_films_have_adds_nothing_to_the_mean() -> None:
    """Its AUPRC is 1 whatever the scores and the patients are."""
    samples = np.stack([np.random.default_rng(4).normal(0.6, 0.02, 300), np.ones(300)], axis=1)
    each, mean = area_intervals(np.array([0.6, 1.0]), samples, support([10, 0]))
    assert (each.low[1], each.high[1]) == (1, 1)
    assert mean.high - mean.low == pytest.approx((each.high[0] - each.low[0]) / 2, rel=0.01)


def test_where_a_resample_lacks_a_finding_the_mean_takes_its_value() -> None:
    """Else the mean would jump to that of the other findings."""
    samples = np.random.default_rng(3).normal([0.9, 0.6], 0.01, (400, 2))
    values = np.array([0.9, 0.6])
    lacking = samples.copy()
    lacking[::2, 0] = NAN
    filled = np.where(np.isnan(lacking), values, samples)
    rests_on = support([10_000, 10_000])
    for low, high in [[(of.low, of.high) for of in area_intervals(values, s, rests_on)][1] for s in (lacking, filled)]:
        assert high - low == pytest.approx(2 * Z * filled.mean(axis=1).std(ddof=1), rel=0.01)


def test_one_patient_alone_tells_no_interval() -> None:
    truth = (np.arange(30) < 1).astype(float)[:, None]
    scores = np.random.default_rng(2).random((30, 1))
    samples = bootstrap(truth, scores, np.arange(30), resamples=200)["auroc_macro"]
    rests_on = Support.of("auroc_macro", truth, np.arange(30))
    assert rests_on is not None
    for interval in area_intervals(np.array([roc_auc_score(truth[:, 0], scores[:, 0])]), samples, rests_on):
        assert np.isnan([interval.low, interval.high]).all()


def test_an_interval_near_1_stays_below_it_and_holds_its_value() -> None:
    """Ten films with the finding above all others but one pair: three of five resamples are perfect."""
    truth = (np.arange(40) < 10).astype(float)[:, None]
    scores = -np.arange(40.0)[:, None]
    scores[[9, 10]] = scores[[10, 9]]
    samples = bootstrap(truth, scores, np.arange(40))["auroc_macro"]
    rests_on = Support.of("auroc_macro", truth, np.arange(40))
    assert rests_on is not None
    value = roc_auc_score(truth[:, 0], scores[:, 0])
    assert (samples == 1).mean() == pytest.approx(0.6, abs=0.04)
    assert percentile_interval(samples).high == 1
    for interval in area_intervals(np.array([value]), samples, rests_on):
        assert 0.9 < interval.low < value < interval.high < 1


def test_what_no_resample_moves_has_its_value_for_both_bounds() -> None:
    """Also where a class is so rare that half a step is half the scale."""
    samples = np.ones((50, 2))
    samples[::3] = NAN
    for interval in area_intervals(np.ones(2), samples, Support(np.array([3, 1]), np.array([0.02, 1.0]))):
        np.testing.assert_array_equal([interval.low, interval.high], np.ones_like([interval.low, interval.high]))


def test_without_a_finding_that_is_defined_there_is_no_mean() -> None:
    for interval in area_intervals(np.full(2, NAN), np.full((20, 2), NAN), Support(np.zeros(2, int), np.full(2, NAN))):
        assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize(
    ("findings", "positives", "area"), [(1, 10, 0.95), (3, 8, 0.9)], ids=["one finding", "mean of three"]
)
def test_where_percentiles_lie_too_high_intervals_hold_the_truth_as_often_as_they_say(
    findings: int, positives: int, area: float
) -> None:
    """Binormal scores of 200 patients; of 300 trials, 95 % are 3.8 sigma above the bound asked for."""
    apart = math.sqrt(2) * {0.95: 1.6448536, 0.9: 1.2815516}[area]
    ill = np.stack([np.roll(np.arange(200) < positives, 20 * c) for c in range(findings)], axis=1).astype(float)
    rests_on = Support.of("auroc_macro", ill, np.arange(200))
    assert rests_on is not None
    held = {"normal": 0, "percentile": 0}
    for trial in range(300):
        scores = ill * apart + np.random.default_rng((6, trial)).normal(size=ill.shape)
        samples = bootstrap(ill, scores, np.arange(200), resamples=300, seed=trial, threads=1)["auroc_macro"]
        values = np.array([roc_auc_score(ill[:, c], scores[:, c]) for c in range(findings)])
        of = {"normal": area_intervals(values, samples, rests_on)[1]}
        of["percentile"] = percentile_interval(samples.mean(axis=1))
        for name, interval in of.items():
            held[name] += bool(interval.low <= area <= interval.high)
    assert held["normal"] / 300 > 0.902
    assert held["percentile"] < held["normal"]
