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
from cxr_core.views import Views

log = logging.getLogger(__name__)

Transform = Callable[[torch.Tensor], torch.Tensor]
"""From (N, 1, S, S) films to films."""

_ONE = Views()
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
    model: nn.Module, batches: Batches, normalise: Transform, *, views: Views = _ONE, change: Transform | None = None
) -> np.ndarray:
    """Probabilities of each finding, (N, C) float32, in the films' order; the model is left in evaluation mode.

    normalise: a Normalisation on the films' device. views: those over which a film's probabilities are averaged.
    change: what is done to the films in [0, 1] before any view is taken.
    """
    model.eval()
    order = deque(np.array_split(np.arange(len(batches)), max(1, -(-len(batches) // _BATCH))))
    probabilities = []
    while order:
        index = order.popleft()
        try:
            probabilities.append(_predict(model, batches, normalise, index, views, change))
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
    normalise: Transform,
    index: np.ndarray,
    views: Views,
    change: Transform | None,
) -> torch.Tensor:
    films = batches.films(index)
    seen = [normalise(view) for view in views.of(change(films) if change else films)]
    with batches.autocast():
        answers = [model(view) for view in seen]
    return torch.stack([torch.sigmoid(logits.float()) for logits in answers]).mean(0)


def score(targets: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """All metrics of (N, C) probabilities against targets in {0, 1, NaN}."""
    values = {name: per_label(metric, targets, probabilities) for name, metric in EPOCH_METRICS.items()}
    auroc = dict(zip(labels, values["auroc_macro"], strict=True))
    return Scores({name: macro(of_labels) for name, of_labels in values.items()}, auroc)
