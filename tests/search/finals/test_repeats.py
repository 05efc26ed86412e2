"""Which trials become finalists, and how they come to have as many trainings as the others."""

import pytest

from search.checkpoints import Checkpoints
from search.finals.repeats import NoFinalist, Repeats, broken, choose, seeds_of, trainings_of
from search.placement import Resources
from search.trial import Outcome
from tests.search.conftest import SPACE, Trainer, drawn
from tests.search.finals.conftest import save

ONE = Resources(concurrent=1)


def numbers(trials):
    return [trial.number for trial in trials]


def run(study, space, repeats, epochs=None, value=lambda trial, epoch: 0.6):
    """Train legs as workers do; killed after a number of epochs if one is given."""
    trainer = Trainer(repeats.budget.slots, value)
    done = repeats.epoch_done
    repeats.epoch_done = lambda number, record: done(number, save(study, number, record.epoch, record.value))
    return trainer.run(repeats, epochs), trainer


def test_finalists_are_the_best_full_trials_and_every_full_baseline(study, train):
    train(0.5, baseline="poor")
    for value in (0.7, 0.9, 0.6, 0.8):
        train(value)
    train(0.99, outcome=Outcome.PRUNED)
    train(0.95, repeats=2)
    train(0.4, outcome=Outcome.DIVERGED, baseline="broken")
    assert numbers(choose(study, 2)) == [2, 4, 0]
    assert numbers(choose(study, 9)) == [2, 4, 1, 3, 0]


def test_a_baseline_among_the_best_is_one_finalist(study, train):
    train(0.9, baseline="good")
    train(0.7)
    assert numbers(choose(study, 2)) == [0, 1]


def test_without_a_full_trial_there_is_no_finalist(study, train):
    train(0.9, outcome=Outcome.PRUNED)
    with pytest.raises(NoFinalist, match="no trial was trained in full"):
        choose(study, 3)


def test_each_finalist_is_trained_with_new_seeds_until_it_has_enough(study, train, make_space):
    train(0.7)
    train(0.9)
    train(0.85, repeats=1)  # one that the search paid for
    finals = Repeats(study, make_space(), [1, 0], 3, ONE)
    assert finals.lacking() == {1: 1, 0: 2}
    assert run(study, make_space(), finals)[0]
    assert finals.is_complete
    for finalist in (0, 1):
        group = trainings_of(study, finalist)
        assert len(group) == 3
        assert all(trial.flat == study.trial(finalist).flat for trial in group)
    assert len({trial.seed for trial in study.trials()[3:]} - {0}) == 3
    assert len(study.trials()) == 6


def test_who_has_enough_trains_nothing(study, train, make_space):
    train(0.7)
    train(0.7, repeats=0)
    finals = Repeats(study, make_space(), [0], 2, ONE)
    assert finals.is_complete
    assert run(study, make_space(), finals)[1].trained == []


@pytest.mark.parametrize("epochs", [0, 1, 7, 15, 23])
def test_killed_repeats_go_on_where_they_were_and_repeat_only_epochs_in_flight(study, train, make_space, epochs):
    train(0.7)
    train(0.9)
    space = make_space()
    ended, first = run(study, space, Repeats(study, space, [1, 0], 3, Resources(concurrent=2)), epochs)
    assert not ended
    ended, second = run(study, space, Repeats(study, space, [1, 0], 3, Resources(concurrent=2)))
    assert ended
    assert len(study.trials()) == 6
    assert all(len(trainings_of(study, finalist)) == 3 for finalist in (0, 1))
    assert len(first.trained) + len(second.trained) == 4 * 10  # the journal had each epoch before the kill


def test_trials_that_the_search_left_open_are_not_trained(study, train, make_space):
    train(0.7)
    space = make_space()
    open_trial = drawn(study, space)
    study.record(open_trial.number, save(study, open_trial.number, 3, 0.5))
    finals = Repeats(study, space, [0], 2, ONE)
    run(study, space, finals)
    assert study.trial(open_trial.number).outcome is Outcome.OPEN
    assert len(study.trial(open_trial.number).epochs) == 1


def test_a_training_that_breaks_is_counted_and_not_replaced(study, train, make_space):
    train(0.7)
    finals = Repeats(study, make_space(), [0], 2, ONE)
    leg = finals.next_leg()
    finals.failed(leg.trial, Outcome.DIVERGED, "the loss is nan")
    finals.leg_ended(leg.trial)
    assert finals.is_complete
    assert numbers(broken(study, [0])) == [1]
    assert numbers(trainings_of(study, 0)) == [0]
    assert Repeats(study, make_space(), [0], 3, ONE).lacking() == {0: 1}


def test_a_training_whose_checkpoint_is_gone_is_made_up_for(study, train, make_space):
    first = train(0.7)
    (study.folder / first.epochs[-1].checkpoint).unlink()
    finals = Repeats(study, make_space(), [0], 2, ONE)
    assert finals.lacking() == {0: 2}
    run(study, make_space(), finals)
    assert numbers(trainings_of(study, 0)) == [1, 2]
    assert numbers(seeds_of(study, 0)) == [0, 1, 2]


def test_a_repeat_of_a_staged_trial_is_trained_once_on_all_films(make_study, make_space):
    space = make_space(SPACE, "asha={fidelity: data_share, rungs: [0.1, 0.5], eta: 3}")
    study = make_study(space)
    flat = {"model": "small_cnn", "epochs": 4}
    trial = study.add(flat, 0, "for a test", stages=3)
    for epoch in range(1, 13):
        study.record(trial.number, save(study, trial.number, epoch, 0.7))
    study.finish(trial.number, Outcome.FULL)
    leg = Repeats(study, space, [0], 2, ONE).next_leg()
    assert leg.data_share == 1
    assert leg.config.epochs == 4
    assert study.trial(leg.trial).stages == 1


def test_checkpoints_of_finalists_and_their_repeats_are_kept_whatever_the_number_and_the_quota(study, train):
    for value in (0.9, 0.8):
        train(value)
    repeat = train(0.1, repeats=1)
    study.note("finalists", [1])
    Checkpoints(study.folder, study, best=1, quota=1).sweep(repeat)
    kept = {int(path.parent.name) for path in (study.folder / "trials").glob("*/epoch-*.pt")}
    assert kept == {1, 2}


def test_without_finalists_the_repeat_gives_way(study, train):
    """The counterpart of the test above: the same trials, and nobody named."""
    for value in (0.9, 0.8):
        train(value)
    repeat = train(0.1, repeats=1)
    Checkpoints(study.folder, study, best=1, quota=1).sweep(repeat)
    assert {int(path.parent.name) for path in (study.folder / "trials").glob("*/epoch-*.pt")} == {0}
