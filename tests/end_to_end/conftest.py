"""Real searches: real films, Ray, Optuna and MLflow, started as a user starts them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]

SPACE = """
name: quick
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro, direction: maximize}
budget: {trials: 8, reserve: 0}
asha: {rungs: [0.2, 0.5], eta: 3}
space:
  model:
    choice:
      small_cnn: {width: {int: [4, 12], step: 4}}
      inception_resnet: {width: 8, residual_scale: {float: [0.1, 1.0]}}
  schedule: {choice: {cosine: {}, step: {gamma: {float: [0.1, 0.5]}}}}
  loss: {choice: [bce, weighted_bce]}
  sampler: {choice: [uniform, oversample]}
  dropout: {float: [0.0, 0.5]}
  lr: {float: [1e-4, 1e-2], log: true}
  epochs: {int: [3, 8]}
"""


@pytest.fixture(scope="session")
def few_films(tmp_path_factory, request):
    """Real films of PneumoniaMNIST, few enough that an epoch takes a fraction of a second."""
    path = Path(os.environ.get("CXR_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "pneumoniamnist.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent; set CXR_TEST_DATA")
    with np.load(path) as archive:
        few = {name: archive[name][:600] for name in archive.files}
    small = tmp_path_factory.mktemp("films") / "few.npz"
    np.savez(small, **few)
    return small


class Search:
    """A search as a process in a folder of its own."""

    def __init__(self, folder, films):
        self.folder, self.films = folder, films
        (folder / "quick.yaml").write_text(SPACE)
        self.env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CXR_CACHE": str(folder / "cache"), "COLUMNS": "200"}

    def start(self, *options, data=None):
        data = data or f"medmnist:{self.films}"
        command = [sys.executable, "-m", "search.run", "--space", "quick.yaml", "--data", data, *options]
        return self.python(command)

    def resume(self, *options):
        return self.python([sys.executable, "-m", "search.run", "--study", "quick", "--resume", *options])

    def python(self, command):
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *options, **others):
        """Start and wait: exit code, standard output, standard error."""
        return finish(self.start(*options, **others))

    @property
    def study(self):
        from search.study import Study

        return Study(self.folder / "studies" / "quick")

    def wait_for_epochs(self, count, process, seconds=120):
        """Until the study holds that many epochs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            made = (self.folder / "studies" / "quick" / "journal.log").exists()
            if made and sum(len(trial.epochs) for trial in self.study.trials()) >= count:
                return
            if process.poll() is not None:
                raise AssertionError(f"the search ended early:\n{process.stderr.read()}")
            time.sleep(0.1)
        raise AssertionError("no epoch came")


def finish(process, seconds=600):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


@pytest.fixture
def search(tmp_path, few_films):
    """A search in an empty folder; whatever is left of it at the end is killed."""
    yield Search(tmp_path, few_films)
    subprocess.run(["pkill", "-KILL", "-f", str(tmp_path)], check=False)


@pytest.fixture
def result():
    """The JSON object that a search printed."""
    return lambda out: json.loads(out.strip().splitlines()[-1])
