"""Predictions of an ensemble: saved networks together, as the `ensemble.json` of a study names them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr_core.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from cxr_core.ensemble import mean_probability
from cxr_core.predict import HALF, Predictor


def load_predictor(path: Path, device: torch.device | str = "cpu") -> Predictor:
    """A saved network, or the ensemble that a JSON file names. Raises CheckpointError."""
    return EnsemblePredictor.named(path, device) if path.suffix == ".json" else Predictor.load(path, device)


class EnsemblePredictor(Predictor):
    """Saved networks of the same findings and films, whose probabilities are averaged by weight.

    `checkpoint` is that of the first network; thresholds are the ensemble's own.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        weights: Sequence[float],
        thresholds: Mapping[str, Sequence[float]],
        device: torch.device | str = "cpu",
    ):
        """thresholds: by rule, of each finding, NaN where there is none.

        Raises CheckpointError if a network looks at other films or findings than the first one.
        """
        first = checkpoints[0]
        for other in checkpoints[1:]:
            if _films(other) != _films(first):
                raise CheckpointError(f"{other.path}: takes other films, or tells other findings, than {first.path}")
        super().__init__(first, device)
        self.members = [Predictor(checkpoint, device) for checkpoint in checkpoints]
        self.weights = list(weights)
        self.thresholds = {**{rule: list(of) for rule, of in thresholds.items()}, HALF: self.thresholds[HALF]}

    @classmethod
    def named(cls, path: Path, device: torch.device | str = "cpu") -> "EnsemblePredictor":
        """The ensemble of a file such as `ensemble.json`; checkpoints lie where it says, from its folder.

        Raises CheckpointError.
        """
        try:
            record = json.loads(path.read_text("utf-8"))
            members: list[Mapping[str, Any]] = record["members"]
            weights = [float(member["weight"]) for member in members]
            places = [path.parent / member["checkpoint"] for member in members]
            thresholds = {
                rule: [float("nan") if value is None else float(value) for value in of]
                for rule, of in record["thresholds"].items()
            }
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise CheckpointError(f"{path}: names no ensemble as the finals of a study do ({fault!r})") from None
        if not places:
            raise CheckpointError(f"{path}: names an ensemble without networks")
        ensemble = cls([load_checkpoint(place) for place in places], weights, thresholds, device)
        if any(len(of) != len(ensemble.labels) for of in thresholds.values()):
            raise CheckpointError(f"{path}: its thresholds are not of the {len(ensemble.labels)} findings")
        return ensemble

    def probabilities(self, films: np.ndarray) -> np.ndarray:
        """Weighted mean of the networks' probabilities, (N, C), of films of (N, S, S) uint8 as `square` gives them."""
        return mean_probability(np.stack([member.probabilities(films) for member in self.members]), self.weights)


def _films(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What a network must have in common with the others."""
    return checkpoint.config.task.labels, checkpoint.config.image_size, checkpoint.aspect
