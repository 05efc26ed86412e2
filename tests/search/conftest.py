"""Small spaces and studies for the tests of `search`."""

import itertools
import time

import pandas as pd
import pytest

from search.budget import Budget
from search.leg import Leg
from search.legs import Legs, Pause
from search.proposals import propose
from search.proposer import complete
from search.space import load_space
from search.study import Study
from search.trial import EpochRecord
from tests.search.clinic import finalized_clinic

SPACE = """
name: tiny
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro, direction: maximize}
budget: {trials: 12}
asha: {rungs: [0.1, 0.5], eta: 3}
space:
  model:
    choice:
      small_cnn: {width: {int: [8, 32], step: 8}}
      inception_resnet: {residual_scale: {float: [0.05, 1.0], log: true}}
  lr: {float: [1e-4, 1e-2], log: true}
  dropout: {float: [0.0, 0.5]}
  epochs: 10
"""

RECIPE = """
name: plain
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro}
space: {model: small_cnn, epochs: 4}
"""


@pytest.fixture(scope="session")
def finalized(tmp_path_factory):
    """A study of a clinic's films after its finals; tests leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_core.console.show_log", lambda *packages: None)  # a handler would outlive this
        return finalized_clinic(tmp_path_factory.mktemp("clinic"))


@pytest.fixture
def make_space(tmp_path):
    """A space from YAML text and overrides."""
    count = itertools.count()

    def make(text=SPACE, *overrides):
        path = tmp_path / f"space{next(count)}.yaml"
        path.write_text(text)
        return load_space(path, list(overrides))

    return make


@pytest.fixture
def make_study(tmp_path, make_space):
    """A new study of a space, without any film."""
    count = itertools.count()

    def make(space=None):
        split = pd.DataFrame({"image": ["a", "b"], "patient": ["a", "b"], "split": ["train", "val"]})
        facts = {"seed": 0, "data": "phantom", "split_hash": "0", "mlflow": "", "versions": {}}
        facts |= {"films": {"train": 1, "val": 1}, "patients": {"train": 1, "val": 1}, "unreadable": 0}
        counts = {"train": {"positive": 1, "labelled": 1, "prevalence": 1.0}}
        counts["val"] = {"positive": 0, "labelled": 1, "prevalence": 0.0}
        facts |= {"labels": {"Pneumonia": counts}, "missing": 0, "copies": 0, "notes": []}
        return Study.create(tmp_path / f"study{next(count)}", space or make_space(), facts, split)

    return make


def legs_on(journal, space, clock=lambda: 0.0, seconds_used=0.0, slots=1, seed=0, **options):
    """A search on a journal, as a session makes one."""
    budget = Budget(space.header.budget, space.objective.maximize[0], slots=slots, clock=clock)
    budget.began = clock() - seconds_used
    return Legs(journal, space, seed, budget, **options)


def drawn(study, space, seed=0):
    """A new trial of a study, drawn at random."""
    number = len(study.trials())
    proposal = propose(space.domains, "random", [], seed=seed, number=number, maximize=study.objective.maximize)
    searched = {"params": proposal.params, "distributions": proposal.distributions}
    return study.add(complete(proposal.flat), seed + number, proposal.origin, **searched)


def epoch_record(epoch, value, seconds=1.0):
    return EpochRecord(
        epoch=epoch,
        value=value,
        train_loss=0.5,
        metrics={"auroc_macro": value, "log_loss": value},
        auroc={"Pneumonia": value},
        films_per_second=100.0,
        seconds=seconds,
        peak_memory=0,
        checkpoint=f"trials/epoch-{epoch}.pt",
        at=time.time(),
    )


def quality(trial, epoch):
    """A learning curve known in advance: the trial's number decides its end, and all rise alike."""
    return (0.5 + 0.4 * (trial * 7919 % 101) / 101) * (1 - 0.5**epoch)


class Trainer:
    """Stands in for the workers: trains legs of `slots` trials in turn, an epoch at a time, on a clock of its own."""

    def __init__(self, slots=2, value=quality):
        self.slots, self.value, self.now = slots, value, 0.0
        self.trained: list[tuple[int, int]] = []
        self.handed_out: list[Leg] = []

    def clock(self):
        return self.now

    def run(self, legs: Legs, epochs=None):
        """Until the search ends, or, killed in mid-flight, after a number of epochs; True if it ended."""
        running: dict[int, int] = {}
        while True:
            while len(running) < self.slots:
                leg = legs.next_leg()
                if leg is Pause.FINISHED and not running:
                    return True
                if isinstance(leg, Pause):
                    break
                self.handed_out.append(leg)
                done = legs.journal.trial(leg.trial).epochs
                running[leg.trial] = len(done)
            self.now += 1.0
            for trial in list(running):
                if epochs is not None and len(self.trained) >= epochs:
                    return False
                running[trial] += 1
                self.trained.append((trial, running[trial]))
                if not legs.epoch_done(trial, epoch_record(running[trial], self.value(trial, running[trial]))):
                    del running[trial]
                    legs.leg_ended(trial)


@pytest.fixture
def search(make_space, make_study):
    """A search on a new study, and its trainer."""

    def make(*overrides, slots=2, value=quality, text=SPACE):
        space = make_space(text, *overrides)
        trainer = Trainer(slots, value)
        return legs_on(make_study(space), space, trainer.clock, slots=slots), trainer

    return make
