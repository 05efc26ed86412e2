"""Searchers: what proposes configurations. Optuna's samplers, seeded for each trial, on conditional spaces."""

import warnings
from collections.abc import Mapping

import optuna

from cxr_core.domains import Branches, Domain, Fixed, Interval
from cxr_core.registry import Registry, Scalar

searchers = Registry("searcher")
"""Searchers by name: `searcher(seed)` gives a fresh Optuna sampler, whose draws depend on the seed and history only."""


@searchers.register("tpe")
def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023, arXiv:2304.11127).

    Parameters are modelled jointly within each branch, and trials in progress count as poor, so that parallel
    proposals differ.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


@searchers.register("random")
def random(seed: int) -> optuna.samplers.BaseSampler:
    """Independent uniform draws: the searcher that every other one has to beat."""
    return optuna.samplers.RandomSampler(seed=seed)


def propose(domains: Mapping[str, Domain], trial: optuna.Trial, prefix: str = "") -> dict[str, Scalar]:
    """Draw one configuration, flat; the trial is asked for each parameter of the branches chosen."""
    flat: dict[str, Scalar] = {}
    for key, domain in domains.items():
        name = prefix + key
        flat[name] = _draw(name, domain, trial)
        if isinstance(domain, Branches):
            branch = str(flat[name])
            flat |= propose(domain.branches[branch], trial, f"{name}.{branch}.")
    return flat


def _draw(name: str, domain: Domain, trial: optuna.Trial) -> Scalar:
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Interval):
        if domain.whole:
            low, high, step = int(domain.low), int(domain.high), int(domain.step or 1)
            return trial.suggest_int(name, low, high, log=domain.log, step=step)
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
    options = tuple(domain.branches) if isinstance(domain, Branches) else domain.options
    return options[0] if len(options) == 1 else trial.suggest_categorical(name, options)
