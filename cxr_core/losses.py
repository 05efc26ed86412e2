"""Losses on logits, masked where a finding is not labelled."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cxr_core.registry import Chosen, Range, Registry

losses = Registry("loss")
"""Losses by name.

`loss(logits, targets, **hyperparameters)`, both (N, C), targets in {0, 1, NaN}, gives the mean over labelled entries,
in nats. A loss that takes `counts` as third argument gets the training split's (2, C) positives and negatives.
"""

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(chosen: Chosen, counts: Tensor) -> Loss:
    """The chosen loss as a function of logits and targets; counts: (2, C) positive and negative training films."""
    function = losses[chosen.name].function
    if "counts" in inspect.signature(function).parameters:
        return partial(function, counts=counts, **chosen.params)
    return partial(function, **chosen.params)


def _labelled_mean(entries: Tensor, targets: Tensor) -> Tensor:
    labelled = ~targets.isnan()
    return torch.where(labelled, entries, 0.0).sum() / labelled.sum().clamp(min=1)


@losses.register("bce")
def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each finding."""
    entries = binary_cross_entropy_with_logits(logits, targets.nan_to_num(0.0), reduction="none")
    return _labelled_mean(entries, targets)


@losses.register("weighted_bce")
def weighted_bce(
    logits: Tensor, targets: Tensor, counts: Tensor, *, cap: Annotated[float, Range(1, 1000)] = 1000.0
) -> Tensor:
    """Binary cross-entropy with each finding's positives weighted by negatives / positives of the training split.

    cap bounds the weight; a finding without positives has the weight `cap`, which then weighs nothing.
    """
    positives, negatives = counts.to(logits)
    weight = (negatives / positives.clamp(min=1)).clamp(max=cap)
    entries = binary_cross_entropy_with_logits(logits, targets.nan_to_num(0.0), pos_weight=weight, reduction="none")
    return _labelled_mean(entries, targets)
