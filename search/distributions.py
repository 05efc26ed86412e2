"""Searched parameters as Optuna's distributions: the one translation of domains that searchers and histories share."""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cxr_core.config import SEARCHABLE, TrainConfig
from cxr_core.domains import Branches, Domain, Fixed, Interval
from cxr_core.registry import Chosen, Registry, Scalar


@dataclass(frozen=True)
class Slot:
    """One name of a space: its domain, how it is searched (None: it has one value), and the branch that it lies in."""

    name: str
    domain: Domain
    distribution: BaseDistribution | None
    branch: tuple[str, str] | None


def slots(domains: Mapping[str, Domain], prefix: str = "", branch: tuple[str, str] | None = None) -> Iterator[Slot]:
    """Every name of a space, choices before what lies in their branches."""
    for key, domain in domains.items():
        name = prefix + key
        yield Slot(name, domain, distribution(domain), branch)
        if isinstance(domain, Branches):
            for choice, below in domain.branches.items():
                yield from slots(below, f"{name}.{choice}.", (name, choice))


def distribution(domain: Domain) -> BaseDistribution | None:
    """Optuna's distribution of a domain; None where there is one value only."""
    if isinstance(domain, Fixed):
        return None
    if isinstance(domain, Interval):
        if domain.whole:
            return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
        return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    offered = options(domain)
    return CategoricalDistribution(offered) if len(offered) > 1 else None


def options(domain: Domain) -> tuple[Scalar, ...]:
    """What a choice offers; of a fixed value, itself."""
    if isinstance(domain, Branches):
        return tuple(domain.branches)
    return (domain.value,) if isinstance(domain, Fixed) else getattr(domain, "options", ())


def value_at(where: BaseDistribution, share: float) -> Any:
    """The value below which a share of a distribution lies, in [0, 1); logarithmic ranges on their own scale."""
    if isinstance(where, CategoricalDistribution):
        return where.choices[int(share * len(where.choices))]
    assert isinstance(where, IntDistribution | FloatDistribution)
    if where.step is not None and not where.log:
        steps = round((where.high - where.low) / where.step) + 1
        return min(where.low + int(share * steps) * where.step, where.high)
    # half a step more on both sides gives the end points of whole numbers their full share
    margin = 0.5 if isinstance(where, IntDistribution) else 0.0
    low, high = where.low - margin, where.high + margin
    if where.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    value = min(max(value, where.low), where.high)
    return round(value) if isinstance(where, IntDistribution) else value


def placed(domain: Domain, where: BaseDistribution | None, value: Any) -> tuple[bool, Any]:
    """Whether a value lies in a domain, and the value as the domain spells it."""
    if isinstance(domain, Interval):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False, None
        assert isinstance(where, IntDistribution | FloatDistribution)
        off_grid = (
            where.step and not where.log and abs(math.remainder(value - where.low, where.step)) > 1e-8 * where.step
        )
        fits = where.low <= value <= where.high and not off_grid and (not domain.whole or value == int(value))
        return fits, (int(value) if domain.whole else float(value)) if fits else None
    for option in options(domain):
        if option == value and isinstance(option, bool) == isinstance(value, bool):
            return True, option
    return False, None


@functools.cache
def default(name: str) -> Any:
    """What the training takes for a name that a configuration leaves out; `MISSING` if there is no such name."""
    key, _, rest = name.partition(".")
    if not rest:
        found = {field.name: field.default for field in fields(TrainConfig) if field.name in SEARCHABLE}.get(
            key, MISSING
        )
        return found.name if isinstance(found, Chosen) else found
    component, _, parameter = rest.rpartition(".")
    registry = SEARCHABLE.get(key)
    if not isinstance(registry, Registry) or component not in registry:
        return MISSING
    schema = registry[component].parameters.get(parameter)
    return MISSING if schema is None else schema.default
