"""Batch samplers: which films make up each batch of an epoch."""

import math
from typing import Annotated

import numpy as np

from cxr_core.registry import Range, Registry

samplers = Registry("sampler")
"""Batch samplers by name.

`sampler(targets, batch_size, rng, **hyperparameters)` gives the epoch's batches as a list of index arrays. targets:
(N, C) in {0, 1, NaN}. Batches differ in size by at most one film, so no batch is too small for batch norm.
"""


def _batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return np.array_split(order, math.ceil(len(order) / batch_size))


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
