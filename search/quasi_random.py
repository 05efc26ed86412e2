"""A quasi-random start: the first trials of a search cover every family and spread within each."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from cxr_core.domains import Branches, Domain
from search.distributions import slots, value_at

_FAMILY = "model"


def families(domains: Mapping[str, Domain]) -> tuple[str, ...]:
    """The branches of `model`; one nameless family if there is no choice of them."""
    model = domains.get(_FAMILY)
    return tuple(model.branches) if isinstance(model, Branches) else ("",)


class QuasiRandom(BaseSampler):
    """One start trial: its family in turn, its parameters a point of the family's scrambled Sobol sequence.

    index: how many trials there are already. In each block of as many trials as there are families every one comes
    once, in an order drawn from the seed. startup: length of the start. attempt: of a redraw; it moves to the next
    family of the block, since the duplicate may have been a family without parameters, and to a later point.
    """

    def __init__(self, domains: Mapping[str, Domain], seed: int, index: int, startup: int, attempt: int = 0):
        known = families(domains)
        block, place = divmod(index, len(known))
        order = np.random.default_rng((seed, block)).permutation(len(known))
        self._family = known[order[(place + attempt) % len(known)]]
        point = block + attempt * -(-startup // len(known))
        elsewhere = tuple(f"{_FAMILY}.{name}." for name in known if name != self._family)
        by_turn = {_FAMILY} if self._family else set()
        searched = [slot.name for slot in slots(domains) if slot.distribution and slot.name not in by_turn]
        names = [name for name in searched if not name.startswith(elsewhere)]
        self._shares = dict(
            zip(names, _sobol(len(names), (seed, zlib.crc32(self._family.encode())), point), strict=True)
        )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name == _FAMILY and self._family:
            return self._family
        return value_at(param_distribution, self._shares[param_name])


def _sobol(dimensions: int, seed: tuple[int, int], index: int) -> list[float]:
    """Point `index` of a scrambled Sobol sequence (Owen 1998), each coordinate in [0, 1)."""
    if not dimensions:
        return []
    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if index:
        sequence.fast_forward(index)
    point: list[float] = sequence.random(1)[0].tolist()
    return point
