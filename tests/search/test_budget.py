"""Budgets: what ends a search, what it keeps back, what it foresees, and how it goes on with more."""

import pytest

from search.budget import Budget
from search.legs import BUDGETS, Pause
from search.space import BudgetSection
from search.study import Study
from search.trial import Outcome, Step, Trial
from tests.search.conftest import RECIPE, SPACE, epoch_record, legs_on

ONE_FAMILY = "space.model=small_cnn"


def rising(trial, epoch):
    """Each trial is better than all before it."""
    return 0.3 + 0.01 * trial + 0.001 * epoch


def falling(trial, epoch):
    """The first trial is the best."""
    return 0.9 - 0.01 * trial + 0.001 * epoch


def full(journal):
    return [trial for trial in journal.trials() if trial.outcome is Outcome.FULL]


def test_trials_end_a_search_when_they_are_used_up(search):
    legs, trainer = search("budget.trials=7")
    trainer.run(legs)
    assert len(legs.journal.trials()) == 7
    assert legs.stopping is None


def test_baselines_are_not_taken_off_the_trials(search, tmp_path):
    (tmp_path / "plain.yaml").write_text(RECIPE)
    legs, trainer = search("budget.trials=3", "baselines=[plain.yaml]")
    trainer.run(legs)
    assert len(legs.journal.trials()) == 4


def test_gpu_hours_are_training_time_times_the_gpus_of_a_trial():
    budget = Budget(BudgetSection(gpu_hours=2), devices=0.5, slots=4, clock=lambda: 0.0)
    budget._seconds_of[0] = 0.0
    budget.spend(0, 7200)
    assert budget.gpu_hours == 1
    assert budget.over is None
    assert budget.time_left == 3600 / (0.5 * 4)  # of wall clock, with all slots at work
    budget.spend(0, 7200)
    assert budget.over == "gpu_hours"


def test_gpu_hours_end_a_search_within_an_epoch_of_each_slot(search):
    legs, trainer = search("budget={trials: 1000, gpu_hours: 0.01, reserve: 0.0}", ONE_FAMILY)
    trainer.run(legs)
    assert legs.stopping == "gpu_hours"
    assert 36 <= legs.budget.seconds <= 36 + 2


def test_a_target_ends_a_search_with_the_first_full_trial_that_reaches_it(search):
    legs, trainer = search("budget={trials: 1000, target: 0.35}", ONE_FAMILY, slots=1, value=rising)
    trainer.run(legs)
    assert legs.stopping == "target"
    assert [trial.value >= 0.35 for trial in full(legs.journal)] == [False] * (len(full(legs.journal)) - 1) + [True]


def test_a_target_of_a_metric_to_be_minimised_is_reached_from_above(search):
    text = SPACE.replace("{metric: auroc_macro, direction: maximize}", "{metric: log_loss}")
    legs, trainer = search("budget={trials: 1000, target: 0.8}", ONE_FAMILY, slots=1, text=text, value=falling)
    trainer.run(legs)
    assert legs.stopping == "target"
    assert legs.journal.winner().value <= 0.8


def test_a_target_reached_outside_the_constraints_does_not_count(search):
    legs, trainer = search("budget={trials: 8, target: 0.1}", "constraints={auroc_worst: {min: 0.99}}")
    trainer.run(legs)
    assert legs.stopping is None


def test_a_plateau_is_so_many_full_trials_in_a_row_without_a_better_one(search):
    legs, trainer = search("budget={trials: 1000, plateau: 3}", "asha.mode=none", ONE_FAMILY, slots=1, value=falling)
    trainer.run(legs)
    assert legs.stopping == "plateau"
    assert [trial.number for trial in full(legs.journal)] == [0, 1, 2, 3]


def test_a_search_that_improves_has_no_plateau(search):
    legs, trainer = search("budget={trials: 10, plateau: 1}", "asha.mode=none", ONE_FAMILY, slots=1, value=rising)
    trainer.run(legs)
    assert legs.stopping is None
    assert len(full(legs.journal)) == 10


@pytest.mark.parametrize("limit", ["time: 100s", "gpu_hours: 0.02777"])
def test_nothing_new_is_proposed_in_the_reserve_but_what_began_is_finished(search, limit):
    legs, trainer = search(f"budget={{trials: 1000, {limit}, reserve: 0.5}}", "asha.mode=none", ONE_FAMILY, slots=1)
    trainer.run(legs)
    assert 50 <= trainer.now <= 60  # the last trial began before the half, and has 10 epochs
    assert all(trial.outcome is Outcome.FULL for trial in legs.journal.trials())


@pytest.mark.parametrize("limit", ["trials: 60", "trials: 1000, time: 200s, reserve: 0.0"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_forecast_is_within_a_half_of_what_the_search_then_takes(search, limit, share):
    budget = f"budget={{{limit}}}"
    legs, trainer = search(budget, "asha={rungs: [0.2], eta: 4}", ONE_FAMILY, slots=4)
    trainer.run(legs)
    whole, epochs = trainer.now, len(trainer.trained)
    legs, trainer = search(budget, "asha={rungs: [0.2], eta: 4}", ONE_FAMILY, slots=4)
    trainer.run(legs, epochs=int(share * epochs))
    left = whole - trainer.now
    assert 0.5 * left <= legs.seconds_left() <= 1.5 * left


def test_before_anything_was_trained_there_is_no_forecast(search):
    legs, _ = search()
    legs.next_leg()
    assert legs.seconds_left() is None


# Going on

ENDED = [
    ("budget={trials: 30, time: 15s, reserve: 0.0}", "budget={trials: 30, time: 1000s, reserve: 0.0}", "time"),
    ("budget={trials: 30, gpu_hours: 0.005, reserve: 0.0}", "budget={trials: 30, gpu_hours: 1}", "gpu_hours"),
    ("budget={trials: 30, target: 0.3}", "budget={trials: 30, target: 2.0}", "target"),
    ("budget={trials: 30, plateau: 1}", "budget={trials: 30, plateau: 100}", "plateau"),
]


def ended_by(search, tight):
    """A search of three slots that its budget ends, and its trainer; a live leg hears of it with its next epoch."""
    legs, trainer = search(tight, "asha={rungs: [0.2], eta: 3}", ONE_FAMILY, slots=3, value=falling)
    assert trainer.run(legs)
    legs.close()
    return legs, trainer


# Trainers in step leave no trial in flight when these gpu_hours end.
@pytest.mark.parametrize(("tight", "more", "why"), [case for case in ENDED if case[2] != "gpu_hours"])
def test_on_exhaustion_live_trials_are_paused_with_the_reason_and_stay_open(search, tight, more, why):
    legs, _ = ended_by(search, tight)
    assert legs.stopping == why
    assert why in BUDGETS
    paused = [trial for trial in legs.journal.trials() if trial.outcome is Outcome.OPEN]
    assert paused
    for trial in paused:
        assert trial.decisions[-1].step is Step.PAUSED
        assert trial.decisions[-1].why == f"the search stops ({why}); {len(trial.epochs)} of 10 epochs are saved"


@pytest.mark.parametrize(("tight", "more", "why"), ENDED)
def test_with_more_of_the_budget_paused_trials_go_on_from_their_last_epoch(search, make_space, tight, more, why):
    legs, trainer = ended_by(search, tight)
    open_ones = [trial.number for trial in legs.journal.trials() if trial.outcome is Outcome.OPEN]
    begun = len(trainer.handed_out)
    study, space = Study(legs.journal.folder), make_space(SPACE, "asha={rungs: [0.2], eta: 3}", ONE_FAMILY, more)
    study.adopt(space)
    again = legs_on(study, space, trainer.clock, seconds_used=trainer.now)
    trainer.run(again)
    again.close()
    assert sorted(leg.trial for leg in trainer.handed_out[begun : begun + len(open_ones)]) == open_ones
    assert len(trainer.trained) == len(set(trainer.trained))  # no epoch is trained twice
    assert len(study.trials()) == 30
    assert all(trial.outcome is not Outcome.OPEN for trial in study.trials())


@pytest.mark.parametrize(("tight", "more", "why"), ENDED)
def test_resumed_without_more_of_the_budget_a_search_hands_out_nothing(search, tight, more, why):
    legs, trainer = ended_by(search, tight)
    again = legs_on(Study(legs.journal.folder), legs.space, trainer.clock, seconds_used=trainer.now)
    assert again.next_leg() is Pause.FINISHED
    assert again.stopping == why


def test_more_trials_go_on_where_the_search_ended(search, make_space):
    legs, trainer = search("budget.trials=5")
    trainer.run(legs)
    legs.close()
    study, space = Study(legs.journal.folder), make_space(SPACE, "budget.trials=9")
    study.adopt(space)
    again = legs_on(study, space, trainer.clock)
    trainer.run(again)
    assert [trial.number for trial in study.trials()] == list(range(9))


def test_what_earlier_sessions_trained_counts_towards_gpu_hours(search):
    legs, trainer = search("budget={trials: 1000, gpu_hours: 0.01}", ONE_FAMILY)
    trainer.run(legs, epochs=20)
    again = legs_on(Study(legs.journal.folder), legs.space)
    assert again.budget.seconds == legs.budget.seconds == 20


def test_an_epoch_that_ends_after_the_budget_is_kept(search):
    legs, trainer = search("budget={trials: 1000, time: 10s, reserve: 0.0}")
    number = legs.next_leg().trial
    trainer.now = 11.0
    assert not legs.epoch_done(number, epoch_record(1, 0.5))
    legs.leg_ended(number)
    assert len(legs.journal.trial(number).epochs) == 1


def test_trainings_for_the_finals_are_not_taken_off_the_trials_and_make_no_plateau():
    repeat = Trial(5, {"epochs": 2}, seed=5, repeats=0, finals=True, outcome=Outcome.FULL, values=(0.5,))
    search, finals = (Budget(BudgetSection(trials=4, plateau=1), finals=held) for held in (False, True))
    for budget in (search, finals):
        budget.begin(repeat)
        budget.end(repeat, eligible=False)
    assert (search.trials_left, finals.trials_left) == (4, 3)
    assert search.over is None
