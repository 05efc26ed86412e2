"""Predictions for single films in files: read, made square and normalised as the films of the training were."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxr_core.batches import Batches
from cxr_core.checkpoint import Checkpoint, load_checkpoint
from cxr_core.confusion import called
from cxr_core.data.cache.resize import resize
from cxr_core.data.film_files import read_film
from cxr_core.data.films import Films
from cxr_core.evaluate import predict

DISCLAIMER = "research only, not for clinical use"
HALF = "half"
"""The rule of thresholds of 0.5, which need no films to be fitted on and which no checkpoint stores."""
DEFAULT_RULE = "youden"
"""0.5 means nothing where a loss or a sampler weighs classes, and F1's thresholds follow the prevalence of the training
set; the greatest sum of sensitivity and specificity is that of any other set of the same patients."""

_TOGETHER = 64
"""Films read and predicted at a time: enough for the device, few enough to see the first results soon."""
_LEAST, _LEAST_SHARE = 32, 0.25
"""Sides of a film, in pixels and of the network's, below which little of a chest can be left."""
_MOST_OBLONG = 4.0
"""Longer by shorter side; the most oblong of ChestX-ray14's 112,120 films has 1.85, closely collimated ones more."""
_SEND_FILM = "give one chest film, exported again as PNG, JPEG or DICOM"


class ThresholdError(Exception):
    """The model has no thresholds of this name; the message names those that it has."""


@dataclass(frozen=True)
class Finding:
    """A finding's probability, the threshold from which on it is called, and whether it is.

    threshold: infinity calls nothing; NaN if none could be fitted, and above is None then.
    """

    probability: float
    threshold: float
    above: bool | None


@dataclass(frozen=True)
class Prediction:
    """What a network says of a film. image: the path, as it was given."""

    image: str
    findings: dict[str, Finding]


@dataclass(frozen=True)
class Refusal:
    """A file of which no network should say anything. reason: why, and what to do."""

    image: str
    reason: str


class Predictor:
    """A saved network on a device, ready for films in files.

    A film goes through the code that fills the film cache and the code that evaluates a split, so it has the
    probabilities that it would have in its data set.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str = "cpu"):
        """Raises CheckpointError if the weights do not fit the network."""
        self.checkpoint, self.device = checkpoint, torch.device(device)
        self.labels, self.image_size = checkpoint.config.task.labels, checkpoint.config.image_size
        self.thresholds = {**checkpoint.thresholds, HALF: [0.5] * len(self.labels)}
        model = checkpoint.build()
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalise = checkpoint.normalise.to(self.device)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Predictor":
        """Read a checkpoint, as a training saves it. Raises CheckpointError."""
        return cls(load_checkpoint(Path(path)), device)

    def __call__(self, paths: Sequence[str], rule: str = DEFAULT_RULE) -> Iterator[Prediction | Refusal]:
        """What there is to say of each file, in their order, as soon as it is known.

        rule: of the thresholds; "half", or one that the checkpoint was saved with. Raises ThresholdError.
        """
        if rule not in self.thresholds:
            kinds = ", ".join(sorted(self.thresholds))
            raise ThresholdError(f"{self.checkpoint.path}: has no thresholds {rule!r}; it has {kinds}")
        return self._outcomes(paths, np.array(self.thresholds[rule]))

    def _outcomes(self, paths: Sequence[str], thresholds: np.ndarray) -> Iterator[Prediction | Refusal]:
        rest = iter(paths)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode") as pool:
            while some := list(islice(rest, _TOGETHER)):
                read = list(pool.map(self._read, some))
                squares = [film for film in read if isinstance(film, np.ndarray)]
                probabilities = iter(self.probabilities(np.stack(squares)) if squares else ())
                for path, film in zip(some, read, strict=True):
                    yield film if isinstance(film, Refusal) else self._judge(path, next(probabilities), thresholds)

    def _read(self, path: str) -> np.ndarray | Refusal:
        try:
            return self.square(read_film(path, strict=True))
        except OSError as fault:
            if fault.errno is None:  # of a decoder
                return Refusal(path, f"{fault}; {_SEND_FILM}")
            return Refusal(path, f"{fault.strerror}; name a file, or a folder of films, that you may read")
        except (ValueError, MemoryError) as fault:
            return Refusal(path, f"{fault or type(fault).__name__}; {_SEND_FILM}")

    def square(self, film: np.ndarray) -> np.ndarray:
        """A film of (H, W) uint8 or uint16, black to white, as the network's training had it, (S, S) uint8.

        Raises ValueError if it is too small or too oblong to be a chest film.
        """
        height, width = film.shape
        least = min(self.image_size, max(_LEAST, round(_LEAST_SHARE * self.image_size)))
        if min(height, width) < least:
            raise ValueError(
                f"{width} x {height} px is too small: for a network of {self.image_size} px each side of a film must "
                f"have {least} px or more"
            )
        if max(height, width) > _MOST_OBLONG * min(height, width):
            raise ValueError(f"{width} x {height} px is too oblong for a chest film: at most 1 to {_MOST_OBLONG:g}")
        return resize(film, self.image_size, self.checkpoint.aspect)

    def probabilities(self, films: np.ndarray) -> np.ndarray:
        """Probabilities of each finding, (N, C) float32, of films of (N, S, S) uint8 as `square` gives them."""
        targets = np.full((len(films), len(self.labels)), np.nan, np.float32)
        split = Films(films, np.arange(len(films)), targets, pd.DataFrame(index=range(len(films))))
        batches, views = Batches(split, self.device), self.checkpoint.config.views
        return predict(self.model, batches, self.normalise, views=views)

    def _judge(self, path: str, probabilities: np.ndarray, thresholds: np.ndarray) -> Prediction | Refusal:
        if not np.isfinite(probabilities).all():
            return Refusal(path, "the network's outputs for it are not finite; take another model")
        calls = called(probabilities, thresholds)
        findings = {
            label: Finding(float(probability), float(threshold), None if np.isnan(threshold) else bool(above))
            for label, probability, threshold, above in zip(self.labels, probabilities, thresholds, calls, strict=True)
        }
        return Prediction(path, findings)


if __name__ == "__main__":
    from cxr_core.predict_command import main

    sys.exit(main())
