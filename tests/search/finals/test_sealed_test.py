"""The test split: closed to trials, opened for finalists, and each opening remembered."""

import ctypes
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from cxr_core.checkpoint import load_checkpoint
from search.code_version import code_version
from search.driver import workplace
from search.finals.sealed_test import SealedTest
from search.finals.verdict import judge
from search.placement import Resources
from search.study import Study
from tests.search.conftest import SPACE, legs_on
from tests.search.small_study import new_study, train

CHECKOUT = Path(__file__).parents[2]
_OPENED = 0x20  # IN_OPEN of inotify


@pytest.fixture
def study(tmp_path, make_space, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    return new_study(tmp_path, make_space(SPACE))


def evaluate(study, trainings, stopped=lambda: False):
    SealedTest(study).evaluate(trainings, study.prepared, torch.device("cpu"), stopped)


class Watch:
    """Which files of some folders any process opens, by the kernel's word (inotify)."""

    def __init__(self, *folders):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK)
        self._folder = {self._libc.inotify_add_watch(self._handle, bytes(f), _OPENED): f for f in folders}
        assert -1 not in self._folder, os.strerror(ctypes.get_errno())

    def opened(self):
        """Folders, of those watched, in which a file was opened since the last look."""
        found = set()
        try:
            events = os.read(self._handle, 2**20)
        except BlockingIOError:
            return found
        while events:
            watch, _, _, length = struct.unpack("iIII", events[:16])
            found.add(self._folder[watch])
            events = events[16 + length :]
        return found


LEG = """
import pickle, sys
from pathlib import Path
config = pickle.loads(Path(sys.argv[1]).read_bytes())
from search.worker import LegTrainable
print("VALUE", LegTrainable(config).train()["epoch"].value)
"""


def handed_over(study):
    """What Ray carries to the worker of a study's first leg."""
    legs = legs_on(study, study.space)
    place = workplace(study, legs, study.prepared, Resources(1))
    return pickle.dumps({"leg": legs.next_leg(), "workplace": place, "gpus": 0})


def train_in_a_worker(study, parcel):
    path = study.folder / "parcel.pickle"
    path.write_bytes(parcel)
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", LEG, str(path)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("VALUE"))


def test_what_a_trial_is_handed_names_the_development_cache_and_not_the_tests(study):
    parcel = handed_over(study)
    assert study.prepared.cache.name.encode() in parcel
    assert study.prepared.test_cache.name.encode() not in parcel
    images = study.prepared.films.loc[study.prepared.films["split"] == "test", "image"]
    assert not any(image.encode() in (study.folder / "films.parquet").read_bytes() for image in images)


def test_a_trial_opens_no_test_film_and_trains_the_same_without_any(study):
    """By the kernel's word; then without test cache and data set, so that there is nothing to be read in secret."""
    parcel, cache, test_cache = handed_over(study), study.prepared.cache, study.prepared.test_cache
    watch = Watch(cache, test_cache)
    assert watch.opened() == set()
    value = train_in_a_worker(study, parcel)
    assert watch.opened() == {cache}
    shutil.rmtree(test_cache)
    Path(study.prepared.name.path).unlink()
    assert train_in_a_worker(study, parcel) == value


def test_evaluation_opens_the_test_films(study):
    """The counterpart of the test above: the watch does see it."""
    trial = train(study)
    watch = Watch(study.prepared.cache, study.prepared.test_cache)
    evaluate(study, [trial])
    assert watch.opened() == {study.prepared.cache, study.prepared.test_cache}


def test_scores_are_those_of_the_kept_network_on_the_films_as_published(study):
    trials = [train(study), train(study, seed=1, repeats=0)]
    evaluate(study, trials)
    validation, test = SealedTest(study).scored({0: trials}, study.prepared.task.labels)
    verdict = judge(validation, test, "auroc_macro", resamples=20)
    assert verdict.validation.reached[0].values == pytest.approx([trial.value for trial in trials], abs=1e-6)
    for trial, value in zip(trials, verdict.test.reached[0].values, strict=True):
        checkpoint = load_checkpoint(study.folder / trial.epochs[-1].checkpoint)
        pixels = torch.from_numpy(study.arrays["test_images"])[:, None].float() / 255
        with torch.inference_mode():
            logits = checkpoint.build()(checkpoint.normalise(pixels))
        assert value == pytest.approx(roc_auc_score(study.arrays["test_labels"], logits), abs=1e-6)
    assert len(test.targets) == 80
    assert len(set(test.patients)) == 80


def test_an_opening_remembers_when_why_what_and_with_which_code(study):
    trial, sealed = train(study), SealedTest(study)
    assert sealed.openings == []
    assert sealed.unopened([trial]) == [trial]
    sealed.open([trial], "the finals")
    (opening,) = Study(study.folder).facts["test_openings"]
    assert opening["at"] > study.facts["created"]
    assert opening["reason"] == "the finals"
    assert opening["trials"] == [0]
    assert {key: opening[key] for key in ("version", "commit", "changed")} == code_version()
    assert sealed.unopened([trial]) == []


def test_what_an_interrupted_opening_left_undone_belongs_to_it(study):
    trials, sealed = [train(study), train(study, seed=1, repeats=0)], SealedTest(study)
    sealed.open(trials, "the finals")
    stops = iter([False, True])
    evaluate(study, trials, stopped=lambda: next(stops))
    assert sealed.unopened(trials) == []
    assert sealed.unscored(trials) == trials[1:]
    evaluate(study, sealed.unscored(trials))
    assert sealed.unscored(trials) == []
    assert len(sealed.openings) == 1


def test_the_code_version_names_the_commit_and_whether_files_differ_from_it(tmp_path):
    def git(*command):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        return subprocess.run(["git", "-C", tmp_path, *identity, *command], check=True, capture_output=True, text=True)

    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert code_version(tmp_path)["commit"] is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    found = code_version(tmp_path)
    assert found["commit"] == git("rev-parse", "HEAD").stdout.strip()
    assert found["changed"] is False
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.4"\n')
    assert code_version(tmp_path)["changed"] is True
