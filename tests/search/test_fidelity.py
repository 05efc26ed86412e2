"""What grows from rung to rung: the schedule, the size of the films, or their number."""

import pytest

from cxr_core.located_yaml import SpaceError
from search.fidelity import Fidelities, Stage
from search.study import StudyError
from search.trial import Outcome
from tests.search.conftest import SPACE

IMAGE_SIZE = "asha={rungs: [0.25, 0.5], eta: 2, fidelity: image_size}"
STAGED = (IMAGE_SIZE, "data.image_size=128", "space.epochs=2", "space.model=small_cnn", "budget.trials=6")


def test_a_growing_schedule_has_one_stage():
    fidelities = Fidelities("schedule", (0.05, 0.2), 224)
    assert fidelities.stages == 1
    assert fidelities.fractions == (0.05, 0.2)
    assert fidelities.stage(37, 40) == Stage(224, 1.0, 0)


def test_growing_films_are_a_stage_for_each_rung_and_one_in_full():
    fidelities = Fidelities("image_size", (0.25, 0.5), 224)
    assert fidelities.image_sizes == (56, 112, 224)
    assert [fidelities.stage(done, 10).image_size for done in (0, 9, 10, 19, 20, 29, 30)] == [
        *(56, 56, 112, 112, 224, 224, 224)
    ]
    assert [fidelities.stage(done, 10).before for done in (0, 10, 20)] == [0, 10, 20]


def test_a_growing_share_of_the_patients_leaves_the_films_as_they_are():
    fidelities = Fidelities("data_share", (0.1, 0.5), 224)
    assert [fidelities.stage(done, 4) for done in (0, 4, 8)] == [
        Stage(224, 0.1, 0),
        Stage(224, 0.5, 4),
        Stage(224, 1.0, 8),
    ]


def test_a_film_is_never_smaller_than_one_that_shows_something_nor_larger_than_the_films():
    assert Fidelities("image_size", (0.01,), 224).image_sizes == (16, 224)
    assert max(Fidelities("image_size", (0.99,), 28).image_sizes) == 28


@pytest.mark.parametrize("schedule", [1, 3, 7, 40])
@pytest.mark.parametrize("rungs", [(0.5,), (0.1, 0.4), (0.1, 0.2, 0.4, 0.6)])
def test_each_rung_is_the_end_of_a_stage(make_space, rungs, schedule):
    from search.space import rungs_of

    space = make_space(SPACE, f"asha={{rungs: {list(rungs)}, fidelity: data_share}}")
    met = rungs_of(space.header).epochs(schedule * (len(rungs) + 1))
    assert met == tuple(schedule * stage for stage in range(1, len(rungs) + 1))


def test_legs_of_a_staged_search_start_afresh_at_each_stage(search):
    legs, trainer = search(*STAGED, slots=1, value=lambda trial, epoch: 0.5 + 0.01 * trial)
    trainer.run(legs)
    best = [leg for leg in trainer.handed_out if leg.trial == 5]
    assert [leg.config.image_size for leg in best] == [32, 64, 128]
    assert [leg.before for leg in best] == [0, 2, 4]
    assert [leg.checkpoint for leg in best] == [None, None, None]
    assert legs.journal.trial(5).outcome is Outcome.FULL
    assert len(legs.journal.trial(5).epochs) == 6


def test_a_leg_interrupted_within_a_stage_goes_on_from_its_checkpoint(search):
    legs, _ = search(*STAGED, slots=1)
    from tests.search.conftest import epoch_record

    number = legs.next_leg().trial
    legs.epoch_done(number, epoch_record(1, 0.7))
    legs.leg_ended(number)
    leg = legs.next_leg()
    assert (leg.trial, leg.before, leg.checkpoint) == (number, 0, "trials/epoch-1.pt")


def test_trials_of_a_staged_search_are_compared_at_the_same_stage_only(search):
    legs, trainer = search(*STAGED, slots=2)
    trainer.run(legs)
    for trial in legs.journal.trials():
        for decision in trial.decisions:
            if "cohort" in decision.evidence:
                assert decision.evidence["epoch"] == 2 * (decision.evidence["rung"] + 1)


def test_a_network_is_held_to_its_cost_in_use_not_on_the_small_films_of_a_stage(search):
    legs, trainer = search(*STAGED, slots=1)
    trainer.run(legs, epochs=1)
    one = legs.journal.trial(0)
    flops = [legs.space.config(one.flat, one.seed, size).footprint().flops / 1e9 for size in (32, 128)]
    bound = f"constraints={{gflops: {{max: {sum(flops) / 2}}}}}"
    bounded, trainer = search(*STAGED, bound, "space.lr=0.001", slots=1)
    trainer.run(bounded, epochs=1)
    same = [t for t in bounded.journal.trials() if t.flat["model"] == one.flat["model"]]
    assert {t.outcome for t in same} == {Outcome.INFEASIBLE}


def test_a_network_that_looks_at_a_film_three_times_costs_three_times_as_much(search):
    bound = "objective={metrics: [auroc_macro, gflops]}"
    legs, trainer = search("space.model=small_cnn", "space.zoom_tta=0.2", bound, slots=1)
    trainer.run(legs, epochs=1)
    trial = legs.journal.trial(0)
    once = legs.space.config(trial.flat, trial.seed).footprint().flops / 1e9
    assert trial.epochs[0].metrics["gflops"] == pytest.approx(3 * once)


def test_where_nobody_is_judged_there_are_no_stages(search):
    legs, trainer = search(*STAGED, "asha.mode=none", slots=1)
    trainer.run(legs)
    assert {leg.config.image_size for leg in trainer.handed_out} == {128}
    assert {len(trial.epochs) for trial in legs.journal.trials()} == {2}


def test_hyperband_has_rungs_within_the_schedule_only(make_space):
    with pytest.raises(SpaceError, match="hyperband has `fidelity: schedule` only"):
        make_space(SPACE, "asha={mode: hyperband, fidelity: image_size}")


@pytest.mark.parametrize("change", ["asha.fidelity=schedule", "asha.rungs=[0.5]", "asha.mode=none"])
def test_the_stages_of_a_study_hold_for_its_life(make_space, make_study, change):
    study = make_study(make_space(SPACE, *STAGED))
    with pytest.raises(StudyError, match=f"differs from the study's in .*{change.partition('=')[0]}"):
        study.adopt(make_space(SPACE, *STAGED, change))
