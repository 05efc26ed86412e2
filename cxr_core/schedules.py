"""Learning-rate schedules, as functions of the fraction of a training's own schedule that is done."""

import math
from typing import Annotated

from cxr_core.registry import Range, Registry

schedules = Registry("schedule")
"""Schedules by name: `schedule(progress, **hyperparameters)`, progress in [0, 1), gives the factor of the peak rate."""


@schedules.register("constant")
def constant(progress: float) -> float:
    """The peak rate throughout."""
    return 1.0


@schedules.register("cosine")
def cosine(
    progress: float, *, warmup: Annotated[float, Range(0, 0.5)] = 0.0, floor: Annotated[float, Range(0, 1)] = 0.0
) -> float:
    """Linear warm-up over a share of the schedule, then half a cosine down to the floor (Loshchilov & Hutter 2017,
    arXiv:1608.03983, eq. 5, without restarts)."""
    if progress < warmup:
        return progress / warmup
    return floor + (1 - floor) * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


@schedules.register("step")
def step(
    progress: float, *, gamma: Annotated[float, Range(0.001, 1)] = 0.1, at: Annotated[float, Range(0, 1)] = 0.5
) -> float:
    """The peak rate, then gamma times it from the fraction `at` on."""
    return gamma if progress >= at else 1.0
