"""Run a network over films and score it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cxr_core.batches import Batches
from cxr_core.metrics import EPOCH_METRICS, macro, per_label
from cxr_core.normalisations import Normalisation

_BATCH = 512
"""Films scored at a time; without gradients four times a usual training batch fits."""


@dataclass(frozen=True)
class Scores:
    """What a network reached on a split.

    metrics: each metric's mean over the findings where it is defined. auroc: of each finding, NaN where undefined.
    """

    metrics: dict[str, float]
    auroc: dict[str, float]


@torch.inference_mode()
def predict(model: nn.Module, batches: Batches, normalise: Normalisation, *, mirror: bool = False) -> np.ndarray:
    """Probabilities of each finding, (N, C) float32, in the films' order; the model is left in evaluation mode.

    normalise: on the films' device. mirror: take the mean of the probabilities of each film and its mirror image.
    """
    model.eval()
    order = np.array_split(np.arange(len(batches)), max(1, -(-len(batches) // _BATCH)))
    probabilities = []
    for index in order:
        films = normalise(batches.films(index))
        with batches.autocast():
            views = [model(view) for view in ((films, films.flip(-1)) if mirror else (films,))]
        probabilities.append(torch.stack([torch.sigmoid(logits.float()) for logits in views]).mean(0))
    scores: np.ndarray = torch.cat(probabilities).cpu().numpy()
    return scores


def score(targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """All metrics of (N, C) probabilities against targets in {0, 1, NaN}."""
    values = {name: per_label(metric, targets, probabilities) for name, metric in EPOCH_METRICS.items()}
    auroc = dict(zip(labels, values["auroc_macro"], strict=True))
    return Scores({name: macro(of_labels) for name, of_labels in values.items()}, auroc)
