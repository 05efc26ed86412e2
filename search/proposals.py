"""Proposals: the next configuration as a pure function of what is known, by Optuna's samplers."""

from collections import OrderedDict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm, rankdata

from cxr_core.domains import Domain
from cxr_core.registry import Scalar
from search import searchers as registered
from search.known import PRUNED, VIOLATED, Entry, History, Known, order
from search.priors import listens, on_scale_of
from search.quasi_random import QuasiRandom, families
from search.searchers import Limits, Traits, searchers, traits

__all__ = ["Known", "Proposal", "propose"]


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, and how it came about.

    params and distributions: the searched part, as Optuna stores it. origin: for the ledger of decisions.
    """

    flat: dict[str, Scalar]
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    origin: str


def propose(
    domains: Mapping[str, Domain],
    searcher: str,
    history: Sequence[Known],
    *,
    seed: int,
    number: int,
    maximize: Sequence[bool],
    startup: int = 10,
    attempt: int = 0,
    prior: Sequence[Known] = (),
) -> Proposal:
    """Propose the configuration of trial `number`: the same arguments give the same proposal, in any process.

    history: earlier trials; one that changes is a new object. maximize: one an objective. startup: the first trials,
    from a quasi-random sequence, at least one a family. attempt: counts redraws, after a duplicate. prior: trials of an
    earlier study. Raises ValueError if there are several objectives and the searcher takes one.
    """
    its = traits[searcher]
    if len(maximize) > 1 and not its.several:
        raise ValueError(f"the searcher {searcher} takes one objective, not {len(maximize)}")
    drawn = int(np.random.SeedSequence((seed, number, attempt)).generate_state(1)[0])
    if not its.learns:
        return _ask(domains, searchers[searcher].function(drawn), [], maximize, searcher)
    startup = max(startup, len(families(domains)))
    own = _history(domains, its, maximize, history, is_prior=False)
    listened = bool(prior) and listens(seed, number, own.finished, startup)
    if listened or len(history) >= startup:
        entries = own.thinned(its.limits)
        if listened:
            theirs = _history(domains, its, maximize, prior, is_prior=True).thinned(_half(its.limits))
            entries = on_scale_of(theirs, entries) + entries
        told = _TELL[its.told](entries, maximize)
        directions = [True] if its.told == "scored" else maximize
        # A model of fewer results is noise: parallel searches reach the end of the start before they have any.
        if sum(trial.state.is_finished() for trial in told) >= max(2, startup // 2):
            sampler, origin = searchers[searcher].function(drawn), searcher
            if its.family_drawn and (family := _drawn_family(domains, seed, number, own.finished, startup)):
                sampler, origin = registered.with_family(sampler, family), f"{searcher}, family drawn"
            return _ask(domains, sampler, told, directions, origin + ", with the earlier study" * listened)
    start = QuasiRandom(domains, seed, len(history), startup, attempt)
    return _ask(domains, start, [], maximize, "quasi-random start")


def _drawn_family(domains: Mapping[str, Domain], seed: int, number: int, finished: int, startup: int) -> str | None:
    """A family to try whatever the searcher thinks of it, with probability s / (s + n) after n results, s = startup.

    TPE's good model is a tenth of the trials: a family whose two or three start trials had poor parameters is not in it
    and is hardly met again, though it may be the best. On a function with four families, TPE missed the best one in 6
    of 16 searches of 60 trials without this, and in none with it; .2 throughout missed it in 2.
    """
    rng, known = np.random.default_rng((seed, number, 2)), families(domains)
    if len(known) == 1 or rng.random() >= startup / (startup + finished):
        return None
    return known[rng.integers(len(known))]


def _half(limits: Limits) -> Limits:
    """An earlier study has no latest trials that would tell where this search is, and no more than half a voice."""
    return Limits(limits.best // 2, 0, limits.even // 2)


# Conversions of the latest histories, by identity of their domains; nothing but time depends on them.
_histories: OrderedDict[tuple[Any, ...], History] = OrderedDict()
_KEPT = 8


def _history(
    domains: Mapping[str, Domain], its: Traits, maximize: Sequence[bool], known: Sequence[Known], *, is_prior: bool
) -> History:
    key = (id(domains), its.inactive, tuple(maximize), is_prior)
    found = _histories.pop(key, None)
    if found is None or found.domains is not domains:
        found = History(domains, its.inactive, maximize)
    _histories[key] = found
    while len(_histories) > _KEPT:
        _histories.popitem(last=False)
    found.update(known)
    return found


def _ask(
    domains: Mapping[str, Domain], sampler: BaseSampler, told: list[FrozenTrial], maximize: Sequence[bool], origin: str
) -> Proposal:
    storage = _Told(told)
    directions = [StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE for more in maximize]
    storage.create_new_study(directions, "proposal")
    asked = optuna.study.Study("proposal", storage, sampler=sampler).ask()
    flat = registered.draw_configuration(domains, asked)
    return Proposal(flat, asked.params, asked.distributions, origin)


class _Told(InMemoryStorage):
    """A storage of one trial, the one asked for, that shows earlier ones, numbered from 1, without copying them."""

    def __init__(self, told: list[FrozenTrial]):
        super().__init__()
        self._told = told

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        shown = [trial for trial in self._told if states is None or trial.state in states]
        return shown + super().get_all_trials(study_id, deepcopy, states)


def _as_they_are(entries: list[Entry], maximize: Sequence[bool]) -> list[FrozenTrial]:
    """For TPE: complete trials before pruned ones (by rung and value) before violated ones; it ranks them itself.

    With several objectives Optuna's TPE refuses the values of pruned trials; it takes violated ones, the least violated
    first. There a pruned trial violates a constraint by its place among the pruned, below 1, and others by 1 more.
    """
    several = len(maximize) > 1
    places = _places(entries, maximize, PRUNED) if several else {}
    told = []
    for index, entry in enumerate(entries):
        known = entry.known
        constraints = list(known.violations)
        if several:
            constraints.append(places.get(index, 1.0 if entry.rank_class == VIOLATED else 0.0))
        if known.state == TrialState.COMPLETE:
            told.append(_frozen(index, entry, TrialState.COMPLETE, known.values, constraints))
        elif known.state == TrialState.RUNNING:
            told.append(_frozen(index, entry, TrialState.RUNNING))
        else:
            steps = {} if several or not known.values else {known.rung: known.values[0]}
            told.append(_frozen(index, entry, TrialState.PRUNED, (), constraints, steps))
    return told


def _population(entries: list[Entry], maximize: Sequence[bool]) -> list[FrozenTrial]:
    """For NSGA-II, which knows complete trials only: a pruned one is complete, and violates by its place among them.

    So it is a parent as long as there are too few complete ones, and never in their place.
    """
    places = _places(entries, maximize, PRUNED)
    width = max((len(entry.known.violations) for entry in entries), default=0)
    told = []
    for index, entry in enumerate(entries):
        if entry.known.state in (TrialState.COMPLETE, TrialState.PRUNED):
            violations = [*entry.known.violations, *[0.0] * (width - len(entry.known.violations))]
            constraints = [*violations, places.get(index, 0.0)]
            told.append(_frozen(index, entry, TrialState.COMPLETE, entry.known.values, constraints))
    return told


def _scored(entries: list[Entry], maximize: Sequence[bool]) -> list[FrozenTrial]:
    """For the GP, which knows complete trials only: normal scores of one order, complete trials above pruned ones.

    Scores rather than values: one failed training would flatten the differences among good ones, and values at
    different rungs cannot be compared, while their order can. To be maximised.
    """
    sign = 1.0 if maximize[0] else -1.0
    results = {i: entry for i, entry in enumerate(entries) if entry.known.state != TrialState.RUNNING}
    keys = [_standing(entry, sign) for entry in results.values()]
    distinct = {key: place for place, key in enumerate(sorted(set(keys)))}
    scores = norm.ppf((rankdata([distinct[key] for key in keys]) - 0.5) / len(keys)) if keys else []
    width = max((len(entry.known.violations) for entry in entries), default=0)
    told = []
    for (index, entry), score in zip(results.items(), scores, strict=True):
        constraints = [*entry.known.violations, *[0.0] * (width - len(entry.known.violations))]
        told.append(_frozen(index, entry, TrialState.COMPLETE, (float(score),), constraints))
    running = [_frozen(i, entry, TrialState.RUNNING) for i, entry in enumerate(entries) if i not in results]
    return told + running


def _standing(entry: Entry, sign: float) -> tuple[int, int, float]:
    """A trial's place in the order of results, the worst first; constraints are the sampler's own matter."""
    known = entry.known
    if known.state == TrialState.COMPLETE:
        return 2, 0, sign * known.values[0]
    return (1, known.rung, sign * known.values[0]) if known.state == TrialState.PRUNED else (0, 0, 0.0)


def _places(entries: list[Entry], maximize: Sequence[bool], rank_class: int) -> dict[int, float]:
    """Place of each trial of a class among them, in (0, 1], the best one's the lowest."""
    here = [index for index, entry in enumerate(entries) if entry.rank_class == rank_class]
    signs = np.where(maximize, -1.0, 1.0)
    rows = np.array([[rank_class, -e.known.rung, 0.0, *(signs * e.known.values)] for e in (entries[i] for i in here)])
    ordered = order(rows, len(here)).tolist() if here else []
    return {here[position]: (place + 1) / len(here) for place, position in enumerate(ordered)}


def _frozen(
    index: int,
    entry: Entry,
    state: TrialState,
    values: Sequence[float] = (),
    constraints: Sequence[float] = (),
    intermediate: dict[int, float] | None = None,
) -> FrozenTrial:
    trial = FrozenTrial(
        number=index + 1,  # 0 is the trial asked for
        trial_id=index + 1,
        state=state,
        value=None,
        values=list(values) or None,
        params=entry.params,
        distributions=entry.distributions,
        intermediate_values=intermediate or {},
        user_attrs={},
        system_attrs={},
        datetime_start=None,
        datetime_complete=None,
    )
    for place, violation in enumerate(constraints):
        trial.set_constraint(str(place), float(np.nan_to_num(violation, nan=1.0)))
    return trial


_TELL: dict[str, Callable[[list[Entry], Sequence[bool]], list[FrozenTrial]]] = {
    "as they are": _as_they_are,
    "population": _population,
    "scored": _scored,
}
