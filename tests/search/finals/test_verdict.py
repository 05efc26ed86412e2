"""The statistics of finalists, against closed forms, brute force and independent implementations."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, ttest_ind
from sklearn.metrics import roc_auc_score

from search.finals.verdict import Scored, bootstrap_p, holm, judge


def draw(rng, qualities, patients=300, seeds=3, films=1, labels=1, seed_noise=0.0):
    """A split of films whose scores lie `quality` apart between films with the finding and those without.

    Finalists are judged on the same films, and share part of their noise, as trained networks do.
    """
    ill = rng.random((patients, labels)) < 0.4
    targets = np.repeat(ill, films, axis=0).astype(float)
    shared = rng.normal(size=targets.shape)
    scores = {}
    for number, quality in qualities.items():
        runs = []
        for _ in range(seeds):
            apart = quality + seed_noise * rng.normal()
            runs.append(norm.cdf(targets * apart + np.sqrt(0.5) * (shared + rng.normal(size=targets.shape))))
        scores[number] = np.stack(runs)
    return Scored(targets, np.repeat(np.arange(patients), films), scores)


def truth(quality):
    """AUROC of two normal distributions of unit variance that lie `quality` apart."""
    return norm.cdf(quality / math.sqrt(2))


def test_mean_and_spread_are_those_of_the_seeds_by_scikit_learns_count():
    split = draw(np.random.default_rng(0), {4: 1.0, 9: 2.0}, seeds=4, labels=3)
    verdict = judge(split, split, "auroc_macro", resamples=50)
    for number, reached in verdict.test.reached.items():
        values = [roc_auc_score(split.targets, one, average="macro") for one in split.scores[number]]
        assert reached.values == pytest.approx(values)
        assert reached.mean == pytest.approx(np.mean(values))
        assert reached.sd == pytest.approx(np.std(values, ddof=1))


def test_intervals_are_those_of_a_bootstrap_written_out():
    """The same patients drawn in one go for all finalists and seeds, films repeated as often, scored one by one."""
    split = draw(np.random.default_rng(1), {0: 0.7, 1: 1.0}, patients=60, seeds=2, films=2)
    verdict = judge(split, split, "auroc_macro", resamples=200)
    rng = np.random.default_rng(1)  # judge's seed of the test split
    means = []
    for _ in range(200):
        films = np.concatenate([np.flatnonzero(split.patients == p) for p in rng.integers(60, size=60)])
        means.append(
            [
                np.mean([roc_auc_score(split.targets[films, 0], one[films, 0]) for one in split.scores[number]])
                for number in (0, 1)
            ]
        )
    loser = 1 - verdict.winner
    means = np.array(means)
    reached, difference = verdict.test.reached[loser], verdict.test.differences[loser]
    gain = means[:, loser] - means[:, verdict.winner]
    ill = int(split.targets[::2, 0].sum())  # patients, who have two films each
    reach = 1.959964 * np.std(logit(means[:, loser]), ddof=1) * math.sqrt(min(ill, 60 - ill) / (min(ill, 60 - ill) - 1))
    assert [reached.low, reached.high] == pytest.approx(expit(logit(reached.mean) + np.array([-reach, reach])))
    assert [difference.low, difference.high] == pytest.approx(np.quantile(gain, [0.025, 0.975]))
    assert difference.p == pytest.approx(min(1, 2 * min(1 + (gain <= 0).sum(), 1 + (gain >= 0).sum()) / 201))
    values = [verdict.test.reached[number].values for number in (loser, verdict.winner)]
    assert difference.p_seeds == pytest.approx(ttest_ind(*values, equal_var=False).pvalue)


def test_the_interval_of_the_winners_test_metric_covers_its_true_value():
    """In 200 simulated studies; a true coverage of 95 % is seen within 3 standard errors in 997 of 1000 such tests."""
    covered = 0
    for run in range(200):
        rng = np.random.default_rng((2, run))
        qualities = {0: 1.2, 1: 1.3}
        validation, test = (draw(rng, qualities, patients=count, seeds=2) for count in (100, 200))
        verdict = judge(validation, test, "auroc_macro", resamples=200)
        reached = verdict.test.reached[verdict.winner]
        covered += reached.low <= truth(qualities[verdict.winner]) <= reached.high
    assert covered / 200 == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 200))


def test_films_of_one_patient_do_not_narrow_the_interval():
    """Four copies of each film tell nothing new."""
    one = draw(np.random.default_rng(3), {0: 1.0}, films=1)
    scores = {0: np.repeat(one.scores[0], 4, axis=1)}
    four = Scored(np.repeat(one.targets, 4, axis=0), np.repeat(one.patients, 4), scores)
    narrow, wide = (judge(split, split, "auroc_macro").test.reached[0] for split in (four, one))
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low)


def test_the_winner_is_chosen_on_validation_whatever_the_test_says():
    rng = np.random.default_rng(4)
    validation, test = draw(rng, {0: 2.0, 1: 1.0}), draw(rng, {0: 1.0, 1: 2.0})
    verdict = judge(validation, test, "auroc_macro")
    assert verdict.winner == 0
    assert verdict.order == (0, 1)
    assert verdict.sentence == "On the test films trial 1 is better than the winner, trial 0."
    assert verdict.gap.value == pytest.approx(verdict.validation.reached[0].mean - verdict.test.reached[0].mean)
    assert verdict.gap.low < truth(2.0) - truth(1.0) < verdict.gap.high


def test_a_metric_to_be_minimised_has_its_signs_turned():
    """Probabilities of a better calibrated network; the gap is positive where test is worse."""
    rng = np.random.default_rng(5)
    validation, test = draw(rng, {0: 2.0, 1: 0.2}), draw(rng, {0: 1.0, 1: 0.2})
    verdict = judge(validation, test, "log_loss")
    assert verdict.winner == 0
    assert verdict.gap.value == pytest.approx(verdict.test.reached[0].mean - verdict.validation.reached[0].mean)
    assert verdict.gap.value > 0
    assert verdict.test.differences[1].value > 0
    assert "the winner, trial 0, is better than trial 1" in verdict.sentence


def test_a_finalist_outside_the_constraints_cannot_win():
    split = draw(np.random.default_rng(6), {0: 2.0, 1: 1.0})
    verdict = judge(split, split, "auroc_macro", may_win={1})
    assert verdict.order == (0, 1)
    assert verdict.winner == 1
    with pytest.raises(ValueError, match="no finalist may win"):
        judge(split, split, "auroc_macro", may_win=set())


def test_equal_finalists_are_called_different_no_more_often_than_the_level():
    """60 studies of three equal finalists: more than 8 false alarms at 5 % happen in 3 of 1000 such tests."""
    alarms = 0
    for run in range(60):
        split = draw(np.random.default_rng((7, run)), dict.fromkeys(range(3), 1.0), patients=150, seed_noise=0.05)
        other = draw(np.random.default_rng((77, run)), dict.fromkeys(range(3), 1.0), patients=20)
        verdict = judge(other, split, "auroc_macro", resamples=200)
        alarms += any(not difference.is_noise for difference in verdict.test.differences.values())
    assert alarms <= 8


def test_a_difference_that_other_seeds_may_undo_is_noise_though_patients_agree_on_it():
    """Thousands of patients settle which of two seeds is better, not which of two configurations."""
    rng = np.random.default_rng(8)
    split = draw(rng, {0: 1.0}, patients=5000, seeds=1)
    better = draw(np.random.default_rng(8), {0: 1.3}, patients=5000, seeds=1).scores[0]
    scores = {0: np.concatenate([better, split.scores[0]]), 1: np.concatenate([split.scores[0], split.scores[0]])}
    verdict = judge(*[Scored(split.targets, split.patients, scores)] * 2, "auroc_macro", resamples=300)
    difference = verdict.test.differences[1]
    assert difference.p < 0.01
    assert difference.is_noise


def test_the_sentence_names_who_is_worse_and_whose_difference_is_noise():
    rng = np.random.default_rng(9)
    verdict = judge(*(draw(rng, {5: 1.5, 2: 1.5, 8: 0.3}, patients=500) for _ in range(2)), "auroc_macro")
    first, second = verdict.order[:2]
    assert verdict.sentence == (
        f"On the test films the winner, trial {first}, is better than trial 8 and its difference from trial {second} "
        "is within noise."
    )
    assert any(f"trial {first}, cannot be told from trial {second}" in warning for warning in verdict.warnings)


def test_equal_networks_are_said_to_be_alike():
    split = draw(np.random.default_rng(10), {0: 1.0})
    same = Scored(split.targets, split.patients, dict.fromkeys((0, 1, 2), split.scores[0]))
    verdict = judge(same, same, "auroc_macro", resamples=100)
    assert verdict.winner == 0
    assert verdict.sentence == (
        "On the test films no finalist can be told from the winner, trial 0: its differences from trials 1 and 2 are "
        "within noise."
    )
    assert {difference.p_holm for difference in verdict.test.differences.values()} == {1.0}


def test_a_single_finalist_is_compared_with_nobody():
    split = draw(np.random.default_rng(11), {3: 1.0})
    verdict = judge(split, split, "auroc_macro", resamples=100)
    assert verdict.sentence == "Trial 3 is the only finalist: there is no difference to judge."
    assert math.isnan(verdict.spearman)


def test_a_saturated_validation_is_warned_of():
    rng = np.random.default_rng(12)
    verdict = judge(draw(rng, {0: 5.0}), draw(rng, {0: 1.0}), "auroc_macro", resamples=100)
    assert any("at the ceiling" in warning for warning in verdict.warnings)
    calm = judge(draw(rng, {0: 1.0}), draw(rng, {0: 5.0}), "auroc_macro", resamples=100)
    assert not calm.warnings


def test_a_single_training_is_warned_of():
    split = draw(np.random.default_rng(13), {0: 1.0}, seeds=1)
    (warning,) = judge(split, split, "auroc_macro", resamples=100).warnings
    assert "Trial 0 was trained once" in warning


def test_how_well_validation_ranked_the_finalists_is_told_by_ranks():
    """Three finalists, of which the last two change places: one of three pairs is discordant."""
    rng = np.random.default_rng(14)
    validation = draw(rng, {0: 2.0, 1: 1.0, 2: 0.2}, patients=2000)
    test = draw(rng, {0: 2.0, 1: 0.2, 2: 1.0}, patients=2000)
    verdict = judge(validation, test, "auroc_macro", resamples=20)
    assert verdict.kendall == pytest.approx((2 - 1) / 3)
    assert verdict.spearman == pytest.approx(1 - 6 * 2 / (3 * 8))


def test_a_finding_without_positives_is_left_out_and_counted():
    split = draw(np.random.default_rng(15), {0: 1.0, 1: 1.5}, labels=3)
    split.targets[:, 1] = 0
    verdict = judge(split, split, "auroc_macro", resamples=100)
    assert (verdict.test.labels, verdict.test.of_labels) == (2, 3)
    both = [roc_auc_score(split.targets[:, c], split.scores[0][0, :, c]) for c in (0, 2)]
    assert verdict.test.reached[0].values[0] == pytest.approx(np.mean(both))


def test_the_optimism_gap_is_over_the_findings_that_both_splits_define():
    """Three findings of unequal difficulty, and no positives of the easiest on test: equally good, so no optimism."""
    rng = np.random.default_rng(17)
    validation, test = (draw(rng, {0: np.array([0.3, 0.3, 3.0])}, patients=2000, labels=3) for _ in range(2))
    test.targets[:, 2] = 0
    verdict = judge(validation, test, "auroc_macro", resamples=100)
    assert verdict.validation.reached[0].mean - verdict.test.reached[0].mean > 0.1
    one, other = (
        np.mean([roc_auc_score(of.targets[:, c], seed[:, c]) for seed in of.scores[0] for c in (0, 1)])
        for of in (validation, test)
    )
    assert verdict.gap.value == pytest.approx(one - other)
    assert verdict.gap.low < 0 < verdict.gap.high
    assert (verdict.gap.labels, verdict.gap.of_labels) == (2, 3)


def test_where_nothing_is_defined_nothing_is_claimed():
    """A test split without any positive film."""
    rng = np.random.default_rng(16)
    validation, test = draw(rng, {0: 1.0, 1: 2.0}), draw(rng, {0: 1.0, 1: 2.0})
    test.targets[:] = 0
    verdict = judge(validation, test, "auroc_macro", resamples=100)
    assert math.isnan(verdict.test.reached[1].mean)
    assert math.isnan(verdict.gap.value)
    assert verdict.gap.labels == 0
    assert verdict.test.differences[0].is_noise


def test_holms_correction_by_hand():
    """Holm 1979: sorted .01 .02 .03 .04 times 4, 3, 2, 1 are .04 .06 .06 .04, and none is below an earlier one."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_an_undefined_comparison_counts_among_those_corrected_for():
    corrected = holm([math.nan, 0.01])
    assert math.isnan(corrected[0])
    assert corrected[1] == pytest.approx(0.02)


def test_the_p_of_a_bootstrap_is_that_of_the_normal_distribution_it_is_drawn_from():
    """Differences two standard errors off zero: p of .0455, known here to .002."""
    differences = np.random.default_rng(17).normal(2.0, 1.0, 100_000)
    assert bootstrap_p(differences) == pytest.approx(2 * norm.sf(2.0), abs=0.002)
    assert bootstrap_p(-differences) == bootstrap_p(differences)
    assert bootstrap_p(np.zeros(10)) == 1.0
    assert bootstrap_p(np.ones(99)) == pytest.approx(2 / 100)
    assert math.isnan(bootstrap_p(np.full(10, math.nan)))
