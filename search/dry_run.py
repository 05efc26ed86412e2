"""`--dry-run`: what a search would do and cost, found out without Ray and without writing anything."""

import math
import sys
import time

import optuna
import torch
from rich.console import Console
from rich.table import Table

from cxr_core.config import TrainConfig
from cxr_core.data import DataError, DataName
from cxr_core.losses import bce
from cxr_core.models import Footprint, Infeasible, build_model, measure_model
from cxr_core.registry import Chosen, Scalar
from search.durations import format_duration
from search.exit_codes import DONE, NO_VALID_TRIAL
from search.preflight import PreflightError
from search.searchers import draw_configuration, random
from search.space import Space, fidelities_of, rungs_of

_SAMPLES = 12
"""Configurations to look at: enough to meet every family of an ordinary space."""
_BACKWARD = 3
"""A training step costs about three forward passes (Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1)."""


def dry_run(space: Space, data: DataName, concurrent: int, seed: int) -> int:
    """Print the space's configurations, their sizes and rungs, and a cost estimate; returns the exit code."""
    out = Console() if sys.stdout.isatty() else Console(width=140)
    header = space.header
    task = f"{header.task.kind} of {len(header.task.labels)} labels"
    out.print(f"space {header.name}: valid. {task}, {header.data.image_size} px, {header.objective.metric}")
    draws = [(f"recipe {baseline.name}", baseline.flat) for baseline in space.baselines]
    draws += [(f"draw {number}", flat) for number, flat in enumerate(_draw(space, seed))]
    rungs, folds = rungs_of(header), fidelities_of(header).folds
    if folds > 1:
        out.print(f"each trial is {folds} trainings, one a fold; rungs lie in the first one, and at its end")
    table = Table("", "model", "parameters", "GFLOPs a film", "epochs", "rungs at", box=None)
    sizes: list[tuple[TrainConfig, Footprint]] = []
    misfits = []
    for name, flat in draws:
        config = space.config(flat, seed)
        try:
            size = config.footprint()
        except Infeasible as reason:
            misfits.append(f"infeasible: {name}: {reason}")
            continue
        met = ", ".join(map(str, rungs.epochs(folds * config.epochs))) or "none"
        epochs = f"{folds} x {config.epochs}" if folds > 1 else str(config.epochs)
        cost = f"{config.views.count * size.flops / 1e9:.3f}"
        table.add_row(name, _describe(config.model), f"{size.parameters:,}", cost, epochs, met)
        sizes.append((config, size))
    out.print(table)
    for line in misfits:
        out.print(line)
    if not sizes:
        return NO_VALID_TRIAL
    _print_cost(out, space, data, concurrent, sizes)
    return DONE


def _draw(space: Space, seed: int) -> list[dict[str, Scalar]]:
    study = optuna.create_study(sampler=random(seed))
    return [draw_configuration(space.domains, study.ask()) for _ in range(_SAMPLES)]


def _describe(model: Chosen) -> str:
    values = (
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in model.params.items()
    )
    return " ".join([model.name, *values])


def _print_cost(
    out: Console, space: Space, data: DataName, concurrent: int, sizes: list[tuple[TrainConfig, Footprint]]
) -> None:
    """Expected training work of the budget, in the time this machine needs for it."""
    try:
        films = int((data.open().films["split"] != "test").sum())
    except DataError as fault:
        raise PreflightError(str(fault)) from None
    budget = space.header.budget
    searched, folds = sizes[-_SAMPLES:], fidelities_of(space.header).folds
    costs = [(folds * config.epochs, size.flops) for config, size in searched]
    a_trial = sum(_expected_epochs(space, epochs) * flops for epochs, flops in costs) / len(costs)
    full = sum(epochs * flops for epochs, flops in costs) / len(costs)
    seconds = _BACKWARD * films / _speed(space) / concurrent
    out.print(
        f"{films:,} films of {data}; the budget of {budget.trials} trials is about "
        f"{format_duration(budget.trials * a_trial * seconds)} with {concurrent} at once on this machine "
        f"({format_duration(budget.trials * full * seconds)} without pruning; both within a factor of about 3)"
    )
    if budget.time:
        kept = f", of which {budget.reserve:.0%} is kept for the finals" if budget.reserve else ""
        out.print(f"the search ends after about {format_duration(budget.time)}{kept}")


def _expected_epochs(space: Space, schedule: int) -> float:
    """Epochs an average trial trains: all reach the first rung, 1/eta of them the next, and so on."""
    asha = space.header.asha
    stops = [*rungs_of(space.header).epochs(schedule), schedule]
    steps = [after - before for before, after in zip([0, *stops], stops, strict=False)]
    return math.fsum(step / asha.eta**rung for rung, step in enumerate(steps))


def _speed(space: Space) -> float:
    """Floating-point operations a second that training reaches on one core or GPU here, with a middling network."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    size, labels = space.header.data.image_size, len(space.header.task.labels)
    chosen = Chosen("inception_resnet", {"width": 16})
    flops = measure_model(chosen, size, labels, 0.0).flops
    model = build_model(chosen, size, labels, 0.0).to(device)
    films, targets = torch.rand(16, 1, size, size, device=device), torch.zeros(16, labels, device=device)
    for _attempt in range(2):  # the first one warms up
        started = time.perf_counter()
        loss = bce(model(films), targets)
        loss.backward()
        loss.item()
        seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    return _BACKWARD * flops * len(films) / seconds
