"""The explanation of the training that is handed over: made once, of test films, after the test split was opened."""

import json
import logging
from pathlib import Path
from typing import Any

import torch

from cxr_core.checkpoint import CheckpointError
from cxr_core.data import DataError, Films
from cxr_core.predict import Predictor
from search.films import read_again
from search.kept_scores import read_scores, test_scores_path
from search.preflight import PreflightError
from search.space import Space
from search.study import Study

log = logging.getLogger(__name__)


def explanation_folder(study: Path) -> Path:
    """Where a study keeps the explanation of what it delivers."""
    return study / "explanation"


def read_explanation(study: Path) -> dict[str, Any] | None:
    """What `explanation.json` holds; `training` is the trial's number. None if there is none yet."""
    path = explanation_folder(study) / "explanation.json"
    record: dict[str, Any] | None = json.loads(path.read_text("utf-8")) if path.exists() else None
    return record


def explain_delivered(study: Study, space: Space, delivered: int, device: torch.device | str) -> None:
    """Explain a training on the test films, unless that was done. Why it cannot be is logged: the finals stand."""
    there = read_explanation(study.folder)
    if there and there["training"] == delivered:
        return
    from cxr_core.explain import Wanted, explain  # matplotlib and scipy take a second to import
    from cxr_core.explanation import NoFeatureMap
    from cxr_core.explanation.split_films import SplitFilms

    try:
        predictor = Predictor.load(study.folder / study.trial(delivered).epochs[-1].checkpoint, device)
        prepared = read_again(study, space)
        assert prepared.test_cache, "the finals have opened the test split"
        rows = prepared.films[prepared.films["split"] == "test"]
        films = Films.open(prepared.test_cache, rows, space.task.labels)
        scores, images = read_scores(test_scores_path(study.folder, delivered)), films.table["image"]
        if not images.isin(scores.index).all():
            raise DataError("the test films are not those that it was evaluated on")
        split = SplitFilms(str(prepared.name), "test", films, prepared.name.open())
        wanted = Wanted(probabilities=scores.loc[images].to_numpy())
        log.info("explaining trial %s, which is handed over, on test films", study.trial(delivered).name)
        explain(predictor, split, explanation_folder(study.folder), wanted, training=delivered)
    except (CheckpointError, PreflightError, DataError, NoFeatureMap, OSError) as fault:
        log.warning("no explanation of trial %d: %s; the same command tries again", delivered, fault)
