"""Batch samplers: which films make up each batch of an epoch."""

import math
from typing import Annotated

import numpy as np

from cxr_core.registry import Range, Registry

samplers = Registry("sampler")
"""Batch samplers by name.

`sampler(targets, batch_size, rng, **hyperparameters)` gives the epoch's batches as a list of index arrays. targets:
(N, C) in {0, 1, NaN}. An epoch draws at most N films. Batches differ in size by at most one film (one pair of films
where they come in pairs), so no batch is too small for batch norm.
"""


def _batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return np.array_split(order, math.ceil(len(order) / batch_size))


def _with_and_without_finding(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of films that have a finding, and of those that lack all that are labelled; without labels it is neither."""
    positive = (targets == 1).any(axis=1)
    return np.flatnonzero(positive), np.flatnonzero(~positive & (targets == 0).any(axis=1))


@samplers.register("uniform")
def uniform(targets: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every film once, in random order."""
    return _batches(rng.permutation(len(targets)), batch_size)


@samplers.register("oversample")
def oversample(
    targets: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    *,
    threshold: Annotated[float, Range(0.001, 1.0)] = 0.2,
) -> list[np.ndarray]:
    """Draw films of rare findings more often: repeat factor sampling (Gupta et al. 2019, arXiv:1908.03195, sec. 6.1).

    A film is drawn in proportion to max over its findings of sqrt(threshold / prevalence), at least 1. An epoch has
    as many draws as there are films, so that epochs of different samplers cost the same.
    """
    positives, labelled = (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)
    factor = np.sqrt(threshold * labelled / np.maximum(positives, 1))
    weight = np.maximum(1.0, np.where(targets == 1, factor, 0.0).max(axis=1))
    return _batches(rng.choice(len(targets), size=len(targets), p=weight / weight.sum()), batch_size)


@samplers.register("balanced_batch")
def balanced_batch(targets: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """As many films without a finding as with one in each batch; the majority's surplus is left out, anew each epoch.

    An epoch has twice as many films as the smaller side. With one side empty, every film is drawn once.
    """
    sides = _with_and_without_finding(targets)
    pairs = min(map(len, sides))
    if not pairs:
        return uniform(targets, batch_size, rng)
    halves = [_batches(rng.permutation(side)[:pairs], batch_size // 2) for side in sides]
    return [np.concatenate(pair) for pair in zip(*halves, strict=True)]


@samplers.register("class_aware")
def class_aware(targets: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw all findings equally often, 'no finding' being one of them (Shen et al. 2016, arXiv:1512.05830).

    Findings are taken in shuffled turns, and of each finding its films in shuffled turns. An epoch has as many draws
    as there are films. A film without any label is never drawn, unless no film has one.
    """
    _, without = _with_and_without_finding(targets)
    classes = [films for films in (*map(np.flatnonzero, (targets == 1).T), without) if len(films)]
    if not classes:
        return uniform(targets, batch_size, rng)
    drawn = _turns(np.arange(len(classes)), len(targets), rng)
    order = np.empty(len(targets), np.intp)
    for number, films in enumerate(classes):
        places = np.flatnonzero(drawn == number)
        order[places] = _turns(films, len(places), rng)
    return _batches(order, batch_size)


def _turns(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Items in random order, shuffled again whenever they are used up, (count,)."""
    rounds = np.tile(items, (math.ceil(count / len(items)), 1))
    return rng.permuted(rounds, axis=1).ravel()[:count]
