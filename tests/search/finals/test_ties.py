"""Tie-breakers: where the objective cannot tell leaders apart, another metric decides, and it is said."""

import dataclasses

import numpy as np
import pytest

from cxr_core.located_yaml import SpaceError
from cxr_core.recipe import load_recipe
from search.finals.repeats import choose
from search.finals.ties import TieBreaker, best_of, tie_breakers, with_ties_broken
from search.finals.verdict import judge
from search.trial import Outcome
from tests.search.conftest import RECIPE, SPACE, drawn, epoch_record, legs_on
from tests.search.finals.test_verdict import draw

BREAKERS = "objective.tie_breakers=[stressed_auroc_macro, log_loss]"


@pytest.fixture
def study(make_study, make_space):
    return make_study(make_space(SPACE, BREAKERS))


@pytest.fixture
def train(study, make_space):
    """A full trial that reached some metrics."""

    def train(value, stressed=None, log_loss=0.5):
        trial = drawn(study, make_space(SPACE, BREAKERS))
        metrics = {"auroc_macro": value, "stressed_auroc_macro": stressed, "log_loss": log_loss}
        study.record(trial.number, dataclasses.replace(epoch_record(1, value), metrics=metrics))
        return study.finish(trial.number, Outcome.FULL)

    return train


def numbers(trials):
    return [trial.number for trial in trials]


def compare_within(width):
    """Stands for the bootstrap: as good as the other in half of the resamples if they are that close, else never."""
    return lambda one, other: 0.5 if abs(one[0].value - other[0].value) <= width else 0.0


def test_those_that_cannot_be_told_from_the_best_go_by_the_tie_breaker_and_the_others_follow(study, train):
    for value, stressed in ((0.99, 0.80), (0.98, 0.95), (0.985, 0.90), (0.90, 0.99), (0.91, 0.70)):
        train(value, stressed)
    assert numbers(choose(study, 5, compare_within(0.011))) == [1, 2, 0, 4, 3]
    assert numbers(choose(study, 2, compare_within(0.011))) == [1, 2]
    assert numbers(choose(study, 5, compare_within(0.0))) == [0, 2, 1, 4, 3]
    assert numbers(choose(study, 5)) == [0, 2, 1, 4, 3]


def test_the_next_tie_breaker_decides_where_one_is_equal_and_a_loss_is_best_small(study, train):
    for log_loss in (0.3, 0.2, 0.4):
        train(0.99, 0.9, log_loss)
    assert numbers(with_ties_broken(study.trials(), study.objective, compare_within(1))) == [1, 0, 2]


def test_what_has_no_value_of_a_tie_breaker_comes_last(study, train):
    train(0.99, None)
    train(0.99, 0.6)
    assert numbers(with_ties_broken(study.trials(), study.objective, compare_within(1))) == [1, 0]


def test_a_configuration_is_known_by_the_mean_of_its_seeds(study, train):
    trials = [train(0.9, stressed) for stressed in (0.8, 0.6)]
    stressed, _ = tie_breakers(study.objective, {0: trials})
    assert stressed.values == {0: pytest.approx(0.7)}


def test_full_trainings_keep_their_scores_for_the_comparison_and_are_stressed_at_their_end(study, make_space):
    leg = legs_on(study, make_space(SPACE, BREAKERS)).next_leg()
    assert leg.scored == (10,)
    assert leg.stressed == 10


def test_without_a_tie_breaker_nothing_is_stressed_and_without_a_stressed_one_neither(make_study, make_space):
    for overrides, scored in (([], ()), (["objective.tie_breakers=[log_loss]"], (10,))):
        space = make_space(SPACE, *overrides)
        leg = legs_on(make_study(space), space).next_leg()
        assert (leg.scored, leg.stressed) == (scored, 0)


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        ("tie_breakers: [log_los]", "there is no tie-breaker 'log_los'; did you mean 'log_loss'"),
        ("tie_breakers: [auroc_macro]", "not the first objective"),
        ("tie_breakers: [brier, brier]", "different metrics"),
    ],
)
def test_a_mistaken_tie_breaker_is_named(make_space, objective, why):
    with pytest.raises(SpaceError, match=why):
        make_space(SPACE.replace("direction: maximize", objective))


def test_accuracy_breaks_no_tie_of_several_labels(make_space):
    several = SPACE.replace("kind: binary, labels: [Pneumonia]", "kind: multilabel, labels: [Mass, Nodule]")
    with pytest.raises(SpaceError, match="accuracy is no tie-breaker for several labels"):
        make_space(several, "objective.tie_breakers=[accuracy]")
    make_space(SPACE, "objective.tie_breakers=[accuracy]")


def alike(seed=0):
    """Three finalists on two splits: 4 and 6 are equal but for noise, 9 is poor."""
    rng = np.random.default_rng(seed)
    return [draw(rng, {4: 1.5, 6: 1.5, 9: 0.2}) for _ in range(2)]


def test_the_winner_of_the_finals_is_the_tie_breakers_among_those_within_noise():
    validation, test = alike()
    leader = judge(validation, test, "auroc_macro", resamples=200).winner
    other = 10 - leader
    breaker = TieBreaker("log_loss", {leader: 0.31, other: 0.30, 9: 0.01})
    verdict = judge(validation, test, "auroc_macro", resamples=200, breakers=[breaker])
    assert verdict.winner == other  # and not 9, which is credibly worse
    assert verdict.order[0] == leader
    assert verdict.tie == (
        "auroc_macro on validation cannot tell 2 finalists apart, so the tie-breaker log_loss decides: 0.3000 of trial "
        f"{other}, against 0.3100 of trial {leader}. Best in auroc_macro alone is trial {leader}."
    )
    assert verdict.tie in verdict.warnings
    assert not any("left to chance" in warning for warning in verdict.warnings)
    assert set(verdict.test.differences) == {leader, 9}


def test_where_the_tie_breaker_agrees_it_is_said():
    validation, test = alike()
    leader = judge(validation, test, "auroc_macro", resamples=200).winner
    breaker = TieBreaker("auprc_macro", {leader: 0.9, 10 - leader: 0.8, 9: 1.0})
    verdict = judge(validation, test, "auroc_macro", resamples=200, breakers=[breaker])
    assert verdict.winner == leader
    assert "It has the best auroc_macro, too." in verdict.tie


def test_a_clear_winner_needs_no_tie_breaker():
    rng = np.random.default_rng(1)
    splits = [draw(rng, {0: 2.0, 1: 0.2}) for _ in range(2)]
    verdict = judge(*splits, "auroc_macro", resamples=200, breakers=[TieBreaker("log_loss", {0: 0.9, 1: 0.1})])
    assert (verdict.winner, verdict.tie) == (0, "")


def test_an_objective_under_stress_chooses_whether_there_is_a_tie_or_not():
    validation, test = alike()
    breaker = TieBreaker("stressed_auroc_macro", {4: 0.7, 6: 0.8, 9: 0.9}, always=True)
    verdict = judge(validation, test, "auroc_macro", resamples=200, breakers=[breaker])
    assert verdict.winner == 9
    assert verdict.tie == (
        "The search improved stressed_auroc_macro, which chooses: 0.9000 of trial 9, against 0.8000 of trial 6, "
        "0.7000 of trial 4."
    )


def test_an_objective_under_stress_is_known_to_the_space_and_to_recipes_not(make_space, tmp_path):
    space = make_space(SPACE, "objective.metric=stressed_log_loss", "objective.direction=minimize")
    assert space.objective.maximize == (False,)
    assert space.objective.judged == "log_loss"
    with pytest.raises(SpaceError, match="stressed_log_loss is better when it is minimized"):
        make_space(SPACE, "objective.metric=stressed_log_loss")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("auroc_macro", "stressed_log_loss"))
    with pytest.raises(SpaceError, match="there is no metric 'stressed_log_loss'"):
        load_recipe(tmp_path / "recipe.yaml")


def test_who_may_not_win_takes_no_part_in_a_tie():
    validation, test = alike()
    breaker = TieBreaker("log_loss", {4: 0.3, 6: 0.1, 9: 0.2})
    verdict = judge(validation, test, "auroc_macro", may_win={4, 9}, resamples=200, breakers=[breaker])
    assert (verdict.winner, verdict.tie) == (4, "")


def test_equal_in_everything_the_first_trial_wins():
    assert best_of([5, 3], [TieBreaker("log_loss", {3: 0.1, 5: 0.1})]) == 3
