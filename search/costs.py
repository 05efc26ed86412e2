"""What networks cost in use, as far as objectives and constraints ask: known before a worker trains them."""

import dataclasses

from cxr_core.config import TrainConfig
from cxr_core.models import Infeasible
from search.objectives import WORST, Objective
from search.space import Space, fidelities_of
from search.trial import EpochRecord, Trial


class Costs:
    """Looks at each trial's network on paper, and adds what it costs to the trial's epochs."""

    def __init__(self, objective: Objective, space: Space):
        self._objective, self._space = objective, space
        self._staged = fidelities_of(space.header).stages > 1
        bounds = {name: bound for name, bound in objective.bounds.items() if name in ("parameters", "gflops")}
        self._bounded = dataclasses.replace(objective, bounds=bounds)
        self._of: dict[int, dict[str, float]] = {}

    def infeasible(self, trial: Trial, config: TrainConfig) -> str | None:
        """Why a trial cannot be trained as config says, or costs more than it may; None if it can."""
        try:
            size = config.footprint()
            if self._staged:  # what it costs in use, not on the smaller films of an earlier stage
                size = self._space.config(trial.flat, trial.seed).footprint()
        except Infeasible as reason:
            return str(reason)
        costs = {"parameters": float(size.parameters), "gflops": config.views.count * size.flops / 1e9}
        self._of[trial.number] = {name: value for name, value in costs.items() if name in self._objective.costs}
        return "; ".join(self._bounded.broken(costs)) or None if trial.searched else None

    def added(self, number: int, epoch: EpochRecord) -> EpochRecord:
        """An epoch of a trial with all metrics that the objectives and constraints ask for."""
        metrics = {**epoch.metrics, **self._of.get(number, {})}
        if WORST in (*self._objective.metrics, *self._objective.bounds):
            metrics[WORST] = min((value for value in epoch.auroc.values() if value is not None), default=None)
        return dataclasses.replace(epoch, metrics=metrics) if metrics != epoch.metrics else epoch
