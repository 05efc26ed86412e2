"""A resample's metric is that of the films of its patients, repeated; intervals hold the truth as often as they say."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from cxr_core.bootstrap import (
    bootstrap,
    macro_samples,
    paired_difference,
    percentile_interval,
    sensitivity_samples,
)
from cxr_core.metrics import EPOCH_METRICS, macro, per_label

NAN = math.nan
every_metric = pytest.mark.parametrize("name", EPOCH_METRICS)


def cohort(seed: int = 0, patients: int = 40, labels: int = 3, levels: int = 12) -> tuple[np.ndarray, ...]:
    """Targets, a tenth of them NaN, tied scores and patients, of one to five films each."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    rng.shuffle(patient)
    targets = (rng.random((len(patient), labels)) < 0.3).astype(float)
    scores = np.round((0.4 * targets + 0.6 * rng.random(targets.shape)) * levels) / levels
    targets[rng.random(targets.shape) < 0.1] = NAN
    return targets, scores, np.array([f"patient {p}" for p in patient])


def drawn_films(patients: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Indices of each resample's films, from the documented draw: as many patients as there are, with replacement."""
    rng, names = np.random.default_rng(seed), np.unique(patients)
    films = {name: np.flatnonzero(patients == name) for name in names}
    draws = [rng.integers(len(names), size=len(names)) for _ in range(resamples)]
    return [np.concatenate([films[names[patient]] for patient in draw]) for draw in draws]


@every_metric
@pytest.mark.parametrize("levels", [3, 10**6])
def test_a_resample_is_the_metric_of_its_patients_films(name: str, levels: int) -> None:
    targets, scores, patients = cohort(levels=levels)
    samples = bootstrap(targets, scores, patients, [name], resamples=50, seed=7)[name]
    for row, films in zip(samples, drawn_films(patients, 50, seed=7), strict=True):
        expected = per_label(EPOCH_METRICS[name], targets[films], scores[films])
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [3, 10**6])
@pytest.mark.parametrize(
    ("name", "truth"),
    [("auroc_macro", roc_auc_score), ("auprc_macro", average_precision_score)],
    ids=["auroc", "average precision"],
)
def test_areas_equal_scikit_learns_with_sample_weights(name: str, truth: Callable, levels: int) -> None:
    targets, scores, patients = cohort(levels=levels)
    samples = bootstrap(targets, scores.astype(np.float32), patients, [name], resamples=30)[name]
    for row, films in zip(samples, drawn_films(patients, 30, seed=0), strict=True):
        weight = np.bincount(films, minlength=len(targets))
        for c, value in enumerate(row):
            known = ~np.isnan(targets[:, c])
            expected = truth(targets[known, c], scores[known, c].astype(np.float32), sample_weight=weight[known])
            assert value == pytest.approx(expected, abs=1e-10)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, NAN]), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12)
)
def test_small_cohorts_in_which_much_is_undefined(films: list[tuple[float, int, int]]) -> None:
    table = np.array(films)
    targets, scores, patients = table[:, :1], table[:, 1:2] / 4, table[:, 2]
    samples = bootstrap(targets, scores, patients, list(EPOCH_METRICS), resamples=5, threads=1)
    for r, drawn in enumerate(drawn_films(patients, 5, seed=0)):
        for name, metric in EPOCH_METRICS.items():
            expected = metric.of_label(targets[drawn, 0], scores[drawn, 0])
            np.testing.assert_allclose(samples[name][r, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [3, 10**6])
def test_sensitivities_at_a_rate_lie_on_scikit_learns_curve_of_the_resample(levels: int) -> None:
    targets, scores, patients = cohort(levels=levels)
    rates = np.linspace(0, 1, 21)
    samples = sensitivity_samples(targets[:, 0], scores[:, 0], patients, rates, resamples=30, seed=7)
    for row, films in zip(samples, drawn_films(patients, 30, seed=7), strict=True):
        truth, score = targets[films, 0], scores[films, 0]
        known = ~np.isnan(truth)
        fpr, tpr, _ = roc_curve(truth[known], score[known], drop_intermediate=False)
        # At a rate where the curve rises, its upper end.
        highest = [tpr[np.isclose(fpr, rate)].max(initial=np.interp(rate, fpr, tpr)) for rate in rates]
        np.testing.assert_allclose(row, highest, rtol=0, atol=1e-9)


def test_where_the_curve_rises_at_a_rate_its_upper_end_counts() -> None:
    """At .29, which in floating point is a little less than 29 of 100; one patient, so that every resample is alike."""
    targets = np.array([0] * 29 + [1] * 10 + [0] * 71, float)
    samples = sensitivity_samples(targets, -np.arange(110.0), np.zeros(110), np.linspace(0, 1, 101), resamples=2)
    assert (samples == (np.arange(101) >= 29)).all()


def test_sensitivities_are_undefined_without_both_classes_or_with_a_score_that_is_no_number() -> None:
    patients, rates = np.arange(4), np.array([0.1, 0.5])
    for targets, scores in ((np.ones(4), np.arange(4.0)), (np.array([0, 1, 0, 1.0]), np.array([0, 1, NAN, 2]))):
        assert np.isnan(sensitivity_samples(targets, scores, patients, rates, resamples=5)).all()


def test_all_metrics_and_models_share_the_resamples() -> None:
    targets, scores, patients = cohort()
    models = np.stack([scores, 1 - scores, scores**2])
    together = bootstrap(targets, models, patients, list(EPOCH_METRICS), resamples=40)
    for name, samples in together.items():
        alone = [bootstrap(targets, model, patients, [name], resamples=40)[name] for model in models]
        np.testing.assert_array_equal(samples, np.stack(alone, axis=1))


def test_the_number_of_threads_changes_nothing() -> None:
    targets, scores, patients = cohort()
    one, three = (bootstrap(targets, scores, patients, resamples=40, threads=n)["auroc_macro"] for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_another_seed_draws_other_patients() -> None:
    targets, scores, patients = cohort()
    first, same, other = (bootstrap(targets, scores, patients, resamples=40, seed=s)["auroc_macro"] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_thresholds_are_of_the_calls_of_each_finding() -> None:
    targets, scores, patients = cohort()
    thresholds = np.array([0.3, NAN, 0.6])
    samples = bootstrap(targets, scores, patients, ["f1", "brier"], thresholds=thresholds, resamples=20)
    f1 = EPOCH_METRICS["f1"].of_label
    for row, films in zip(samples["f1"], drawn_films(patients, 20, seed=0), strict=True):
        moved = np.where(scores >= thresholds, 1.0, 0.0)[films]
        assert row[0] == pytest.approx(f1(targets[films, 0], moved[:, 0]), abs=1e-12)
        assert row[2] == pytest.approx(f1(targets[films, 2], moved[:, 2]), abs=1e-12)
    assert np.isnan(samples["f1"][:, 1]).all()
    assert not np.isnan(samples["brier"]).any()


@every_metric
def test_a_model_with_a_score_that_is_no_number_is_undefined_alone(name: str) -> None:
    targets, scores, patients = cohort()
    models = np.stack([scores, scores])
    targets[0, 0], models[1, 0, 0] = 1, NAN
    samples = bootstrap(targets, models, patients, [name], resamples=20)[name]
    assert np.isnan(samples[:, 1, 0]).all()
    assert not np.isnan(samples[:, 0]).any()
    assert not np.isnan(samples[:, 1, 1:]).any()


def test_a_metric_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no metric 'auc'; metrics are auroc_macro"):
        bootstrap(*cohort(), ["auc"])


def test_arrays_of_different_films_are_refused() -> None:
    targets, scores, patients = cohort()
    with pytest.raises(ValueError, match="not of the same films and findings"):
        bootstrap(targets, scores[1:], patients)
    with pytest.raises(ValueError, match="not of the same films and findings"):
        bootstrap(targets, scores, patients[1:])


# What is made of the resamples


def test_the_macro_mean_of_a_resample_is_over_the_findings_defined_in_it() -> None:
    samples = np.array([[0.5, NAN, 1.0], [NAN, NAN, NAN], [0.2, 0.4, 0.6]])
    np.testing.assert_array_equal(macro_samples(samples), [macro(row) for row in samples])


def test_differences_are_of_the_same_resamples() -> None:
    targets, scores, patients = cohort()
    samples = bootstrap(targets, np.stack([scores, scores]), patients, resamples=50)["auroc_macro"]
    np.testing.assert_array_equal(paired_difference(samples, 0, 1), 0)


def test_the_interval_of_a_difference_is_narrower_than_that_of_unpaired_models() -> None:
    targets, scores, patients = cohort(patients=200)
    models = np.stack([scores, scores + np.random.default_rng(1).normal(0, 0.05, scores.shape)])
    samples = macro_samples(bootstrap(targets, models, patients, resamples=300)["auroc_macro"])
    paired = percentile_interval(paired_difference(samples, 0, 1))
    unpaired = percentile_interval(samples[:, 0] - np.roll(samples[:, 1], 1))
    # The models agree on most pairs of films; measured ratio about 1/3.
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_an_interval_is_numpys_quantiles_of_the_defined_resamples() -> None:
    samples = np.random.default_rng(0).random((99, 2, 3))
    samples[::7, 1] = NAN
    samples[:, 0, 2] = NAN
    interval = percentile_interval(samples, level=0.9)
    for place in np.ndindex(2, 3):
        values = samples[(slice(None), *place)]
        values = values[~np.isnan(values)]
        assert interval.defined[place] == len(values)
        bounds = np.quantile(values, [0.05, 0.95]) if len(values) else [NAN, NAN]
        np.testing.assert_allclose([interval.low[place], interval.high[place]], bounds, rtol=0, atol=1e-15)


def simulated_coverage(by_patient: bool, trials: int = 200) -> float:
    """How often 95 % intervals hold the true AUROC of scores that a patient's films share in part.

    80 patients, half of them ill, of 1 to 7 films; score = 1.2 ill + patient + film, both normal of variance 1/2: films
    of different patients differ by a normal of variance 2, so the AUROC is Phi(1.2 / sqrt 2).
    """
    truth = 0.5 * (1 + math.erf(1.2 / 2))
    rng, held = np.random.default_rng(5), 0
    for trial in range(trials):
        patient = np.repeat(np.arange(80), rng.integers(1, 8, 80))
        ill = (np.arange(80) < 40).astype(float)[patient]
        shared, own = rng.normal(0, math.sqrt(0.5), 80)[patient], rng.normal(0, math.sqrt(0.5), len(patient))
        units = patient if by_patient else np.arange(len(patient))
        scores = (1.2 * ill + shared + own)[:, None]
        samples = bootstrap(ill[:, None], scores, units, resamples=200, seed=trial, threads=1)["auroc_macro"]
        interval = percentile_interval(samples)
        held += bool(interval.low[0] <= truth <= interval.high[0])
    return held / trials


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # Percentile intervals of 80 patients are a little narrow: they hold it in 93.2 % (of 2,000 trials). In 200 trials
    # sigma is 1.8 %: the lower bound is 4 sigma away, which chance alone crosses once in 30,000 seeds; the upper one
    # more rarely.
    assert 0.86 <= simulated_coverage(by_patient=True) < 1


def test_resampling_films_instead_of_patients_makes_intervals_too_narrow() -> None:
    # Films of a patient share half their variance: intervals hold the truth in 75 % (of 1,000 trials). In 200 trials
    # sigma is 3.1 %: the bound is 4 sigma away, which chance alone crosses once in 30,000 seeds.
    assert simulated_coverage(by_patient=False) < 0.873
