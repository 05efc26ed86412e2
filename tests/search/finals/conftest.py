"""Studies whose trials were trained in full to a given value, each with a checkpoint on disk."""

import dataclasses

import pytest

from search.trial import Outcome
from tests.search.conftest import drawn, epoch_record


@pytest.fixture
def study(make_study, make_space):
    return make_study(make_space())


@pytest.fixture
def train(study, make_space):
    """A trial trained in full to a value, its checkpoint on disk as a worker leaves it."""

    def train(value, outcome=Outcome.FULL, baseline=None, repeats=None):
        kind = {key: kept for key, kept in (("baseline", baseline), ("repeats", repeats)) if kept is not None}
        flat = study.trial(repeats).flat if repeats is not None else {"model": "small_cnn", "epochs": 2}
        space = make_space()
        trial = study.add(flat, 0, "for a test", **kind) if kind else drawn(study, space)
        for epoch in range(1, trial.schedule + 1):
            study.record(trial.number, save(study, trial.number, epoch, value))
        return study.finish(trial.number, outcome)

    return train


def save(study, number, epoch, value):
    path = study.trial_folder(number) / f"epoch-{epoch:04d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return dataclasses.replace(epoch_record(epoch, value), checkpoint=str(path.relative_to(study.folder)))
