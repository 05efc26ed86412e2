"""Learning-rate schedules, as functions of the fraction of a training's own schedule that is done."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from cxr_core.registry import Chosen, Range, Registry

schedules = Registry("schedule")
"""Schedules by name: `schedule(progress, **hyperparameters)`, progress in [0, 1), gives the factor of the peak rate.

A schedule that takes `history` as second argument gets the validation losses so far, one for each epoch done. None
keeps a state: a training that is resumed with its history goes on at the same rate.
"""

Schedule = Callable[[float, Sequence[float]], float]

Warmup = Annotated[float, Range(0, 0.5)]
"""Share of the schedule in which the rate rises in a straight line from nothing."""


def build_schedule(chosen: Chosen) -> Schedule:
    """The chosen schedule as a function of progress and of the validation losses so far, one for each epoch done."""
    function = schedules[chosen.name].function
    if "history" in inspect.signature(function).parameters:
        return partial(function, **chosen.params)
    return lambda progress, history: float(function(progress, **chosen.params))


def _ramp(progress: float, warmup: float) -> float:
    """Factor of the warm-up: from 0 to 1 within it, 1 after it."""
    return progress / warmup if progress < warmup else 1.0


def _rest(progress: float, warmup: float) -> float:
    """Share done of what follows the warm-up."""
    return max(0.0, (progress - warmup) / (1 - warmup))


def _half_wave(share: float) -> float:
    """Half a cosine, from 1 down to 0."""
    return (1 + math.cos(math.pi * share)) / 2


@schedules.register("constant")
def constant(progress: float, *, warmup: Warmup = 0.0) -> float:
    """The peak rate throughout, after the warm-up."""
    return _ramp(progress, warmup)


@schedules.register("cosine")
def cosine(progress: float, *, warmup: Warmup = 0.0, floor: Annotated[float, Range(0, 1)] = 0.0) -> float:
    """Half a cosine from the end of the warm-up down to the floor (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5,
    without restarts)."""
    return _ramp(progress, warmup) * (floor + (1 - floor) * _half_wave(_rest(progress, warmup)))


@schedules.register("step")
def step(
    progress: float,
    *,
    gamma: Annotated[float, Range(0.001, 1)] = 0.1,
    at: Annotated[float, Range(0, 1)] = 0.5,
    then_at: Annotated[float | None, Range(0, 1)] = None,
    warmup: Warmup = 0.0,
) -> float:
    """The peak rate, multiplied by gamma from the fraction `at` of the schedule on, and again from `then_at` on.

    The fractions are of the whole schedule, warm-up included. A peak of 1e-3 with the defaults is 1e-3, then 1e-4.
    """
    drops = sum(progress >= drop for drop in (at, then_at) if drop is not None)
    return _ramp(progress, warmup) * gamma**drops


@schedules.register("one_cycle")
def one_cycle(
    progress: float,
    *,
    warmup: Annotated[float, Range(0, 0.9)] = 0.3,
    div_factor: Annotated[float, Range(2, 1000)] = 25.0,
    final_div_factor: Annotated[float, Range(1, 1e6)] = 1e4,
) -> float:
    """One cycle (Smith & Topin 2018, arXiv:1708.07120), in cosines as is usual now: up to the peak, then far below.

    It starts at 1 / div_factor of the peak and ends at 1 / final_div_factor of the start. Momentum is not cycled.
    """
    start = 1 / div_factor
    if progress < warmup:
        return 1 - (1 - start) * _half_wave(progress / warmup)
    end = start / final_div_factor
    return end + (1 - end) * _half_wave(_rest(progress, warmup))


@schedules.register("polynomial")
def polynomial(
    progress: float,
    *,
    power: Annotated[float, Range(0.1, 10)] = 0.9,
    warmup: Warmup = 0.0,
    floor: Annotated[float, Range(0, 1)] = 0.0,
) -> float:
    """What is left after the warm-up, to a power, down to the floor (the `poly` policy of Chen et al. 2018,
    arXiv:1606.00915, sec. 4.1); power 1 is a straight line."""
    left = 1 - _rest(progress, warmup)
    return _ramp(progress, warmup) * (floor + (1 - floor) * math.pow(left, power))


@schedules.register("plateau")
def plateau(
    progress: float,
    history: Sequence[float],
    *,
    factor: Annotated[float, Range(0.01, 0.99)] = 0.1,
    patience: Annotated[int, Range(0, 100)] = 2,
    threshold: Annotated[float, Range(0, 0.5)] = 1e-4,
    floor: Annotated[float, Range(0, 1)] = 0.0,
    warmup: Warmup = 0.0,
) -> float:
    """The peak rate, multiplied by factor each time that the validation loss has stopped falling.

    It has when more than `patience` epochs in a row did not go below the lowest loss by more than the share
    `threshold` of it (the rule of torch's ReduceLROnPlateau). The rate does not fall below `floor` of the peak.
    """
    lowest, waited, drops = math.inf, 0, 0
    for loss in history:
        if loss < lowest * (1 - threshold):
            lowest, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            drops, waited = drops + 1, 0
    return _ramp(progress, warmup) * max(floor, factor**drops)
