"""The study as the only truth: what it keeps, and what survives."""

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.rungs import Rungs
from search.study import Study, StudyError
from search.trial import Outcome
from tests.search.conftest import SPACE, epoch_record

RUNGS = Rungs((0.1, 0.5), 3, maximize=True)


def test_everything_recorded_is_there_after_opening_again(make_space, make_study):
    space = make_space()
    study = make_study(space)
    trial = study.propose(space, seed=3, rungs=RUNGS)
    record = epoch_record(1, 0.75)
    study.record(trial.number, record)
    again = Study(study.folder)
    assert again.trial(0).flat == trial.flat
    assert again.trial(0).epochs == (record,)
    assert again.facts["space"] == space.tree


def test_optuna_is_told_the_truth(make_space, make_study):
    space = make_space()
    study = make_study(space)
    for outcome in (Outcome.FULL, Outcome.PRUNED, Outcome.DIVERGED):
        number = study.propose(space, 0, RUNGS).number
        study.record(number, epoch_record(1, 0.6))
        study.record(number, epoch_record(2, 0.7))
        study.finish(number, outcome, "because")
    trials = study.optuna_study().trials
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [t.value for t in trials] == [0.7, 0.7, None]
    assert trials[0].intermediate_values == {1: 0.6, 2: 0.7}


def test_the_winner_is_chosen_among_full_trials_only(make_space, make_study):
    space = make_space()
    study = make_study(space)
    for value, outcome in ((0.9, Outcome.PRUNED), (0.7, Outcome.FULL), (0.8, Outcome.FULL), (0.8, Outcome.FULL)):
        number = study.propose(space, 0, RUNGS).number
        study.record(number, epoch_record(1, value))
        study.finish(number, outcome)
    assert study.winner().number == 2


def test_proposals_depend_on_the_seed_their_number_and_the_history_only(make_space, make_study):
    space = make_space()
    whole, halves = make_study(space), make_study(space)
    for number in range(14):
        opened = Study(halves.folder)  # as after a crash before every single proposal
        for study in (whole, opened):
            assert study.propose(space, seed=5, rungs=RUNGS).number == number
            study.record(number, epoch_record(1, number % 5 / 5))
            study.finish(number, Outcome.FULL)
    assert [t.flat for t in whole.trials()] == [t.flat for t in halves.trials()]
    other = make_study(space)
    assert other.propose(space, seed=6, rungs=RUNGS).flat != whole.trial(0).flat


def test_a_parameter_exists_only_in_its_branch(make_space, make_study):
    space = make_space()
    study = make_study(space)
    for _ in range(10):
        flat = study.propose(space, 0, RUNGS).flat
        branch = "small_cnn.width" if flat["model"] == "small_cnn" else "inception_resnet.residual_scale"
        assert {key for key in flat if key.startswith("model.")} == {f"model.{branch}"}


def test_the_searcher_learns_from_trials_that_wait(make_space, make_study):
    """TPE, told 30 waiting trials of which those with a high rate are good, proposes high rates.

    A sampler that saw them as running would take all of them for poor ones, and propose as widely as a random one, of
    whose 12 draws 11 exceed the middle of the log range in 0.3 % of cases.
    """
    space = make_space(SPACE, "space.model=small_cnn", "space.dropout=0.1")
    study = make_study(space)
    rungs = Rungs((0.1,), 1000, maximize=True)
    for _ in range(30):
        trial = study.propose(space, 0, rungs)
        value = 0.9 if trial.flat["lr"] > 1e-3 else 0.6
        study.record(trial.number, epoch_record(1, value + trial.number * 1e-4))
        rungs.record(trial.number, 0, value + trial.number * 1e-4)
    rates = [study.propose(space, 0, rungs).flat["lr"] for _ in range(12)]
    assert sum(rate > 1e-3 for rate in rates) >= 11


def test_a_journal_with_a_half_written_last_line_loses_that_line_only(make_space, make_study):
    space = make_space()
    study = make_study(space)
    study.propose(space, 0, RUNGS)
    journal = study.folder / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":8,"trial_id":0,"st')
    Study.repair(study.folder)
    assert journal.read_bytes() == whole
    assert Study(study.folder).trial(0).flat == study.trial(0).flat


def test_a_lock_left_by_a_killed_process_does_not_hold_up_the_next(make_study):
    study = make_study()
    code = (
        "import sys, os, signal; from pathlib import Path; from search.study import _FlockLock;"
        "_FlockLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(study.folder / "journal.lock")], cwd=Path(__file__).parents[2])
    started = time.monotonic()
    study.note("free", True)
    assert time.monotonic() - started < 5  # Optuna's own lock would wait for 30 s


def test_a_study_has_one_driver_at_a_time(make_study):
    study = make_study()
    with Study.lock(study.folder):
        code = "import sys; from pathlib import Path; from search.study import Study\n"
        code += "with Study.lock(Path(sys.argv[1])): pass"
        second = subprocess.run(
            [sys.executable, "-c", code, str(study.folder)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    assert "is running in another process" in second.stderr


def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StudyError, match="there is no study here"):
        Study(tmp_path / "nowhere")


def test_only_the_budget_may_change_when_a_study_goes_on(make_space, make_study):
    study = make_study(make_space())
    more = make_space(SPACE, "budget.trials=20")
    assert study.adopt(more) == [("budget.trials", 12, 20)]
    with pytest.raises(StudyError, match="differs from the study's in asha"):
        study.adopt(make_space(SPACE, "asha.eta=5"))


def test_the_journal_opens_in_optuna_without_this_program(make_space, make_study):
    """As optuna-dashboard opens it."""
    space = make_space()
    study = make_study(space)
    study.propose(space, 0, RUNGS)
    backend = optuna.storages.journal.JournalFileBackend(str(study.folder / "journal.log"))
    loaded = optuna.load_study(study_name=study.name, storage=optuna.storages.JournalStorage(backend))
    assert loaded.trials[0].params
