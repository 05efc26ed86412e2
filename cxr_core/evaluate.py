"""Run a network over films and score it."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cxr_core.batches import Batches
from cxr_core.memory import is_out_of_memory, release
from cxr_core.metrics import EPOCH_METRICS, macro, per_label

log = logging.getLogger(__name__)

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
def predict(
    model: nn.Module, batches: Batches, normalise: Callable[[torch.Tensor], torch.Tensor], *, mirror: bool = False
) -> np.ndarray:
    """Probabilities of each finding, (N, C) float32, in the films' order; the model is left in evaluation mode.

    normalise: a Normalisation on the films' device, or what else is done to films in [0, 1]. mirror: take the mean of
    the probabilities of each film and its mirror image.
    """
    model.eval()
    order = deque(np.array_split(np.arange(len(batches)), max(1, -(-len(batches) // _BATCH))))
    probabilities = []
    while order:
        index = order.popleft()
        try:
            probabilities.append(_predict(model, batches, normalise, index, mirror))
            continue
        except (RuntimeError, MemoryError) as fault:
            if len(index) == 1 or not is_out_of_memory(fault):
                raise
            part = len(index) // 2
            log.warning("out of memory; scoring %d films at a time", part)
        release(batches.device)
        rest = np.concatenate([index, *order])
        order = deque(np.split(rest, range(part, len(rest), part)))
    scores: np.ndarray = torch.cat(probabilities).cpu().numpy()
    return scores


def _predict(
    model: nn.Module,
    batches: Batches,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    index: np.ndarray,
    mirror: bool,
) -> torch.Tensor:
    films = normalise(batches.films(index))
    with batches.autocast():
        views = [model(view) for view in ((films, films.flip(-1)) if mirror else (films,))]
    return torch.stack([torch.sigmoid(logits.float()) for logits in views]).mean(0)


def score(targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """All metrics of (N, C) probabilities against targets in {0, 1, NaN}."""
    values = {name: per_label(metric, targets, probabilities) for name, metric in EPOCH_METRICS.items()}
    auroc = dict(zip(labels, values["auroc_macro"], strict=True))
    return Scores({name: macro(of_labels) for name, of_labels in values.items()}, auroc)
