"""Scores of trainings, kept with the films that they belong to: at rungs for comparisons, at the end for the finals."""

from pathlib import Path

import numpy as np
import pandas as pd


def scores_path(folder: Path, trial: int, epoch: int) -> Path:
    """Where a trial's validation scores after an epoch are kept: `images`, and `scores` (films, labels), float32."""
    return folder / "trials" / f"{trial:05d}" / f"scores-{epoch:04d}.npz"


def test_scores_path(folder: Path, trial: int) -> Path:
    """Where a training's scores of the test films are kept, alike."""
    return folder / "test" / f"scores-{trial:05d}.npz"


def save_scores(path: Path, images: pd.Series, scores: np.ndarray) -> None:
    """Keep the scores (films, labels) of a training, with the films that they belong to; whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, images=images.to_numpy(str), scores=scores)
    partial.replace(path)


def read_scores(path: Path) -> pd.DataFrame:
    """Kept scores, a row a film by its image and a column a label. Raises FileNotFoundError."""
    with np.load(path) as file:
        return pd.DataFrame(file["scores"], index=file["images"])
