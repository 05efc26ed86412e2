"""A study after its finals, which took a second, and what it hands over."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.finalize import main
from search.space import load_space
from search.study import Study
from tests.search.conftest import SPACE
from tests.search.small_study import new_study, train


@dataclass(frozen=True)
class Finals:
    """A study whose finals are made: its films, and the command that tells them again."""

    folder: Path
    arrays: dict
    prepared: object
    space: object

    @property
    def study(self):
        return Study(self.folder)

    @property
    def model(self):
        return self.folder / "model"

    @property
    def mlflow(self):
        return self.study.facts["mlflow"]

    def again(self, *words):
        assert main([str(self.folder), "--seeds", "1", *words]) == 0


@pytest.fixture(autouse=True)
def _log_of_the_test(monkeypatch):
    monkeypatch.setattr("cxr_core.console.show_log", lambda *packages: None)  # a handler would outlive this test


@pytest.fixture(scope="session")
def finals(tmp_path_factory):
    """Two trainings, evaluated, handed over and told to MLflow; tests look at it and change nothing."""
    folder = tmp_path_factory.mktemp("handed")
    (folder / "space.yaml").write_text(SPACE)
    study = new_study(folder, load_space(folder / "space.yaml"))
    for seed in (0, 1):
        train(study, seed)
    made = Finals(study.folder, study.arrays, study.prepared, study.space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_core.console.show_log", lambda *packages: None)
        made.again()
    return made


@pytest.fixture
def copied(finals, tmp_path):
    """The same study in a folder of its own, with an MLflow of its own, which is empty."""
    shutil.copytree(finals.folder, tmp_path / "studies" / "sealed", copy_function=shutil.copy2)
    copy = Finals(tmp_path / "studies" / "sealed", finals.arrays, finals.prepared, finals.space)
    copy.study.note("mlflow", f"sqlite:///{tmp_path}/mlflow.db")
    return copy
