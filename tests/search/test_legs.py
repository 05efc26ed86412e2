"""What happens next in a search, with every epoch's outcome known in advance and no Ray."""

import pytest
from torch import nn

from cxr_core.models import models
from search.legs import Pause
from search.study import Study
from search.trial import Outcome
from tests.search.conftest import RECIPE, SPACE, epoch_record, legs_on, quality


def outcomes(study):
    return {trial.number: trial.outcome for trial in study.trials()}


def test_a_search_trains_few_trials_in_full_and_prunes_the_rest(search):
    legs, trainer = search()
    assert trainer.run(legs)
    legs.close()
    ended = list(outcomes(legs.journal).values())
    assert len(ended) == 12
    assert set(ended) == {Outcome.FULL, Outcome.PRUNED}
    assert 1 <= ended.count(Outcome.FULL) <= 5


def test_the_best_curve_is_trained_in_full_and_wins(search):
    legs, trainer = search()
    trainer.run(legs)
    best = max(range(12), key=lambda trial: quality(trial, 10))
    assert legs.journal.winner().number == best


def test_a_trial_that_waits_gives_its_slot_to_a_new_one(search):
    legs, trainer = search(slots=1)
    trainer.run(legs, epochs=2)
    assert [leg.trial for leg in trainer.handed_out][:2] == [0, 1]
    assert legs.standing(legs.journal.trial(0)) == "waiting"


def test_a_trial_in_the_top_goes_on_without_losing_its_process(search):
    legs, trainer = search(slots=1, value=lambda trial, epoch: 0.5 + 0.01 * trial)
    trainer.run(legs, epochs=4)  # trials 0 and 1 wait; trial 2 is the best of three and goes on at once
    assert trainer.trained == [(0, 1), (1, 1), (2, 1), (2, 2)]
    assert [leg.trial for leg in trainer.handed_out] == [0, 1, 2]


def test_promotions_come_before_new_trials(search):
    legs, trainer = search(slots=1, value=lambda trial, epoch: 0.9 - 0.1 * trial)
    trainer.run(legs, epochs=4)
    assert [leg.trial for leg in trainer.handed_out][:4] == [0, 1, 2, 0]


def test_interrupted_legs_come_first(search):
    legs, trainer = search()
    trainer.run(legs, epochs=3)
    in_flight = sorted(legs.live)
    again = legs_on(Study(legs.journal.folder), legs.space)
    assert sorted([again.next_leg().trial, again.next_leg().trial]) == in_flight


def test_a_leg_goes_on_from_the_last_checkpoint(search):
    legs, trainer = search()
    trainer.run(legs, epochs=40)
    again = legs_on(Study(legs.journal.folder), legs.space)
    for number in again.interrupted:
        leg = again.next_leg()
        epochs = legs.journal.trial(number).epochs
        assert leg.trial == number
        assert leg.checkpoint == (epochs[-1].checkpoint if epochs else None)


@pytest.mark.parametrize("kills", [[5], [1, 2, 3], [10, 20, 30], [7, 31, 8, 1, 1, 1]])
def test_a_killed_and_resumed_search_loses_nothing_and_repeats_only_epochs_in_flight(search, kills):
    legs, trainer = search()
    for epochs in kills:
        trainer.run(legs, epochs=len(trainer.trained) + epochs)
        legs = legs_on(Study(legs.journal.folder), legs.space, trainer.clock)
    assert trainer.run(legs)
    legs.close()
    repeated = len(trainer.trained) - len(set(trainer.trained))
    assert repeated <= trainer.slots * len(kills)
    assert len(outcomes(legs.journal)) == 12
    assert Outcome.OPEN not in outcomes(legs.journal).values()
    for trial in legs.journal.trials():
        assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))


def test_the_rungs_of_a_resumed_search_are_those_of_the_one_that_was_killed(search):
    legs, trainer = search()
    trainer.run(legs, epochs=25)
    again = legs_on(Study(legs.journal.folder), legs.space)
    numbers = [trial.number for trial in legs.journal.trials()]
    values = lambda ladder: [[ladder.reached(n, rung) for n in numbers] for rung in (0, 1)]  # noqa: E731
    assert values(again.rungs) == values(legs.rungs)
    assert again.rungs.candidates() == legs.rungs.candidates()


def test_baselines_run_first_and_in_full(search, tmp_path):
    (tmp_path / "plain.yaml").write_text(RECIPE)
    legs, trainer = search("baselines=[plain.yaml]", value=lambda trial, epoch: 0.1 if trial == 0 else 0.9)
    trainer.run(legs)
    baseline = legs.journal.trial(0)
    assert baseline.baseline == "plain"
    assert baseline.outcome is Outcome.FULL
    assert len(baseline.epochs) == 4


def test_a_baseline_is_added_once_however_often_the_search_is_resumed(search, tmp_path):
    (tmp_path / "plain.yaml").write_text(RECIPE)
    legs, trainer = search("baselines=[plain.yaml]")
    for _ in range(3):
        trainer.run(legs, epochs=len(trainer.trained) + 3)
        legs = legs_on(Study(legs.journal.folder), legs.space, trainer.clock)
    trainer.run(legs)
    assert [trial.baseline for trial in legs.journal.trials()].count("plain") == 1


def test_a_diverged_trial_ends_with_its_reason_and_the_search_goes_on(search):
    legs, trainer = search()
    leg = legs.next_leg()
    legs.failed(leg.trial, Outcome.DIVERGED, "the training loss became nan in epoch 1")
    legs.leg_ended(leg.trial)
    trainer.run(legs)
    assert legs.journal.trial(leg.trial).outcome is Outcome.DIVERGED
    assert "nan in epoch 1" in legs.journal.trial(leg.trial).reason
    assert legs.journal.winner()


def test_a_lost_process_gets_its_leg_again_but_not_for_ever(search):
    legs, _ = search(slots=1)
    first = legs.next_leg().trial
    for _attempt in range(2):
        legs.process_lost(first, "node lost")
        legs.leg_ended(first)
        assert legs.next_leg().trial == first
    legs.process_lost(first, "node lost")
    legs.leg_ended(first)
    assert legs.journal.trial(first).outcome is Outcome.INFRASTRUCTURE
    assert legs.next_leg().trial != first


def test_a_trial_that_gets_on_between_its_losses_is_not_given_up(search):
    legs, _ = search("asha.mode=none", slots=1)
    first = legs.next_leg().trial
    for epoch in range(1, 6):
        assert legs.epoch_done(first, epoch_record(epoch, 0.6))
        legs.process_lost(first, "node lost")
        legs.leg_ended(first)
        assert legs.next_leg().trial == first
    assert legs.journal.trial(first).attempts == 5


def test_the_same_exception_in_the_first_trials_stops_the_search(search):
    legs, _ = search(slots=1)
    for _trial in range(3):
        leg = legs.next_leg()
        legs.failed(leg.trial, Outcome.ERROR, "KeyError: 'label'")
        legs.leg_ended(leg.trial)
    assert legs.next_leg() is Pause.FINISHED
    assert legs.mistake == "KeyError: 'label'"


def test_an_exception_after_a_trial_that_worked_is_that_trials_own(search):
    legs, trainer = search(slots=1)
    trainer.run(legs, epochs=1)
    for _trial in range(4):
        leg = legs.next_leg()
        legs.failed(leg.trial, Outcome.ERROR, "KeyError: 'label'")
        legs.leg_ended(leg.trial)
    assert legs.mistake is None
    assert not isinstance(legs.next_leg(), Pause)


@pytest.fixture
def family_for_large_films():
    """A family that needs 75 px, as Inception networks do."""

    @models.register("large_films_only")
    def large_films_only(image_size, outputs, dropout):
        layers = [nn.Conv2d(1, 4, 75), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)]
        return nn.Sequential(*layers)

    yield "large_films_only"
    del models._components["large_films_only"]


def test_a_network_that_does_not_fit_the_films_is_infeasible_before_a_worker_is_used(search, family_for_large_films):
    text = SPACE.replace("inception_resnet: {residual_scale: {float: [0.05, 1.0], log: true}}", "large_films_only: {}")
    legs, trainer = search(text=text)
    trainer.run(legs)
    infeasible = [t for t in legs.journal.trials() if t.outcome is Outcome.INFEASIBLE]
    assert infeasible
    for trial in infeasible:
        assert trial.flat["model"] == "large_films_only"
        assert "28 px" in trial.reason
        assert trial.number not in [leg.trial for leg in trainer.handed_out]


def test_a_stopping_search_lets_live_legs_end_their_epoch_and_hands_out_nothing(search):
    legs, _ = search()
    legs.next_leg(), legs.next_leg()
    legs.stop("SIGINT")
    assert legs.next_leg() is Pause.WAIT
    assert not legs.epoch_done(0, epoch_record(1, 0.99))
    legs.leg_ended(0)
    legs.leg_ended(1)
    assert legs.next_leg() is Pause.FINISHED


def test_a_search_stopped_by_a_signal_leaves_waiting_trials_to_be_resumed(search):
    legs, trainer = search()
    trainer.run(legs, epochs=10)
    waiting = [n for n, _ in legs.rungs.waiting()]
    assert waiting
    assert all(legs.journal.trial(number).outcome is Outcome.OPEN for number in waiting)


def test_no_new_trial_is_proposed_in_the_reserve(search):
    legs, trainer = search("budget={trials: 1000, time: 100s, reserve: 0.5}")
    trainer.run(legs)
    assert trainer.now < 100
    last_start = max(leg.trial for leg in trainer.handed_out)
    assert legs.journal.trials()[last_start].outcome is not None
    assert trainer.now >= 50


def test_a_time_budget_is_not_overrun_by_more_than_an_epoch(search):
    legs, trainer = search("budget={trials: 1000, time: 40s, reserve: 0.0}")
    trainer.run(legs)
    assert trainer.now <= 41


def test_the_leader_is_promoted_in_time_to_be_trained_in_full(search):
    legs, trainer = search("budget={trials: 1000, time: 20s, reserve: 0.0}", "asha={rungs: [0.1], eta: 100}")
    trainer.run(legs)
    assert legs.journal.winner() is not None


def test_time_used_by_earlier_sessions_counts(search):
    legs, trainer = search("budget={trials: 1000, time: 100s}")
    again = legs_on(legs.journal, legs.space, trainer.clock, seconds_used=99.5)
    trainer.now += 1
    assert again.next_leg() is Pause.FINISHED


def test_a_slot_does_not_stand_idle_while_the_last_leg_runs(search):
    legs, trainer = search("budget={trials: 3}", "asha={rungs: [0.1], eta: 3}")
    trainer.run(legs)
    # One of three is promoted; the other slot trains the next best beside it.
    assert list(outcomes(legs.journal).values()).count(Outcome.FULL) == 2


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_schedule_so_short_that_rungs_fall_together_still_ends_with_a_winner(search, epochs):
    legs, trainer = search(f"space.epochs={epochs}", "budget.trials=3")
    trainer.run(legs)
    legs.close()
    assert legs.journal.winner()
    assert Outcome.OPEN not in outcomes(legs.journal).values()
