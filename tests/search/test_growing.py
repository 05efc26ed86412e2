"""A study that goes on with another space or policy, finite spaces, and constraints on a network's cost."""

import itertools
from collections import Counter

import pytest

from search.legs import Pause
from search.study import Study
from search.trial import Outcome, Step
from tests.search.conftest import RECIPE, SPACE, Trainer, epoch_record, legs_on, quality

FINITE = """
name: finite
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro}
budget: {trials: 40}
searcher: {name: random}
asha: {mode: none}
space:
  model: {choice: {small_cnn: {width: {int: [8, 16], step: 8}}}}
  optimizer: {choice: {adamw: {}, sgd: {}}}
  epochs: 2
"""


TWO_FAMILIES = SPACE.replace("inception_resnet: {residual_scale: {float: [0.05, 1.0], log: true}}", "resnet18: {}")


def identity(trial):
    return tuple(sorted(trial.flat.items()))


# Finite spaces


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_nothing_is_trained_twice_but_as_another_seed_of_a_leader(search, searcher):
    legs, trainer = search(f"searcher.name={searcher}", slots=1, text=FINITE)
    trainer.run(legs)
    trials = legs.journal.trials()
    first = [trial for trial in trials if trial.repeats is None]
    assert len({identity(trial) for trial in first}) == len(first) <= 4
    for trial in trials:
        if trial.repeats is not None:
            assert identity(trial) == identity(trials[trial.repeats])
            assert trial.seed != trials[trial.repeats].seed
            assert f"another seed of trial {trial.repeats}" in trial.decisions[0].why


def test_a_space_that_is_used_up_ends_the_search_before_its_budget_does(search):
    legs, trainer = search(slots=2, text=FINITE)
    trainer.run(legs)
    assert legs.next_leg() is Pause.FINISHED
    configurations = {identity(trial) for trial in legs.journal.trials()}
    assert len(configurations) == 4
    assert Counter(map(identity, legs.journal.trials())) == dict.fromkeys(configurations, 3)  # seeds of each


def test_the_best_configuration_gets_another_seed_first(search):
    legs, trainer = search("asha.mode=none", slots=1, text=FINITE)
    trainer.run(legs)
    trials = legs.journal.trials()
    repeat = next(trial for trial in trials if trial.repeats is not None)
    before = [t for t in trials[: repeat.number] if t.outcome is Outcome.FULL]
    assert repeat.repeats == max(before, key=lambda t: t.value).number


def test_a_repeat_neither_wins_nor_meets_a_rung(search):
    best_when_repeated = lambda trial, epoch: 0.99 if trial >= 4 else quality(trial, epoch)  # noqa: E731
    legs, trainer = search("asha={mode: promote, rungs: [0.5], eta: 2}", slots=1, text=FINITE, value=best_when_repeated)
    trainer.run(legs)
    repeats = [trial for trial in legs.journal.trials() if trial.repeats is not None]
    assert repeats
    for trial in repeats:
        assert [decision.step for decision in trial.decisions] == [Step.PROPOSED, Step.LAUNCHED, Step.ENDED]
    assert legs.journal.winner().repeats is None


# Constraints on what a network costs


def test_a_network_that_costs_too_much_is_infeasible_before_a_worker_is_used(search):
    legs, trainer = search(slots=1, text=FINITE)
    trainer.run(legs)
    weights = {t.flat["model.small_cnn.width"]: legs.space.config(t.flat, 0).footprint() for t in legs.journal.trials()}
    small, large = (weights[width].parameters for width in (8, 16))
    bound = f"constraints={{parameters: {{max: {(small + large) / 2}}}}}"
    legs, trainer = search(bound, slots=1, text=FINITE)
    trainer.run(legs)
    for trial in legs.journal.trials():
        if trial.flat["model.small_cnn.width"] == 16:
            assert trial.outcome is Outcome.INFEASIBLE
            assert trial.reason.startswith(f"parameters {large:.4g} is above")
            assert trial.number not in [leg.trial for leg in trainer.handed_out]
        else:
            assert trial.outcome is Outcome.FULL
            assert trial.epochs[-1].metrics["parameters"] == small


def test_a_baseline_outside_the_constraints_is_trained_but_does_not_win(search, tmp_path):
    (tmp_path / "plain.yaml").write_text(RECIPE)
    legs, trainer = search("constraints={parameters: {max: 10}}", "baselines=[plain.yaml]", slots=1)
    trainer.run(legs)
    assert legs.journal.trial(0).outcome is Outcome.FULL
    assert legs.journal.winner() is None


# Another policy on resume

MODES = ["promote", "stop", "hyperband", "none"]
CHANGES = [*itertools.permutations(MODES, 2), ("promote", "rungs: [0.2, 0.4, 0.7]")]


@pytest.mark.parametrize(
    ("before", "after"), [*itertools.permutations(MODES, 2), ("promote", "rungs: [0.2, 0.4, 0.7]")]
)
@pytest.mark.parametrize("epochs", [9, 23])
def test_a_search_goes_on_under_another_policy_and_no_trial_is_lost_or_handed_out_twice(
    search, make_space, before, after, epochs
):
    legs, trainer = search(f"asha={{rungs: [0.1, 0.5], eta: 2, mode: {before}}}", slots=2, text=TWO_FAMILIES)
    trainer.run(legs, epochs=epochs)
    kept = {trial.number: len(trial.epochs) for trial in legs.journal.trials()}
    now = after if ":" in after else f"rungs: [0.1, 0.5], mode: {after}"
    space = make_space(TWO_FAMILIES, f"asha={{eta: 2, {now}}}")
    study = Study(legs.journal.folder)
    study.adopt(space)
    again = OneLegEach(study, space)
    other = Trainer(2)
    other.run(again.legs)
    again.legs.close()
    assert all(trial.outcome in (Outcome.FULL, Outcome.PRUNED) for trial in study.trials())
    assert len(study.trials()) == 12
    for number, done in kept.items():
        assert [epoch.epoch for epoch in study.trial(number).epochs] == list(
            range(1, len(study.trial(number).epochs) + 1)
        )
        assert (number, done) not in other.trained
    assert study.winner()


class OneLegEach:
    """A search that notices when a trial is handed out while it is being trained."""

    def __init__(self, study, space):
        self.legs = legs_on(study, space)
        hand_out = self.legs.next_leg

        def next_leg():
            live = set(self.legs.live)
            leg = hand_out()
            assert isinstance(leg, Pause) or leg.trial not in live
            return leg

        self.legs.next_leg = next_leg


# Another space on resume


def narrowed(search, make_space, epochs=20):
    """A search killed in mid-flight, and its study opened with a narrower range of dropout."""
    legs, trainer = search(
        "asha={rungs: [0.1], eta: 2}", value=lambda trial, epoch: 0.5 + 0.01 * trial, text=TWO_FAMILIES
    )
    trainer.run(legs, epochs=epochs)
    space = make_space(
        TWO_FAMILIES, "asha={rungs: [0.1], eta: 2}", "space.dropout={float: [0.0, 0.25]}", "budget.trials=16"
    )
    study = Study(legs.journal.folder)
    study.adopt(space)
    outside = {t.number for t in study.trials() if t.flat["dropout"] > 0.25}
    assert 0 < len(outside) < len(study.trials())
    return study, space, outside


def test_trials_outside_a_narrowed_space_are_not_trained_any_further(search, make_space):
    study, space, outside = narrowed(search, make_space)
    before = {number: len(study.trial(number).epochs) for number in outside}
    legs, trainer = legs_on(study, space), Trainer(2)
    trainer.run(legs)
    legs.close()
    assert not outside & {leg.trial for leg in trainer.handed_out}
    assert before == {number: len(study.trial(number).epochs) for number in outside}
    ended = [study.trial(number) for number in outside]
    assert {trial.outcome for trial in ended} <= {Outcome.PRUNED, Outcome.FULL}
    assert any("outside the changed space" in trial.reason for trial in ended)


def test_trials_that_still_lie_in_the_space_go_on(search, make_space):
    study, space, outside = narrowed(search, make_space)
    open_ones = {t.number for t in study.trials() if t.outcome is Outcome.OPEN} - outside
    trainer, legs = Trainer(2), legs_on(study, space)
    in_flight = set(legs.interrupted)
    assert in_flight <= open_ones
    trainer.run(legs)
    assert in_flight <= {leg.trial for leg in trainer.handed_out}
    assert len(study.trials()) == 16


def test_a_space_that_is_widened_again_before_the_end_takes_its_trials_back(search, make_space):
    study, _, outside = narrowed(search, make_space)
    open_ones = {number for number in outside if study.trial(number).outcome is Outcome.OPEN}
    legs = legs_on(Study(study.folder), make_space(TWO_FAMILIES, "asha={rungs: [0.1], eta: 2}"))
    known = {number for number, _ in legs.rungs.waiting()} | set(legs.interrupted)
    assert open_ones
    assert open_ones <= known


def test_the_winner_is_the_best_full_trial_even_if_the_space_left_it_out_since(search, make_space):
    """What was trained in full on these films towards this objective is a result; ranges only say where to look on."""
    legs, trainer = search("asha.mode=none", "budget.trials=4", slots=1, text=TWO_FAMILIES)
    trainer.run(legs)
    winner = legs.journal.winner()
    space = make_space(
        TWO_FAMILIES, "asha.mode=none", f"space.dropout={{float: [0.0, {0.9 * winner.flat['dropout']}]}}"
    )
    study = Study(legs.journal.folder)
    study.adopt(space)
    Trainer(1, lambda trial, epoch: 0.1).run(legs_on(study, space))
    assert study.winner().number == winner.number
    assert len(study.trials()) == 12


def test_a_branch_that_is_removed_is_proposed_no_more_and_one_that_is_added_is(search, make_space):
    legs, trainer = search()
    trainer.run(legs, epochs=12)
    begun = len(legs.journal.trials())
    study, space = Study(legs.journal.folder), make_space(TWO_FAMILIES, "budget.trials=30")
    study.adopt(space)
    trainer = Trainer(2)
    trainer.run(legs_on(study, space))
    families = [trial.family for trial in study.trials()]
    assert "inception_resnet" in families[:begun]
    assert set(families[begun:]) == {"small_cnn", "resnet18"}
    assert "inception_resnet" not in {study.trial(leg.trial).family for leg in trainer.handed_out}


def test_a_leg_of_a_baseline_goes_on_though_it_never_lay_in_the_space(search, tmp_path):
    (tmp_path / "plain.yaml").write_text(RECIPE.replace("epochs: 4", "epochs: 4, dropout: 0.59"))
    legs, _ = search("baselines=[plain.yaml]", slots=1)
    legs.epoch_done(legs.next_leg().trial, epoch_record(1, 0.6))
    again = legs_on(Study(legs.journal.folder), legs.space)
    assert again.next_leg().trial == 0
