"""Asynchronous successive halving, as a pure class: it serves the search, its replay after a crash, and simulation."""

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Literal

from search.objectives import Reached, ranked

Mode = Literal["promote", "stop", "hyperband", "none"]


@dataclass(frozen=True)
class RungPolicy:
    """Who goes on from a rung.

    fractions: where the rungs lie in each trial's schedule. eta: the best 1/eta of a rung go on. mode: `promote` (who
    is not among them waits, and may be promoted later), `stop` (ends at once), `hyperband` (as promote, in brackets of
    which each leaves out one more of the lowest rungs) or `none`. cohort: fewer trials than these at a rung decide
    nothing. family_floor: so many of the best of each family go on, however good the other families are.
    """

    fractions: tuple[float, ...] = (0.05, 0.2)
    eta: int = 4
    mode: Mode = "promote"
    cohort: int = 4
    family_floor: int = 1


class _Places:
    """Trials in order, the best first; insertion and search cost next to nothing at 10,000 trials."""

    def __init__(self, several: bool) -> None:
        self._several = several
        self._reached: dict[int, Reached] = {}
        self._order: list[tuple[Reached, int]] = []
        self._stale = False

    def __len__(self) -> int:
        return len(self._reached)

    def __contains__(self, trial: int) -> bool:
        return trial in self._reached

    def __iter__(self) -> Iterator[int]:
        self._sort()
        return (trial for _, trial in self._order)

    def get(self, trial: int) -> Reached | None:
        return self._reached.get(trial)

    def add(self, trial: int, reached: Reached) -> None:
        self._reached[trial] = reached
        if self._several:
            self._stale = True
        else:
            insort(self._order, (reached, trial))

    def remove(self, trial: int) -> None:
        """Take a trial out, if it is in."""
        if reached := self._reached.pop(trial, None):
            self._stale |= self._several
            if not self._several:
                del self._order[bisect_left(self._order, (reached, trial))]

    def place(self, trial: int) -> int:
        """0 for the best; of equals, the earlier trial is better."""
        self._sort()
        if self._several:
            return self._place[trial]
        return bisect_left(self._order, (self._reached[trial], trial))

    def at(self, place: int) -> int:
        self._sort()
        return self._order[place][1]

    def _sort(self) -> None:
        """With several objectives, one more trial may change the places of all."""
        if self._stale:
            order = ranked(self._reached)
            self._order = [(self._reached[trial], trial) for trial in order]
            self._place = {trial: place for place, trial in enumerate(order)}
            self._stale = False


@dataclass
class _Rung:
    several: bool
    everyone: _Places = field(init=False)
    waiting: _Places = field(init=False)
    families: dict[str, _Places] = field(init=False)
    promoted: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.everyone, self.waiting = _Places(self.several), _Places(self.several)
        self.families = defaultdict(lambda: _Places(self.several))

    def line(self) -> Iterable[int]:
        """Who waits, by place among everyone."""
        return sorted(self.waiting, key=self.everyone.place) if self.several else self.waiting


@dataclass(frozen=True)
class Standing:
    """Where a trial stands at a rung, for the record: its place (1 is the best) among how many, and how many go on.

    cutoff: the last trial that goes on, if any does.
    """

    rung: int
    place: int
    cohort: int
    go_on: int
    cutoff: int | None


class Rungs:
    """Who goes on and who waits (ASHA: Li et al. 2020, arXiv:1810.05934, with rungs at fractions of each schedule).

    A trial that reaches a rung goes on at once if it is in the best 1/eta of all that reached it; else it waits there,
    and may be promoted when others turn out worse. Rungs lie at fractions of a trial's own schedule, so that short and
    long schedules are compared at equal progress. Brackets are those of Hyperband (Li et al. 2018, arXiv:1603.06560).
    several: there are several objectives.
    """

    def __init__(self, policy: RungPolicy, several: bool = False):
        self.policy = policy
        self.fractions = () if policy.mode == "none" else policy.fractions
        brackets = len(self.fractions) + 1 if policy.mode == "hyperband" else 1
        self._rungs = [[_Rung(several) for _ in self.fractions] for _ in range(brackets)]
        self._brackets = _bracket_cycle(len(self.fractions), policy.eta) if brackets > 1 else (0,)
        self._family: dict[int, str] = {}
        self._level: dict[int, int] = {}
        self._ended: set[int] = set()

    def epochs(self, schedule: int) -> tuple[int, ...]:
        """The epochs at which a schedule of that many epochs meets the rungs; rungs at its very end are left out."""
        # ceil of a product such as 0.2 * 15 = 3.0000000000000004 must not add an epoch
        met = [max(1, math.ceil(fraction * schedule - 1e-9)) for fraction in self.fractions]
        return tuple(epoch for epoch in met if epoch < schedule)

    def enter(self, trial: int, family: str = "") -> None:
        """A trial takes part. Its bracket follows from its number."""
        self._family[trial] = family
        self._level[trial] = self.bracket(trial)

    def bracket(self, trial: int) -> int:
        """How many of the lowest rungs a trial leaves out."""
        return self._brackets[trial % len(self._brackets)]

    def _rung(self, trial: int, rung: int) -> _Rung:
        return self._rungs[self.bracket(trial)][rung]

    def level(self, trial: int) -> int:
        """The index of the rung that a trial meets next."""
        return self._level.get(trial, self.bracket(trial))

    def waits_at(self, trial: int) -> int | None:
        """The rung where a trial waits, if it does."""
        level = self.level(trial)
        return level if level < len(self.fractions) and trial in self._rung(trial, level).waiting else None

    def reached(self, trial: int, rung: int) -> Reached | None:
        """What a trial reached at a rung."""
        return self._rung(trial, rung).everyone.get(trial)

    def record(self, trial: int, rung: int, reached: Reached) -> None:
        """A trial has reached a rung; a second time for the same rung is ignored, so that replays change nothing."""
        here = self._rung(trial, rung)
        if trial not in here.everyone:
            here.everyone.add(trial, reached)
            here.families[self._family.get(trial, "")].add(trial, reached)
            if trial not in self._ended:
                here.waiting.add(trial, reached)

    def promote(self, trial: int, rung: int) -> None:
        """Let a trial pass a rung."""
        here = self._rung(trial, rung)
        here.promoted.add(trial)
        here.waiting.remove(trial)
        self._level[trial] = max(self.level(trial), rung + 1)

    def end(self, trial: int, in_full: bool) -> None:
        """A trial has ended: it waits no more. What it reached still counts, but a place it did not use is free."""
        self._ended.add(trial)
        for rung in self._rungs[self.bracket(trial)]:
            rung.waiting.remove(trial)
            if not in_full:
                rung.promoted.discard(trial)

    def standing(self, trial: int, rung: int) -> Standing:
        """Where a trial stands at a rung that it has reached."""
        here = self._rung(trial, rung)
        go_on = self._places(here.everyone)
        cutoff = here.everyone.at(go_on - 1) if go_on else None
        return Standing(rung, here.everyone.place(trial) + 1, len(here.everyone), go_on, cutoff)

    def in_top(self, trial: int, rung: int) -> bool:
        """Whether a trial may go on from a rung: by its place among all, or by that among its family."""
        here = self._rung(trial, rung)
        return self._by_place(here, trial) or self._by_family(here, trial)

    def _places(self, places: _Places) -> int:
        """How many of a rung go on."""
        if len(places) < self.policy.cohort:
            return len(places) if self.policy.mode == "stop" else 0
        # Whoever is stopped never comes back, so stopping leaves the odd trial in; promotion may take it later.
        share = len(places) / self.policy.eta
        return math.ceil(share) if self.policy.mode == "stop" else math.floor(share)

    def _by_place(self, here: _Rung, trial: int) -> bool:
        return here.everyone.place(trial) < self._places(here.everyone)

    def _by_family(self, here: _Rung, trial: int) -> bool:
        """The best of a family go on, once the family has had as many trials here as decide anything."""
        family = here.families[self._family.get(trial, "")]
        enough = len(here.families) > 1 and len(family) >= max(self.policy.cohort, self.policy.eta)
        return enough and family.place(trial) < self.policy.family_floor

    def waiting(self) -> list[tuple[int, int]]:
        """Waiting trials as (trial, rung), highest rung first and best first."""
        found = []
        for index, here in self._from_the_top():
            found += [(trial, index) for trial in here.line()]
        return found

    def _from_the_top(self) -> Iterator[tuple[int, _Rung]]:
        for index in reversed(range(len(self.fractions))):
            for bracket in self._rungs:
                yield index, bracket[index]

    def candidates(self, at_least_one: bool = False) -> list[tuple[int, int]]:
        """Waiting trials that may go on, as (trial, rung), highest rung first and best first.

        at_least_one: where nobody has passed a rung yet, its best may: with nothing new to come, the search would
        otherwise end without a full trial.
        """
        chosen = [(trial, index) for index, here in self._from_the_top() for trial in self._promotable(here)]
        if chosen or not at_least_one:
            return chosen
        for index, here in self._from_the_top():
            if not here.promoted and (first := next(iter(here.line()), None)) is not None:
                return [(first, index)]
        return []

    def _promotable(self, here: _Rung) -> list[int]:
        """Who waits though its place has become good enough: by place, then by family."""
        chosen = list(takewhile(lambda trial: self._by_place(here, trial), here.line()))
        favoured = [
            trial
            for family in here.families.values()
            for trial in islice(family, self.policy.family_floor)
            if trial in here.waiting and self._by_family(here, trial)
        ]
        return chosen + [trial for trial in sorted(favoured, key=here.everyone.place) if trial not in chosen]


def _bracket_cycle(rungs: int, eta: int) -> tuple[int, ...]:
    """Brackets in the order in which trials take them, so that each bracket costs about the same.

    Hyperband starts eta^s (s_max + 1) / (s + 1) trials in the bracket that halves s times.
    """
    halvings = [rungs - bracket for bracket in range(rungs + 1)]
    weights = [math.ceil(eta**s * (rungs + 1) / (s + 1)) for s in halvings]
    scale = min(weights)
    cycle: Sequence[int] = [bracket for bracket, weight in enumerate(weights) for _ in range(round(weight / scale))]
    return tuple(cycle)
