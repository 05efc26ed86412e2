"""Which checkpoints a study keeps on disk."""

import dataclasses

import pytest

from search.checkpoints import Checkpoints
from search.trial import Outcome
from tests.search.conftest import SPACE, drawn, epoch_record

SIZE = 1000
"""Bytes of each checkpoint."""


@pytest.fixture
def trained(make_space, make_study):
    """Trains trials of a study, writing checkpoints as a worker does: the last two epochs'."""
    study = None

    def train(value, outcome, epochs=3, overrides=(), **metrics):
        nonlocal study
        space = make_space(SPACE, *overrides)
        study = study or make_study(space)
        trial = study.add(drawn(study, space).flat, 0, "again") if outcome is None else drawn(study, space)
        folder = study.trial_folder(trial.number)
        folder.mkdir(parents=True)
        for epoch in range(1, epochs + 1):
            path = folder / f"epoch-{epoch:04d}.pt"
            if epoch > epochs - 2:
                path.write_bytes(bytes(SIZE))
            record = epoch_record(epoch, value)
            name = str(path.relative_to(study.folder))
            kept = {**record.metrics, **metrics}
            study.record(trial.number, dataclasses.replace(record, checkpoint=name, metrics=kept))
        if outcome is not Outcome.OPEN:
            study.finish(trial.number, outcome)
        return study, study.trial(trial.number)

    return train


def on_disk(study):
    """Trials with a checkpoint, and their epochs."""
    found = sorted((study.folder / "trials").glob("*/epoch-*.pt"))
    return [(int(path.parent.name), int(path.stem[6:])) for path in found]


def sweep_all(trained, best, outcomes_and_values, quota=None, **options):
    keeper = None
    for outcome, value in outcomes_and_values:
        study, trial = trained(value, outcome, **options)
        keeper = keeper or Checkpoints(study.folder, study, best, quota)
        if outcome is not Outcome.OPEN:
            keeper.sweep(trial)
    return study


FULL, OPEN = Outcome.FULL, Outcome.OPEN


def test_a_full_trial_keeps_its_last_checkpoint_only(trained):
    study = sweep_all(trained, 5, [(FULL, 0.5)])
    assert on_disk(study) == [(0, 3)]


@pytest.mark.parametrize("outcome", [Outcome.PRUNED, Outcome.DIVERGED, Outcome.ERROR, Outcome.INFRASTRUCTURE])
def test_a_trial_that_will_not_go_on_keeps_none(trained, outcome):
    study = sweep_all(trained, 5, [(outcome, 0.9), (FULL, 0.5)])
    assert on_disk(study) == [(1, 3)]


def test_the_best_full_trials_keep_theirs_whatever_the_order_they_came_in(trained):
    study = sweep_all(trained, 2, [(FULL, 0.6), (FULL, 0.9), (FULL, 0.5), (FULL, 0.8), (FULL, 0.7)])
    assert on_disk(study) == [(1, 3), (3, 3)]


def test_the_winner_is_among_them_after_each_trial(trained):
    keeper = None
    for value in (0.6, 0.9, 0.5, 0.8, 0.95, 0.7):
        study, trial = trained(value, FULL)
        keeper = keeper or Checkpoints(study.folder, study, 1)
        keeper.sweep(trial)
        assert on_disk(study) == [(study.winner().number, 3)]


def test_the_quota_takes_the_worst_first_and_the_winner_never(trained):
    study = sweep_all(trained, 5, [(FULL, 0.6), (FULL, 0.9), (FULL, 0.8)], quota=2 * SIZE)
    assert on_disk(study) == [(1, 3), (2, 3)]


def test_a_quota_smaller_than_one_checkpoint_still_keeps_the_winner(trained):
    study = sweep_all(trained, 5, [(FULL, 0.6), (FULL, 0.9), (FULL, 0.8)], quota=1)
    assert on_disk(study) == [(1, 3)]


def test_a_trial_that_may_go_on_keeps_its_checkpoints_whatever_the_quota(trained):
    study = sweep_all(trained, 1, [(OPEN, 0.1), (FULL, 0.9), (FULL, 0.8)], quota=1)
    assert on_disk(study) == [(0, 2), (0, 3), (1, 3)]


def test_the_pareto_front_is_kept_beside_the_best(trained):
    study = keeper = None
    for auroc, loss in [(0.9, 0.5), (0.8, 0.6), (0.7, 0.1), (0.6, 0.7)]:
        several = ["objective={metrics: [auroc_macro, log_loss]}"]
        study, trial = trained(auroc, FULL, overrides=several, log_loss=loss)
        keeper = keeper or Checkpoints(study.folder, study, 1)
        keeper.sweep(trial)
    assert on_disk(study) == [(0, 3), (2, 3)]


def test_a_trial_outside_the_constraints_gives_way_first(trained):
    bound = ["constraints={auroc_worst: {min: 0.5}}"]
    keeper = None
    for auroc, worst in [(0.9, 0.4), (0.6, 0.6)]:
        study, trial = trained(auroc, FULL, overrides=bound, auroc_worst=worst)
        keeper = keeper or Checkpoints(study.folder, study, 1)
        keeper.sweep(trial)
    assert on_disk(study) == [(1, 3)]


def test_what_a_kill_left_of_ended_trials_goes_with_the_next_one_that_ends(trained):
    trained(0.9, Outcome.PRUNED)
    trained(0.8, FULL)
    trained(0.7, FULL)
    study, last = trained(0.6, FULL)
    Checkpoints(study.folder, study, 2).sweep(last)  # a new session's: it saw none of the others end
    assert on_disk(study) == [(1, 3), (2, 3)]
