"""Losses on logits, masked where a finding is not labelled."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from cxr_core.registry import Chosen, Range, Registry

losses = Registry("loss")
"""Losses by name.

`loss(logits, targets, **hyperparameters)`, both (N, C), targets in {0, 1, NaN}, gives the mean over labelled entries,
in nats, unless it says otherwise; 0 if nothing is labelled. What is not labelled has no gradient and no effect.
A loss that takes `counts` as third argument gets the training split's (2, C) positives and negatives.
"""

Loss = Callable[[Tensor, Tensor], Tensor]

Smoothing = Annotated[float, Range(0, 0.5)]
"""Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, sec. 7) with two classes: targets s / 2 and 1 - s / 2.

It is a parameter of the cross-entropies, not a loss, so that a space can combine it with any class weight.
"""


def build_loss(chosen: Chosen, counts: Tensor) -> Loss:
    """The chosen loss as a function of logits and targets; counts: (2, C) positive and negative training films."""
    function = losses[chosen.name].function
    if "counts" in inspect.signature(function).parameters:
        return partial(function, counts=counts, **chosen.params)
    return partial(function, **chosen.params)


def _labelled_mean(entries: Tensor, targets: Tensor) -> Tensor:
    labelled = ~targets.isnan()
    return torch.where(labelled, entries, 0.0).sum() / labelled.sum().clamp(min=1)


def _cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    smooth = targets.nan_to_num(0.0) * (1 - smoothing) + smoothing / 2
    return binary_cross_entropy_with_logits(logits, smooth, reduction="none")


@losses.register("bce")
def bce(logits: Tensor, targets: Tensor, *, smoothing: Smoothing = 0.0) -> Tensor:
    """Binary cross-entropy of each finding; smoothing: of the labels (Szegedy et al. 2016, arXiv:1512.00567)."""
    return _labelled_mean(_cross_entropy(logits, targets, smoothing), targets)


@losses.register("weighted_bce")
def weighted_bce(
    logits: Tensor,
    targets: Tensor,
    counts: Tensor,
    *,
    cap: Annotated[float, Range(1, 1000)] = 1000.0,
    smoothing: Smoothing = 0.0,
) -> Tensor:
    """Binary cross-entropy with each finding's positives weighted by negatives / positives of the training split.

    cap bounds the weight; a finding without positives has the weight `cap`, which then weighs nothing.
    """
    positives, negatives = counts.to(logits)
    weight = (negatives / positives.clamp(min=1)).clamp(max=cap)
    # The weight goes with the true label: smoothed targets times weights would draw negatives towards 1.
    entries = torch.where(targets == 1, weight, 1.0) * _cross_entropy(logits, targets, smoothing)
    return _labelled_mean(entries, targets)


@losses.register("batch_weighted_bce")
def batch_weighted_bce(logits: Tensor, targets: Tensor, *, smoothing: Smoothing = 0.0) -> Tensor:
    """Binary cross-entropy with positives weighted (P + N) / P and negatives (P + N) / N (Wang et al. 2017,
    arXiv:1705.02315, eq. 1), P and N counted over all findings of the batch.

    The mean over labelled entries thus is the positives' mean plus the negatives' mean. A batch of one class has the
    weight 1.
    """
    positives, negatives = ((targets == label).sum().to(logits.dtype) for label in (1, 0))
    labelled = positives + negatives
    weight = torch.where(targets == 1, labelled / positives.clamp(min=1), labelled / negatives.clamp(min=1))
    return _labelled_mean(weight * _cross_entropy(logits, targets, smoothing), targets)


@losses.register("focal")
def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: Annotated[float, Range(0, 10)] = 2.0,
    alpha: Annotated[float | None, Range(0, 1)] = None,
) -> Tensor:
    """Focal loss: cross-entropy times the wrong answer's probability to the power gamma (Lin et al. 2017,
    arXiv:1708.02002, eq. 4); gamma = 0 is `bce`.

    alpha: weight of positives, 1 - alpha of negatives (eq. 5; .25 in the paper); none weighs both 1.
    """
    wrong = torch.where(targets == 1, -logits, logits)
    entries = torch.exp(gamma * logsigmoid(wrong)) * -logsigmoid(-wrong)
    if alpha is not None:
        entries = entries * torch.where(targets == 1, alpha, 1 - alpha)
    return _labelled_mean(entries, targets)


@losses.register("asymmetric")
def asymmetric(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_pos: Annotated[float, Range(0, 10)] = 0.0,
    gamma_neg: Annotated[float, Range(0, 10)] = 4.0,
    margin: Annotated[float, Range(0, 0.5)] = 0.05,
) -> Tensor:
    """Asymmetric loss: focal with a gamma for each class, and a margin taken off the negatives' probability
    (Ridnik et al. 2021, arXiv:2009.14119, sec. 2).

    A negative below the margin is easy: it costs nothing. The focusing factors have gradients, as in the formula.
    """
    positive = torch.exp(gamma_pos * logsigmoid(-logits)) * -logsigmoid(logits)
    log_margin = torch.full_like(logits, math.log(margin) if margin else -math.inf)
    log_absent = torch.logaddexp(logsigmoid(-logits), log_margin).clamp(max=0)  # of the shifted probability
    # Not below the smallest normal number: the slope of a power below 1 overflows towards 0.
    shifted = (-torch.expm1(log_absent)).clamp(min=torch.finfo(logits.dtype).tiny)
    return _labelled_mean(torch.where(targets == 1, positive, -(shifted**gamma_neg) * log_absent), targets)


@losses.register("auc_margin")
def auc_margin(logits: Tensor, targets: Tensor, *, margin: Annotated[float, Range(0.05, 1)] = 1.0) -> Tensor:
    """AUC margin loss on probabilities (Yuan et al. 2021, arXiv:2012.03173), solved for its auxiliary variables.

    The published loss is the saddle point of E[(h - a)^2 | positive] + E[(h - b)^2 | negative]
    + 2 alpha (margin - E[h | positive] + E[h | negative]) - alpha^2 over a, b and alpha >= 0, found by an optimizer
    of its own. On a batch it has a closed form, which any optimizer can train: a and b are the classes' means, alpha
    is max(0, margin - a + b), and what remains is the variance in each class plus the squared hinge of the distance
    of their means. At margin 1 it equals the mean of (1 - h + h')^2 over all pairs of a positive and a negative, of
    which a batch is an unbiased estimate.

    Returns the mean over findings that have both classes in the batch, without unit.
    """
    scores = torch.sigmoid(logits)
    (positives, a, spread_a), (negatives, b, spread_b) = (_moments(scores, targets == label) for label in (1, 0))
    entries = spread_a + spread_b + torch.relu(margin - a + b) ** 2
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, entries, 0.0).sum() / both.sum().clamp(min=1)


def _moments(scores: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance of each column's chosen scores, each (C,)."""
    count = chosen.sum(0)
    at_least_one = count.clamp(min=1)
    mean = torch.where(chosen, scores, 0.0).sum(0) / at_least_one
    variance = torch.where(chosen, (scores - mean) ** 2, 0.0).sum(0) / at_least_one
    return count, mean, variance
