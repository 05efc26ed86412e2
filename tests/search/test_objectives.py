"""What a search improves: one metric or several, within constraints, and who wins."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_core.located_yaml import SpaceError
from search.objectives import Bound, Objective, ranked
from search.trial import Outcome
from tests.search.conftest import SPACE, drawn, epoch_record

AUROC = Objective(("auroc_macro",), (True,))
SEVERAL = "objective={metrics: [auroc_macro, log_loss]}"


def within(**bounds):
    return Objective(("auroc_macro",), (True,), {name: Bound(**bound) for name, bound in bounds.items()})


def test_less_is_better_of_what_is_reached_whatever_the_direction():
    up, down = AUROC, Objective(("log_loss",), (False,))
    assert up.reached({"auroc_macro": 0.9}) < up.reached({"auroc_macro": 0.8})
    assert down.reached({"log_loss": 0.1}) < down.reached({"log_loss": 0.2})


def test_a_trial_within_the_constraints_beats_every_other_one():
    objective = within(auroc_worst={"min": 0.7})
    kept = objective.reached({"auroc_macro": 0.6, "auroc_worst": 0.7})
    broken = objective.reached({"auroc_macro": 0.99, "auroc_worst": 0.69})
    assert kept < broken
    assert kept.violation == 0


def test_of_trials_outside_the_constraints_the_one_that_misses_them_less_is_better():
    objective = within(parameters={"max": 1e6}, auroc_worst={"min": 0.5})
    reached = {
        0: objective.reached({"auroc_macro": 0.99, "parameters": 2e6, "auroc_worst": 0.6}),  # misses one by 100 %
        1: objective.reached({"auroc_macro": 0.7, "parameters": 1.1e6, "auroc_worst": 0.45}),  # two by 10 %
        2: objective.reached({"auroc_macro": 0.6, "parameters": 0.9e6, "auroc_worst": 0.6}),
    }
    assert ranked(reached) == [2, 1, 0]
    assert reached[1].violation == pytest.approx(0.2)


@pytest.mark.parametrize("undefined", [None, float("nan"), float("inf")])
def test_a_constraint_on_something_undefined_is_not_kept(undefined):
    objective = within(auroc_worst={"min": 0.5})
    metrics = {"auroc_macro": 0.9, "auroc_worst": undefined}
    assert objective.reached(metrics).violation > 0
    assert objective.broken(metrics) == ["auroc_worst is undefined"]


@pytest.mark.parametrize("metrics", [{}, {"auroc_macro": None}, {"auroc_macro": math.nan}, {"auroc_macro": math.inf}])
def test_an_objective_without_a_finite_value_is_undefined(metrics):
    assert AUROC.undefined(metrics) == "auroc_macro"
    assert AUROC.undefined({"auroc_macro": 0.5}) == ""


def test_a_trial_whose_objective_becomes_undefined_ends_as_diverged(search):
    legs, _ = search()
    number = legs.next_leg().trial
    assert not legs.epoch_done(number, epoch_record(1, math.nan))
    legs.leg_ended(number)
    trial = legs.journal.trial(number)
    assert trial.outcome is Outcome.DIVERGED
    assert trial.reason == "auroc_macro has no finite value after epoch 1"
    assert trial.epochs == ()


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=10), up=st.booleans())
def test_one_objective_ranks_as_sorting_does(values, up):
    objective = Objective(("m",), (up,))
    order = ranked({number: objective.reached({"m": value}) for number, value in enumerate(values)})
    assert [values[number] for number in order] == sorted(values, reverse=up)


# The space file


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective={metrics: [auroc_macro, log_los]}", "there is no metric 'log_los'; did you mean 'log_loss'"),
        ("constraints={auroc_wurst: {min: 0.6}}", "there is no metric 'auroc_wurst' to constrain; did you mean"),
        ("objective={metrics: [parameters, auroc_macro]}", "the first metric names the winner"),
        ("objective={metrics: [auroc_macro]}", "lists two or more different ones"),
        ("objective={metrics: [auroc_macro, auroc_macro]}", "lists two or more different ones"),
        ("objective={metric: auroc_macro, metrics: [auroc_macro, log_loss]}", "not both"),
        ("constraints={auroc_worst: {min: 0.6, max: 0.9}}", "has either `min` or `max`"),
        ("constraints={auroc_worst: {}}", "has either `min` or `max`"),
    ],
)
def test_an_objective_that_makes_no_sense_is_told(make_space, override, message):
    with pytest.raises(SpaceError) as told:
        make_space(SPACE, override)
    assert message in str(told.value)


def test_a_wrong_metric_is_told_with_its_line(make_space):
    text = SPACE.replace("objective: {metric: auroc_macro, direction: maximize}", "objective:\n  metric: auroc_makro")
    line = text.splitlines().index("  metric: auroc_makro") + 1
    with pytest.raises(SpaceError, match=rf"space\d\.yaml:{line}: .*auroc_macro"):
        make_space(text)


def test_several_metrics_need_a_searcher_that_takes_several(make_space):
    with pytest.raises(SpaceError, match="the searcher gp takes one metric; for several, take nsgaii or tpe"):
        make_space(SPACE, SEVERAL, "searcher.name=gp")


@pytest.mark.parametrize("searcher", ["tpe", "nsgaii", "random"])
def test_several_metrics_have_each_its_own_direction(make_space, searcher):
    objective = make_space(SPACE, SEVERAL, f"searcher.name={searcher}").objective
    assert objective.metrics == ("auroc_macro", "log_loss")
    assert objective.maximize == (True, False)


# Who wins


def trained(study, space, metrics, outcome=Outcome.FULL, **kind):
    number = drawn(study, space).number
    record = epoch_record(1, metrics["auroc_macro"])
    study.record(number, type(record)(**{**vars(record), "metrics": metrics}))
    study.finish(number, outcome)
    return number


def test_the_front_is_what_no_other_full_trial_beats_in_everything(make_space, make_study):
    space = make_space(SPACE, SEVERAL)
    study = make_study(space)
    for auroc, loss in [(0.9, 0.5), (0.8, 0.2), (0.85, 0.6), (0.7, 0.1), (0.8, 0.3)]:
        trained(study, space, {"auroc_macro": auroc, "log_loss": loss})
    trained(study, space, {"auroc_macro": 0.99, "log_loss": 0.0}, Outcome.PRUNED)
    assert [trial.number for trial in study.front()] == [0, 1, 3]
    assert study.winner().number == 0
    assert {t.number for t in study.optuna_study().best_trials} == {0, 1, 3}


def test_a_trial_outside_the_constraints_neither_wins_nor_is_on_the_front(make_space, make_study):
    space = make_space(SPACE, SEVERAL, "constraints={auroc_worst: {min: 0.6}}")
    study = make_study(space)
    trained(study, space, {"auroc_macro": 0.9, "log_loss": 0.1, "auroc_worst": 0.5})
    trained(study, space, {"auroc_macro": 0.8, "log_loss": 0.2, "auroc_worst": 0.6})
    assert study.winner().number == 1
    assert [trial.number for trial in study.front()] == [1]


def test_the_smallest_wins_where_the_metric_is_to_be_minimised(make_space, make_study):
    space = make_space(SPACE.replace("{metric: auroc_macro, direction: maximize}", "{metric: log_loss}"))
    study = make_study(space)
    for loss in (0.4, 0.2, 0.3):
        trained(study, space, {"auroc_macro": 0.5, "log_loss": loss})
    assert study.winner().number == 1


def test_a_search_of_several_objectives_finds_a_front_and_prunes(search):
    legs, trainer = search(SEVERAL, slots=2)
    trainer.run(legs)
    legs.close()
    outcomes = [trial.outcome for trial in legs.journal.trials()]
    assert set(outcomes) == {Outcome.FULL, Outcome.PRUNED}
    assert legs.journal.front()
