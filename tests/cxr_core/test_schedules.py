"""Every registered schedule is a factor of the peak rate over the whole of a training; the known ones equal torch's."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from cxr_core.registry import Chosen
from cxr_core.schedules import build_schedule, constant, cosine, one_cycle, plateau, polynomial, schedules, step

PROGRESS = [*np.linspace(0, 1, 201)[:-1].tolist(), math.nextafter(1, 0)]
FALLING = [1 / epoch for epoch in range(1, 25)]
RISING = [0.3 + 0.01 * epoch for epoch in range(24)]
NOISY = (0.5 + 0.2 * np.random.default_rng(0).standard_normal(24)).tolist()
every_schedule = pytest.mark.parametrize("name", schedules)


def corners(name: str) -> list[Chosen]:
    """The schedule with each combination of the ends and defaults of its parameters."""
    parameters = schedules[name].parameters
    values = [dict.fromkeys((p.range.low, p.default, p.range.high)) for p in parameters.values()]
    return [Chosen(name, dict(zip(parameters, corner, strict=True))) for corner in itertools.product(*values)]


def torch_factors(kind: type[LRScheduler], steps: int, **options: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = kind(optimizer, **options)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


# Rules of all schedules


@every_schedule
@pytest.mark.parametrize("history", [[], FALLING, RISING, NOISY], ids=["start", "falling", "rising", "noisy"])
def test_a_factor_lies_between_nothing_and_the_peak_at_all_times(name: str, history: list[float]) -> None:
    for chosen in corners(name):
        factors = [build_schedule(chosen)(progress, history) for progress in PROGRESS]
        assert all(0 <= factor <= 1 + 1e-12 for factor in factors), chosen


@every_schedule
def test_a_schedule_reaches_its_peak(name: str) -> None:
    schedule = build_schedule(Chosen(name))
    assert max(schedule(progress, []) for progress in PROGRESS) == pytest.approx(1, abs=1e-3)


@every_schedule
def test_a_schedule_gives_the_same_factors_in_any_order(name: str) -> None:
    schedule, again = build_schedule(Chosen(name)), build_schedule(Chosen(name))
    onward = [schedule(progress, tuple(NOISY)) for progress in PROGRESS]
    assert [again(progress, tuple(NOISY)) for progress in reversed(PROGRESS)] == onward[::-1]


@every_schedule
def test_warm_up_rises_from_little_to_the_peak(name: str) -> None:
    schedule = build_schedule(Chosen(name, {"warmup": 0.25}))
    factors = [schedule(progress, []) for progress in np.linspace(0, 0.25, 26)]
    assert factors[0] < 0.05
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(1)


# The known ones


def test_constant_is_the_peak_rate_throughout() -> None:
    assert {constant(progress) for progress in PROGRESS} == {1.0}


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_without_warm_up_equals_torchs(floor: float) -> None:
    expected = torch_factors(CosineAnnealingLR, 50, T_max=50, eta_min=floor)
    assert [cosine(k / 50, floor=floor) for k in range(50)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["constant", "cosine", "polynomial", "step", "plateau"])
def test_warm_up_is_a_straight_line(name: str) -> None:
    schedule = build_schedule(Chosen(name, {"warmup": 0.2}))
    assert [schedule(p, []) for p in (0, 0.05, 0.1, 0.2)] == pytest.approx([0, 0.25, 0.5, 1])


@pytest.mark.parametrize("schedule", [cosine, polynomial])
def test_after_warm_up_the_whole_curve_follows_in_what_is_left(schedule: object) -> None:
    expected = [schedule(p, floor=0.1) for p in (0, 0.25, 0.5, 0.75)]
    assert [schedule(0.2 + 0.8 * p, warmup=0.2, floor=0.1) for p in (0, 0.25, 0.5, 0.75)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [cosine, polynomial])
def test_a_curve_ends_at_its_floor(schedule: object) -> None:
    assert schedule(math.nextafter(1, 0), warmup=0.3, floor=0.05) == pytest.approx(0.05)


def test_step_equals_torchs_with_one_step() -> None:
    expected = torch_factors(StepLR, 20, step_size=12, gamma=0.3)
    assert [step(k / 20, gamma=0.3, at=0.6) for k in range(20)] == pytest.approx(expected)


@pytest.mark.parametrize(("at", "then_at"), [(0.3, 0.8), (0.8, 0.3)])
def test_step_equals_torchs_with_two_steps_in_any_order(at: float, then_at: float) -> None:
    expected = torch_factors(MultiStepLR, 20, milestones=[6, 16], gamma=0.3)
    assert [step(k / 20, gamma=0.3, at=at, then_at=then_at) for k in range(20)] == pytest.approx(expected)


def test_step_takes_a_rate_of_1e_3_to_1e_4_half_way_if_nothing_else_is_said() -> None:
    assert [1e-3 * step(p) for p in (0, 0.499, 0.5, 0.99)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize(("share", "div", "final"), [(0.3, 25.0, 1e4), (0.5, 10.0, 100.0)])
def test_one_cycle_equals_torchs(share: float, div: float, final: float) -> None:
    steps = 60
    expected = torch_factors(
        OneCycleLR,
        steps - 1,
        max_lr=1.0,
        total_steps=steps,
        pct_start=share,
        div_factor=div,
        final_div_factor=final,
        cycle_momentum=False,
    )
    peak = (share * steps - 1) / (steps - 1)  # torch counts steps from 0 to the last, and puts the peak on a step
    factors = [
        one_cycle(k / (steps - 1), warmup=peak, div_factor=div, final_div_factor=final) for k in range(steps - 1)
    ]
    assert factors == pytest.approx(expected, abs=1e-9)


def test_one_cycle_ends_far_below_where_it_began() -> None:
    assert one_cycle(math.nextafter(1, 0), div_factor=10, final_div_factor=1000) == pytest.approx(1e-4)


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_polynomial_equals_torchs(power: float) -> None:
    expected = torch_factors(PolynomialLR, 40, total_iters=40, power=power)
    assert [polynomial(k / 40, power=power) for k in range(40)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("losses", [FALLING, RISING, NOISY], ids=["falling", "rising", "noisy"])
@pytest.mark.parametrize(("patience", "threshold", "floor"), [(0, 1e-4, 0.0), (2, 0.2, 0.0), (1, 0.0, 0.05)])
def test_plateau_equals_torchs(losses: list[float], patience: int, threshold: float, floor: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=threshold, min_lr=floor, eps=0)
    for done, loss in enumerate(losses, 1):
        theirs.step(loss)
        options = {"factor": 0.5, "patience": patience, "threshold": threshold, "floor": floor}
        assert plateau(0.5, losses[:done], **options) == pytest.approx(optimizer.param_groups[0]["lr"]), done


def test_plateau_drops_only_after_more_epochs_than_its_patience() -> None:
    stalled = [0.5, *[0.5] * 6]
    assert [plateau(0.5, stalled[:done], factor=0.1, patience=2) for done in range(1, 8)] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.1, 0.01]
    )


def test_a_loss_that_is_not_a_number_is_no_improvement_to_plateau() -> None:
    assert plateau(0.5, [0.5, math.nan, math.nan], patience=1) == pytest.approx(0.1)
