"""What is known of earlier trials, as far as it fits the present space, and the part of it that a sampler is shown."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count
from operator import is_not
from typing import Any, Literal, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from cxr_core.domains import Domain
from cxr_core.registry import Scalar
from search.distributions import default, placed, slots, value_at
from search.objectives import non_dominated
from search.searchers import Limits

COMPLETE, PRUNED, VIOLATED, OTHER = range(4)
"""Classes of trials, from the best down; within PRUNED a higher rung is better. OTHER ones have no rank."""


@dataclass(frozen=True)
class Known:
    """What a searcher is told of an earlier trial.

    flat: its full configuration by dotted names, fixed values included. values: one an objective, of the last epoch if
    COMPLETE, at the rung if PRUNED (stopped there, or waiting). rung: its index, 0 for the lowest. violations: one a
    constraint, above 0 if violated.
    """

    number: int
    flat: Mapping[str, Scalar]
    state: TrialState
    values: tuple[float, ...] = ()
    rung: int = 0
    violations: tuple[float, ...] = ()

    @property
    def violation(self) -> float:
        """How far all constraints together are violated."""
        return float(sum(v for v in self.violations if v > 0))


class Entry(NamedTuple):
    """A trial that fits the present space: its searched part, as Optuna stores it."""

    known: Known
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]

    @property
    def rank_class(self) -> int:
        return _rank_class(self.known)


def _rank_class(known: Known) -> int:
    if known.violation > 0 and known.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        return VIOLATED
    return {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED}.get(known.state, OTHER)


class History:
    """A study's history in terms of one space. It grows with what it is given and keeps what it has converted.

    Entries are recognised by identity: one that changes is a new object. So a call costs one comparison of pointers
    for each old trial, and work for new ones only.
    """

    def __init__(
        self, domains: Mapping[str, Domain], inactive: Literal["absent", "middle", "drawn"], maximize: Sequence[bool]
    ):
        self.domains = domains
        self._slots = tuple(slots(domains))
        self._inactive = inactive
        self._signs = np.where(maximize, 1.0, -1.0)
        self._known: list[Known] = []
        self._entries: list[Entry | None] = []
        self._rows = np.empty((64, 3 + len(self._signs)))

    def update(self, history: Sequence[Known]) -> None:
        """Take over a history: what is new or another object at its place is converted."""
        old = self._known
        changed = list(compress(count(), map(is_not, old, history)))
        del self._entries[len(history) :]
        while len(self._rows) < len(history):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        for index in [*changed, *range(len(old), len(history))]:
            entry = self._entry(history[index])
            self._entries[index : index + 1] = [entry]
            self._rows[index] = self._row(entry)
        self._known = list(history)

    def thinned(self, limits: Limits) -> list[Entry]:
        """What fits, in order, thinned to the limits: the best, the latest, and an even part of the others.

        Trials in flight are never left out. The choice depends on the history only.
        """
        rows = self._rows[: len(self._entries)]
        ranked = np.flatnonzero(rows[:, 0] < OTHER)
        best = ranked[_best(rows[ranked], limits.best)]
        recent = ranked[len(ranked) - min(limits.recent, len(ranked)) :]
        shown = rows[:, 0] == OTHER  # those in flight
        shown[best] = shown[recent] = True
        rest = ranked[~shown[ranked]]
        even = np.linspace(0, len(rest) - 1, min(limits.even, len(rest))).round().astype(int)
        shown[rest[even]] = True
        return [entry for entry in (self._entries[i] for i in np.flatnonzero(shown)) if entry]

    @property
    def finished(self) -> int:
        """Trials that fit and have a result."""
        classes = self._rows[: len(self._entries), 0]
        return int((classes < OTHER).sum())

    def _row(self, entry: Entry | None) -> list[float]:
        """Class, rung (higher first), violation, and values to be minimised."""
        if entry is None:
            return [OTHER + 1.0, 0.0, 0.0, *(0.0 for _ in self._signs)]
        known, its = entry.known, entry.rank_class
        values = [0.0 for _ in self._signs] if its in (VIOLATED, OTHER) else (-self._signs * known.values).tolist()
        return [its, -known.rung if its == PRUNED else 0.0, known.violation if its == VIOLATED else 0.0, *values]

    def _entry(self, known: Known) -> Entry | None:
        """The trial in terms of the present space; None if it does not fit or says nothing.

        A name that either the trial or the space leaves out has the training's default there.
        """
        if not self._speaks(known):
            return None
        params: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        taken: dict[str, Any] = {}
        for slot in self._slots:
            if slot.branch and taken.get(slot.branch[0]) != slot.branch[1]:
                if self._inactive != "absent" and slot.distribution:
                    params[slot.name] = value_at(slot.distribution, self._fill(known, slot.name))
                    distributions[slot.name] = slot.distribution
                continue
            value = known.flat.get(slot.name, default(slot.name))
            fits, taken[slot.name] = placed(slot.domain, slot.distribution, value)
            if not fits:
                return None
            if slot.distribution:
                params[slot.name], distributions[slot.name] = taken[slot.name], slot.distribution
        if any(known.flat[name] != default(name) for name in known.flat.keys() - taken.keys()):
            return None
        return Entry(known, params, distributions)

    def _speaks(self, known: Known) -> bool:
        if known.state == TrialState.RUNNING or _rank_class(known) == VIOLATED:
            valued = known.state in (TrialState.COMPLETE, TrialState.PRUNED)
            return not valued or self._valued(known)
        return known.state in (TrialState.COMPLETE, TrialState.PRUNED) and self._valued(known)

    def _valued(self, known: Known) -> bool:
        return len(known.values) == len(self._signs) and bool(np.isfinite(known.values).all())

    def _fill(self, known: Known, name: str) -> float:
        # As the genes of a branch not taken drift in a population, so that a child that takes it finds all values.
        if self._inactive == "middle":
            return 0.5
        digest = hashlib.blake2b(f"{known.number} {name}".encode(), digest_size=6).digest()
        return int.from_bytes(digest) / 2**48


def _best(rows: np.ndarray, count: int) -> np.ndarray:
    """Indices of the best trials, so many, best first; rows: as `order` takes them."""
    # Most trials are of a class that is not needed, and sorting them all would cost more the longer a search goes on.
    classes = np.flatnonzero(np.bincount(rows[:, 0].astype(int), minlength=OTHER).cumsum() >= count)
    needed = np.flatnonzero(rows[:, 0] <= classes[0]) if len(classes) else np.arange(len(rows))
    best: np.ndarray = needed[order(rows[needed], count)[:count]]
    return best


def order(rows: np.ndarray, enough: int) -> np.ndarray:
    """Indices of trials from the best down.

    rows: (N, 3 + objectives) class, minus rung, violation, values to be minimised. enough: how many places must be
    exact; with several objectives, trials are ordered by fronts of non-domination, and beyond those by age.
    """
    keys = rows[:, 3] if rows.shape[1] == 4 else np.zeros(len(rows))
    if rows.shape[1] > 4:
        for level in np.unique(rows[:, :2], axis=0):
            here = (rows[:, :2] == level).all(axis=1)
            keys[here] = _fronts(rows[here, 3:], enough)
    return np.lexsort((np.arange(len(rows)), keys, rows[:, 2], rows[:, 1], rows[:, 0]))


def _fronts(values: np.ndarray, enough: int) -> np.ndarray:
    """Front of each row (0: dominated by none), exact for the first `enough` rows; the others share the last."""
    found, left = np.zeros(len(values)), np.arange(len(values))
    while len(left):
        found[left] = found.max() + (len(left) < len(values))
        if len(values) - len(left) >= enough:
            break
        left = left[~non_dominated(values[left])]
    return found
