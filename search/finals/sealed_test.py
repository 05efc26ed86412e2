"""The sealed test split of a study: opened for its finalists, and each opening is a fact of the study for good.

What keeps it sealed: a trial's worker is handed the development films' table and caches alone, and reads nothing else.
It runs with the user's rights, though, and is told the data set's name, so that a node without a cache can build one;
and the test films' cache lies beside the others. Code that wants to read test films can find them.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint
from cxr_core.data import Films, PreparedData
from cxr_core.evaluate import predict
from search.code_version import code_version
from search.finals.verdict import Scored
from search.kept_scores import read_scores, save_scores, scores_path, test_scores_path
from search.study import Study
from search.trial import Trial

log = logging.getLogger(__name__)


class SealedTest:
    """A study's test split, its openings, and the scores of the trainings that were evaluated.

    Scores lie in the study's `test` folder, beside the films' table; those of the same trainings on validation lie with
    each trial, as the search keeps them.
    """

    def __init__(self, study: Study):
        self.study = study
        self.folder = study.folder / "test"

    @property
    def openings(self) -> list[dict[str, Any]]:
        """Each opening, the first one first: `at` (Unix time), `reason`, `trials` evaluated, the `ensemble` that it was
        for (each member and how often it is taken), and the code's `version`, `commit` and `changed`.
        """
        openings: list[dict[str, Any]] = self.study.facts.get("test_openings", [])
        return openings

    @property
    def ensemble(self) -> dict[int, int]:
        """How often the latest ensemble that the split was opened for takes each of its members; empty without one."""
        opened_for = [opening["ensemble"] for opening in self.openings if opening.get("ensemble")]
        return dict(opened_for[-1]) if opened_for else {}

    def unopened(self, trainings: Iterable[Trial]) -> list[Trial]:
        """Those for which the split was never opened. What an opening that was killed left undone belongs to it."""
        listed = {number for opening in self.openings for number in opening["trials"]}
        return [trial for trial in trainings if trial.number not in listed]

    def unscored(self, trainings: Iterable[Trial]) -> list[Trial]:
        """Those without kept scores on both splits."""
        return [t for t in trainings if not (self._path(t).exists() and self._validation_path(t).exists())]

    def open(self, trainings: Iterable[Trial], reason: str, ensemble: Mapping[int, int] | None = None) -> None:
        """Enter an opening into the study; it counts from here, whatever happens next."""
        opening = {"at": time.time(), "reason": reason, "trials": [t.number for t in trainings], **code_version()}
        members = [[number, count] for number, count in (ensemble or {}).items()]
        self.study.note("test_openings", [*self.openings, {**opening, "ensemble": members}])

    def validate(
        self, trainings: Sequence[Trial], prepared: PreparedData, device: torch.device, stopped: Callable[[], bool]
    ) -> None:
        """Score trainings on the validation films alone, which are nobody's secret. Raises as `evaluate`."""
        left = [trial for trial in trainings if not self._validation_path(trial).exists()]
        self._score(left, [(_open_films(prepared, "val"), self._validation_path)], device, stopped)

    def evaluate(
        self, trainings: Sequence[Trial], prepared: PreparedData, device: torch.device, stopped: Callable[[], bool]
    ) -> None:
        """Score trainings on the validation and test films, one after the other, until there is a reason to stop.

        Raises CheckpointError or DataError if a network or the films cannot be read, OSError.
        """
        validation, test = _open_films(prepared, "val"), _open_films(prepared, "test")
        self.folder.mkdir(exist_ok=True)
        partial = self.folder / ".films.parquet.partial"
        with partial.open("wb") as file:
            test.table.to_parquet(file, index=False)
        partial.replace(self.folder / "films.parquet")
        self._score(trainings, [(validation, self._validation_path), (test, self._path)], device, stopped)

    def _score(
        self,
        trainings: Sequence[Trial],
        parts: Sequence[tuple[Films, Callable[[Trial], Path]]],
        device: torch.device,
        stopped: Callable[[], bool],
    ) -> None:
        """Keep what each training makes of some films, where it is not kept yet."""
        on_device = [(Batches(films, device), films.table["image"], path) for films, path in parts]
        for done, trial in enumerate(trainings, 1):
            if stopped():
                return
            checkpoint = load_checkpoint(self.study.folder / trial.epochs[-1].checkpoint)
            model = checkpoint.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            normalise, views = checkpoint.normalise.to(device), checkpoint.config.views
            for batches, images, path in on_device:
                if not path(trial).exists():
                    save_scores(path(trial), images, predict(model, batches, normalise, views=views))
            films = " and ".join(str(len(batches)) for batches, _, _ in on_device)
            log.info("trial %s is evaluated on %s films: %d of %d", trial.name, films, done, len(trainings))

    def validated(self, trainings: Mapping[int, Sequence[Trial]], labels: Sequence[str]) -> Scored:
        """What trainings make of the validation films, from the kept scores."""
        films = pd.read_parquet(self.study.folder / "films.parquet")
        return _scored(films[films["split"] == "val"], self._validation_path, trainings, labels)

    def scored(self, trainings: Mapping[int, Sequence[Trial]], labels: Sequence[str]) -> tuple[Scored, Scored]:
        """What the trainings of each finalist make of the validation and test films, from the kept scores."""
        validation, test = (_scored(table, path, trainings, labels) for table, path in self._parts())
        return validation, test

    def told_of(self, training: Trial) -> list[tuple[pd.DataFrame, np.ndarray]]:
        """The validation and the test films with all that is known of them, and a training's scores of them, (N, C)."""
        kept = [(table, read_scores(path(training))) for table, path in self._parts()]
        return [(table.set_index("image").loc[scores.index], scores.to_numpy()) for table, scores in kept]

    def _parts(self) -> list[tuple[pd.DataFrame, Callable[[Trial], Path]]]:
        """Validation and test: the films' table, and where a training's scores of them lie."""
        films = pd.read_parquet(self.study.folder / "films.parquet")
        tested = pd.read_parquet(self.folder / "films.parquet")
        return [(films[films["split"] == "val"], self._validation_path), (tested, self._path)]

    def _path(self, trial: Trial) -> Path:
        return test_scores_path(self.study.folder, trial.number)

    def _validation_path(self, trial: Trial) -> Path:
        return scores_path(self.study.folder, trial.number, trial.epochs[-1].epoch)


def _open_films(prepared: PreparedData, part: str) -> Films:
    cache = prepared.test_cache if part == "test" else prepared.cache
    assert cache, "the data set has no test split"
    return Films.open(cache, prepared.films[prepared.films["split"] == part], prepared.task.labels)


def _scored(
    table: pd.DataFrame,
    path: Callable[[Trial], Path],
    trainings: Mapping[int, Sequence[Trial]],
    labels: Sequence[str],
) -> Scored:
    """Scores of all trainings, in the films' order of the first one's file."""
    frames = {number: [read_scores(path(trial)) for trial in trials] for number, trials in trainings.items()}
    images = next(iter(frames.values()))[0].index
    films = table.set_index("image").loc[images]
    scores = {number: np.stack([one.loc[images].to_numpy() for one in of]) for number, of in frames.items()}
    return Scored(films[list(labels)].to_numpy(np.float64), films["patient"].to_numpy(), scores)
