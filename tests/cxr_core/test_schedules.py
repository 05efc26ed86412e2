"""Every registered schedule is a factor of the peak rate over the whole of a training; the known ones equal torch's."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from cxr_core.registry import Chosen
from cxr_core.schedules import constant, cosine, schedules, step

PROGRESS = [*np.linspace(0, 1, 401)[:-1].tolist(), math.nextafter(1, 0)]
CORNERS = [
    pytest.param(Chosen(name, dict(zip(component.parameters, corner, strict=True))), id=f"{name}{corner}")
    for name, component in schedules.items()
    for corner in itertools.product(*[(p.range.low, p.default, p.range.high) for p in component.parameters.values()])
]


def torch_factors(kind: type[LRScheduler], steps: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = kind(optimizer, **options)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


# Rules of all schedules


@pytest.mark.parametrize("chosen", CORNERS)
def test_a_factor_lies_between_nothing_and_the_peak_at_all_times(chosen: Chosen) -> None:
    factors = [schedules.call(chosen, progress) for progress in PROGRESS]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)


@pytest.mark.parametrize("name", schedules)
def test_a_schedule_reaches_its_peak(name: str) -> None:
    assert max(schedules.call(Chosen(name), progress) for progress in PROGRESS) == pytest.approx(1, abs=1e-3)


# The known ones


def test_constant_is_the_peak_rate_throughout() -> None:
    assert {constant(progress) for progress in PROGRESS} == {1.0}


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_without_warm_up_equals_torchs(floor: float) -> None:
    expected = torch_factors(CosineAnnealingLR, 50, T_max=50, eta_min=floor)
    assert [cosine(k / 50, floor=floor) for k in range(50)] == pytest.approx(expected, abs=1e-9)


def test_cosine_warms_up_in_a_straight_line() -> None:
    assert [cosine(p, warmup=0.2) for p in (0, 0.05, 0.1, 0.2)] == pytest.approx([0, 0.25, 0.5, 1])


def test_cosine_after_warm_up_is_a_whole_half_wave_over_what_is_left() -> None:
    expected = [cosine(p, floor=0.1) for p in (0, 0.25, 0.5, 0.75)]
    assert [cosine(0.2 + 0.8 * p, warmup=0.2, floor=0.1) for p in (0, 0.25, 0.5, 0.75)] == pytest.approx(expected)


def test_cosine_ends_at_its_floor() -> None:
    assert cosine(math.nextafter(1, 0), warmup=0.3, floor=0.05) == pytest.approx(0.05)


def test_step_equals_torchs_with_one_step() -> None:
    expected = torch_factors(StepLR, 20, step_size=12, gamma=0.3)
    assert [step(k / 20, gamma=0.3, at=0.6) for k in range(20)] == pytest.approx(expected)
