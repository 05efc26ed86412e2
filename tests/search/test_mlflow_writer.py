"""The end of a search and its MLflow writer: a slow one is waited for, a silent or dead one is not."""

import subprocess
import sys

import pytest
from filelock import Timeout
from mlflow import MlflowClient

from search import mlflow_writer
from search.mlflow_writer import Writer, lock, start_writer
from tests.search.conftest import drawn

WAIT_FOR_DONE = "import sys, time, os; assert sys.stdin.buffer.read() == b'done'; "


@pytest.fixture
def writer():
    """A process in place of the writer, from a line of Python; it is gone at the end."""
    started = []

    def start(code):
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([sys.executable, "-c", WAIT_FOR_DONE + code], stdin=pipe, stdout=pipe))
        return Writer(started[-1])

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(mlflow_writer, "_SILENCE", 1.0)


def test_a_writer_that_gets_on_is_waited_for_however_long_it_takes(writer, short_silence):
    slow = "[(time.sleep(0.4), os.write(1, b'.')) for _ in range(6)]"
    assert writer(slow).finish()


def test_a_writer_without_a_sign_of_life_is_not_waited_for(writer, short_silence):
    assert not writer("time.sleep(60)").finish()


def test_a_writer_that_gave_up_has_not_brought_mlflow_up_to_date(writer):
    assert not writer("sys.exit(3)").finish()


def test_a_writer_that_died_before_the_end_of_the_search_is_no_error(writer):
    dead = writer("")
    dead._process.kill()
    dead._process.wait()
    assert not dead.finish()


def test_two_writers_of_one_mlflow_exclude_each_other_and_those_of_two_do_not(tmp_path):
    with lock(tmp_path), lock(tmp_path, "http://elsewhere:5000"), pytest.raises(Timeout), lock(tmp_path):
        pass


def test_the_writer_of_a_study_writes_everything_and_is_gone_at_the_end(make_space, make_study, tmp_path):
    space = make_space()
    study = make_study(space)
    study.note("mlflow", f"sqlite:///{tmp_path / 'mlflow.db'}")
    drawn(study, space)
    with start_writer(study.folder) as started:
        assert started.finish()
    assert started._process.returncode == 0
    client = MlflowClient(study.facts["mlflow"])
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    assert len(client.search_runs([experiment.experiment_id])) == 2
