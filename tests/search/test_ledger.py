"""The ledger: every decision with its evidence, and a search that is killed anywhere ends as one that was not."""

import itertools
import random

import pytest

from search.study import Study
from search.trial import Outcome, Step
from tests.search.conftest import Trainer, legs_on, quality

SMALL = """
name: small
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 32}
objective: {metric: auroc_macro}
budget: {trials: 6}
searcher: {name: tpe, startup: 3}
asha: {rungs: [0.25, 0.5], eta: 2}
space:
  model: {choice: {small_cnn: {width: {int: [8, 16], step: 8}}, resnet18: {}}}
  lr: {float: [1e-4, 1e-2], log: true}
  epochs: 4
"""

MAY_FOLLOW = {
    Step.PROPOSED: {Step.LAUNCHED, Step.ENDED},
    Step.LAUNCHED: {Step.LAUNCHED, Step.WAITS, Step.PROMOTED, Step.RETRIED, Step.PAUSED, Step.ENDED},
    Step.WAITS: {Step.PROMOTED, Step.ENDED},
    Step.PROMOTED: {Step.LAUNCHED, Step.WAITS, Step.PROMOTED, Step.RETRIED, Step.PAUSED, Step.ENDED},
    Step.RETRIED: {Step.LAUNCHED, Step.PAUSED, Step.ENDED},
    Step.PAUSED: {Step.LAUNCHED, Step.ENDED},
    Step.ENDED: set(),
}


def with_a_broken_trial(trial, epoch):
    """Trial 2 diverges after its second epoch."""
    return float("nan") if (trial, epoch) == (2, 3) else quality(trial, epoch) + 0.3 * (trial == 2)


def whole_truth(study):
    """All that a search found out, without when."""
    return [
        (t.flat, t.seed, t.baseline, t.repeats, t.outcome, t.reason, t.values, [(e.epoch, e.value) for e in t.epochs])
        for t in study.trials()
    ]


def check_ledgers(study):
    for trial in study.trials():
        steps = [decision.step for decision in trial.decisions]
        assert steps[0] is Step.PROPOSED
        for step, following in itertools.pairwise(steps):
            assert following in MAY_FOLLOW[step], (trial.number, steps)
        assert (steps[-1] is Step.ENDED) == (trial.outcome is not Outcome.OPEN)


STAGED = "asha={rungs: [0.5], eta: 2, fidelity: data_share}"


@pytest.mark.parametrize(
    ("policy", "every"),
    [("asha.mode=promote", 1), ("asha.mode=stop", 3), ("asha.mode=hyperband", 3), (STAGED, 5)],
)
def test_a_search_killed_after_any_write_and_resumed_ends_as_an_uninterrupted_one(search, policy, every):
    """A kill leaves the lines that were written. One slot: what several slots decide depends on who is first."""
    legs, trainer = search(policy, slots=1, value=with_a_broken_trial, text=SMALL)
    begun = len((legs.journal.folder / "journal.log").read_bytes().splitlines())
    trainer.run(legs)
    legs.close()
    journal = legs.journal.folder / "journal.log"
    lines, uninterrupted = journal.read_bytes().splitlines(keepends=True), whole_truth(legs.journal)
    assert {t.outcome for t in legs.journal.trials()} == {Outcome.FULL, Outcome.PRUNED, Outcome.DIVERGED}
    for written in range(begun, len(lines), every):
        journal.write_bytes(b"".join(lines[:written]))
        again = legs_on(Study(legs.journal.folder), legs.space)
        Trainer(1, with_a_broken_trial).run(again)
        again.close()
        assert whole_truth(again.journal) == uninterrupted, written
        check_ledgers(again.journal)
        assert whole_truth(Study(legs.journal.folder)) == uninterrupted


@pytest.mark.parametrize("seed", range(4))
def test_no_kill_makes_a_ledger_that_no_search_could_have_written(search, seed):
    chance = random.Random(seed)
    legs, trainer = search("budget.trials=8", value=with_a_broken_trial, text=SMALL)
    while not trainer.run(legs, epochs=len(trainer.trained) + chance.randint(0, 6)):
        if legs.live and chance.random() < 0.5:
            lost = min(legs.live)
            legs.process_lost(lost, "its process died")
            legs.leg_ended(lost)
        if chance.random() < 0.3:
            legs.stop("SIGTERM")
            for number in list(legs.live):
                legs.leg_ended(number)
        legs = legs_on(Study(legs.journal.folder), legs.space, slots=2)
    legs.close()
    check_ledgers(legs.journal)
    assert len(legs.journal.trials()) == 8
    assert all(trial.outcome is not Outcome.OPEN for trial in legs.journal.trials())


def test_a_failure_that_a_kill_kept_from_being_finished_is_finished_on_resume(search):
    legs, _ = search(slots=1, text=SMALL)
    number = legs.next_leg().trial
    legs.journal.decide(number, Step.ENDED, "KeyError: 'label'", outcome="error")
    again = legs_on(Study(legs.journal.folder), legs.space)
    assert again.journal.trial(number).outcome is Outcome.ERROR
    assert again.journal.trial(number).reason == "KeyError: 'label'"
    assert again.interrupted == ()


def test_the_evidence_of_a_decision_at_a_rung_is_its_place_and_the_value_to_beat(search):
    legs, trainer = search(slots=1, text=SMALL, value=lambda trial, epoch: 0.9 - 0.1 * trial)
    trainer.run(legs, epochs=3)  # 0 waits; of 0 and 1, 0 is promoted, and waits again
    waits, promoted, again = [d for d in legs.journal.trial(0).decisions if d.step in (Step.WAITS, Step.PROMOTED)]
    assert waits.evidence["cohort"] == 1
    assert waits.evidence["go_on"] == 0
    assert promoted.evidence | {"rung": 0, "place": 1, "cohort": 2, "go_on": 1} == promoted.evidence
    assert promoted.evidence["epoch"] == 1
    assert promoted.evidence["value"] == promoted.evidence["cutoff_value"] == 0.9
    assert again.evidence["rung"] == 1
    below = legs.journal.trial(1).decisions[-1]
    assert below.why == "place 2 of 2 at 25%, where 1 go on"
    assert below.evidence["cutoff"] == 0


def test_each_decision_is_in_the_journal_before_the_next_is_made(search):
    legs, trainer = search(slots=1, text=SMALL)
    trainer.run(legs, epochs=7)
    assert [t.decisions for t in Study(legs.journal.folder).trials()] == [t.decisions for t in legs.journal.trials()]
