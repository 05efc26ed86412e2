"""Searchers: what proposes configurations. Optuna's samplers, seeded for each trial, on conditional spaces."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cxr_core.domains import Branches, Domain
from cxr_core.registry import Registry, Scalar
from search.distributions import distribution, options, value_at

optuna.logging.set_verbosity(optuna.logging.ERROR)

searchers = Registry("searcher")
"""Searchers by name: `searcher(seed)` gives a fresh Optuna sampler, whose draws depend on the seed and history only."""


@dataclass(frozen=True)
class Limits:
    """How many earlier trials a sampler is shown, of those that ended: the best, the latest, and some of the rest."""

    best: int
    recent: int
    even: int


@dataclass(frozen=True)
class Traits:
    """What a searcher needs to be told, and how.

    several: whether it takes several objectives. learns: whether it uses earlier trials at all. inactive: what stands
    for parameters of branches that a trial did not take; the sampler's own notion if "absent". told: in which form it
    is shown trials that were stopped early. family_drawn: whether it settles on an architecture family too soon, so
    that some of its proposals are given one.
    """

    several: bool
    limits: Limits = Limits(0, 0, 0)
    learns: bool = True
    inactive: Literal["absent", "middle", "drawn"] = "absent"
    told: Literal["as they are", "scored", "population"] = "as they are"
    family_drawn: bool = False


traits: dict[str, Traits] = {}
"""Traits of each searcher, filled by its registration."""


def takes_several(searcher: str) -> bool:
    """Whether a searcher can serve several objectives."""
    return traits[searcher].several


def _searcher(name: str, its: Traits) -> Callable[[Callable[[int], BaseSampler]], Callable[[int], BaseSampler]]:
    traits[name] = its
    return searchers.register(name)


# Full TPE takes at most the 25 best as its good model, so with these limits that model is the unthinned one.
@_searcher("tpe", Traits(several=True, limits=Limits(best=50, recent=50, even=100), family_drawn=True))
def tpe(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023, arXiv:2304.11127).

    Parameters are modelled jointly within each branch, and trials in progress count as poor, so that parallel
    proposals differ.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=1, seed=seed)


@_searcher("random", Traits(several=True, learns=False))
def random(seed: int) -> BaseSampler:
    """Independent uniform draws: the searcher that every other one has to beat."""
    return RandomSampler(seed=seed)


@_searcher("gp", Traits(several=False, limits=Limits(best=30, recent=15, even=15), inactive="middle", told="scored"))
def gp(seed: int) -> BaseSampler:
    """Gaussian process with expected improvement, on one model of all branches.

    A parameter of a branch not taken stands at its middle, in the history and in every candidate, so that it changes
    neither the model's distances nor the improvement expected (SMAC imputes so, too: Lindauer et al. 2022,
    arXiv:2109.09831).
    """
    return _ConditionalGP(seed=seed, n_startup_trials=1, warn_independent_sampling=False)


@_searcher(
    "nsgaii", Traits(several=True, limits=Limits(best=64, recent=0, even=0), inactive="drawn", told="population")
)
def nsgaii(seed: int) -> BaseSampler:
    """Steady-state NSGA-II (Deb et al. 2002; Durillo et al. 2009): each proposal is bred from the best 16 so far.

    Trials end in any order, so there are no generations to wait for. 16, where Optuna has 50: a search of an hour has
    60 trials, not thousands.
    """
    return _SteadyNSGAII(population_size=16, seed=seed)


class _SteadyNSGAII(NSGAIISampler):
    """NSGA-II whose parents are the elite of all complete trials, at every proposal."""

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return 1

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return [] if generation == 0 else self.select_parent(study, generation)


class _ConditionalGP(GPSampler):
    """Optuna's GP sampler, with candidates whose inactive parameters are folded to the middle."""

    _space: dict[str, BaseDistribution]

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._space = search_space
        # Optuna's 2048, 10 and 1e-4 take most of a proposal's time, and gain .001 of the logarithm of the improvement.
        self._n_preliminary_samples, self._n_local_search, self._tol = 256, 2, 1e-2
        return super().sample_relative(study, trial, search_space)

    def _sample_relative_impl(self, *history: Any) -> dict[str, Any]:
        # Optuna guards against another default device than the CPU by looking at each operation: a quarter of the time.
        with torch._C.DisableTorchFunction():
            params: dict[str, Any] = super()._sample_relative_impl(*history)
        return params

    def _optimize_acqf(self, acqf: Any, best_params: np.ndarray | None) -> np.ndarray:
        middle = torch.tensor([_normalised_middle(where) for where in self._space.values()], dtype=torch.float64)
        columns, choices, codes = torch.tensor(_conditions(self._space), dtype=torch.long).reshape(-1, 3).T
        improvement = acqf.eval_acqf

        def of_active_parameters(x: torch.Tensor) -> torch.Tensor:
            active = torch.ones_like(x, dtype=torch.bool)
            active[..., columns] = x[..., choices] == codes
            found: torch.Tensor = improvement(torch.where(active, x, middle))
            return found

        acqf.eval_acqf = of_active_parameters
        return super()._optimize_acqf(acqf, best_params)


def _conditions(space: Mapping[str, BaseDistribution]) -> list[tuple[int, int, int]]:
    """(column, column of the choice it lies under, code of its branch) for each parameter of a branch."""
    names, found = list(space), {}
    for choice in sorted(space, key=len):  # of nested choices the inner one counts
        offered = space[choice]
        for code, branch in enumerate(offered.choices if isinstance(offered, CategoricalDistribution) else ()):
            for name in names:
                if name.startswith(f"{choice}.{branch}."):
                    found[names.index(name)] = (names.index(choice), code)
    return [(column, *condition) for column, condition in found.items()]


def _normalised_middle(where: BaseDistribution) -> float:
    """Where the middle of a distribution lies on the scale of Optuna's GP: [0, 1], or the code of an option."""
    value = value_at(where, 0.5)
    if not isinstance(where, IntDistribution | FloatDistribution):
        return where.to_internal_repr(value)
    half = (where.step or 0.0) / 2
    low, high = where.low - half, where.high + half
    scale = np.log if where.log else np.float64
    return float((scale(value) - scale(low)) / (scale(high) - scale(low)))


def with_family(sampler: BaseSampler, family: str) -> BaseSampler:
    """A sampler that draws all but the architecture family."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PartialFixedSampler({"model": family}, sampler)


def draw_configuration(domains: Mapping[str, Domain], trial: optuna.Trial, prefix: str = "") -> dict[str, Scalar]:
    """Draw one configuration, flat; the trial is asked for each parameter of the branches chosen."""
    flat: dict[str, Scalar] = {}
    for key, domain in domains.items():
        name = prefix + key
        flat[name] = _draw(name, domain, trial)
        if isinstance(domain, Branches):
            branch = str(flat[name])
            flat |= draw_configuration(domain.branches[branch], trial, f"{name}.{branch}.")
    return flat


def _draw(name: str, domain: Domain, trial: optuna.Trial) -> Scalar:
    where = distribution(domain)
    if isinstance(where, IntDistribution):
        return trial.suggest_int(name, where.low, where.high, log=where.log, step=where.step)
    if isinstance(where, FloatDistribution):
        return trial.suggest_float(name, where.low, where.high, log=where.log, step=where.step)
    offered = options(domain)
    return offered[0] if where is None else trial.suggest_categorical(name, offered)
