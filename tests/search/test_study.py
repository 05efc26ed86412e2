"""The study as the only truth: what it keeps, and what survives."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.space import load_space
from search.study import Study, StudyError
from search.trial import Outcome
from tests.search.conftest import SPACE, drawn, epoch_record


def add(study, number=0, **kind):
    """A trial of the tiny space."""
    flat = {"model": "small_cnn", "model.small_cnn.width": 8, "lr": 1e-3 + number * 1e-5, "dropout": 0.1, "epochs": 10}
    return study.add(flat, seed=number, why="drawn", **kind)


def test_everything_recorded_is_there_after_opening_again(make_space, make_study):
    space = make_space()
    study = make_study(space)
    trial = add(study)
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
        number = add(study).number
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
        number = add(study).number
        study.record(number, epoch_record(1, value))
        study.finish(number, outcome)
    assert study.winner().number == 2


def test_a_journal_with_a_half_written_last_line_loses_that_line_only(make_space, make_study):
    space = make_space()
    study = make_study(space)
    add(study)
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


def test_a_study_goes_on_with_another_budget_space_and_policy(make_space, make_study):
    study = make_study(make_space())
    more = make_space(SPACE, "budget.trials=20", "asha.eta=5", "space.dropout={float: [0.0, 0.2]}")
    changes = {key: (old, new) for key, old, new in study.adopt(more)}
    assert changes["budget.trials"] == (12, 20)
    assert changes["asha.eta"] == (3, 5)
    assert changes["space.dropout.float"] == ([0.0, 0.5], [0.0, 0.2])
    assert Study(study.folder).facts["space"] == more.tree


def test_a_study_that_goes_on_with_its_own_space_has_nothing_to_say_of_changes(make_study):
    study = make_study()
    assert study.adopt(load_space(study.folder / "space.yaml")) == []


@pytest.mark.parametrize("change", ["data.image_size=64", "objective.metric=log_loss", "task.labels=[Mass]"])
def test_what_makes_trials_comparable_may_not_change(make_space, make_study, change):
    study = make_study(make_space())
    other = make_space(SPACE.replace(", direction: maximize", ""), change)
    with pytest.raises(StudyError, match=f"differs from the study's in .*{change.partition('.')[0]}"):
        study.adopt(other)


def test_the_journal_opens_in_optuna_without_this_program(make_space, make_study):
    """As optuna-dashboard opens it."""
    space = make_space()
    study = make_study(space)
    drawn(study, space)
    backend = optuna.storages.journal.JournalFileBackend(str(study.folder / "journal.log"))
    loaded = optuna.load_study(study_name=study.name, storage=optuna.storages.JournalStorage(backend))
    assert loaded.trials[0].params


def test_an_entry_that_does_not_fit_on_the_disk_leaves_the_journal_as_it_was(make_study):
    """A file-size limit stands in for the full disk: the write fails in the middle of an entry."""
    study = make_study()
    add(study)
    before = (study.folder / "journal.log").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead of the process
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        with pytest.raises(OSError, match="File too large"):
            study.note("long", "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (study.folder / "journal.log").read_bytes() == before
    study.note("short", 1)
    assert Study(study.folder).facts["short"] == 1


# A damaged journal


@pytest.fixture
def written(make_space, make_study):
    """The journal of a study with three trials, and what it says."""
    study = make_study(make_space())
    for number in range(3):
        add(study, number)
        study.record(number, epoch_record(1, 0.5))
        study.finish(number, Outcome.FULL)
    return study.folder, study.folder / "journal.log"


def operations(journal):
    return journal.read_bytes().splitlines(keepends=True)


def test_a_journal_cut_at_any_byte_keeps_every_entry_that_was_whole(written):
    folder, journal = written
    whole = journal.read_bytes()
    for cut in range(len(whole) - 300, len(whole)):
        journal.write_bytes(whole[:cut])
        Study.repair(folder)
        kept = journal.read_bytes()
        assert kept == whole[: whole.rfind(b"\n", 0, cut) + 1]  # an entry counts when its newline is written
    Study(folder).note("works", True)
    assert Study(folder).facts["works"]


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 4096,
        b"\0\n\0\n",
        b"garbage\n",
        b'{"op_code":8\n',
        b"[1, 2]\n{}\n",
        b"\xff\xfe\x00{\n\n\n",
        b'"text"',
        b"5\n",
    ],
    ids=repr,
)
def test_a_damaged_end_is_cut_and_nothing_before_it_is_lost(written, damage):
    folder, journal = written
    whole = journal.read_bytes()
    trials = Study(folder).trials()
    journal.write_bytes(whole + damage)
    Study.repair(folder)
    assert journal.read_bytes() == whole
    study = Study(folder)
    assert study.trials() == trials
    assert add(study, 3).number == 3
    assert len(Study(folder).trials()) == 4


def test_a_whole_journal_is_left_as_it_is(written):
    folder, journal = written
    whole = journal.read_bytes()
    Study.repair(folder)
    assert journal.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"garbage\n", b"\0\0\0\n", b"{}\n", b"5\n", b"\xff\xfe\n"], ids=repr)
def test_a_damaged_middle_is_told_with_its_line_and_what_to_do(written, damage):
    folder, journal = written
    lines = operations(journal)
    lines[14] = damage
    journal.write_bytes(b"".join(lines))
    Study.repair(folder)
    with pytest.raises(StudyError, match=r"journal\.log:15: damaged; .* put back a copy of the file, or .* --fresh"):
        Study(folder)
    assert operations(journal) == lines  # nothing is cut that follows the damage


def test_an_empty_journal_is_told(written):
    folder, journal = written
    journal.write_bytes(b"")
    with pytest.raises(StudyError, match="the journal holds no study; start again with --fresh"):
        Study(folder)


def test_who_follows_a_study_is_not_disturbed_by_an_entry_that_is_being_written(written):
    folder, journal = written
    reader = Study(folder, follow=True)
    whole = journal.read_bytes()
    add(Study(folder), 3)
    entry = journal.read_bytes()[len(whole) :]
    journal.write_bytes(whole + entry[:20])
    assert len(reader.trials()) == 3
    journal.write_bytes(whole + entry)
    assert len(reader.trials()) == 4
