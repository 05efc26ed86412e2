"""Chooses the next configuration: tells the searcher what is known, and sees to it that nothing is trained twice."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import TrialState

from cxr_core.config import SEARCHABLE
from cxr_core.registry import Scalar
from search.journal import Journal
from search.proposals import Known, Proposal, propose
from search.rungs import Rungs
from search.space import Space
from search.trial import Outcome, Trial

log = logging.getLogger(__name__)

_REDRAWS = 5
"""Draws after which a searcher that only repeats itself is taken to have seen the whole space, or to be settled."""
_SEEDS = 3
"""Seeds of one configuration that a search pays for, the first included."""

_STATES = {Outcome.FULL: TrialState.COMPLETE, Outcome.PRUNED: TrialState.PRUNED, Outcome.OPEN: TrialState.RUNNING}


@dataclass(frozen=True)
class Draft:
    """A configuration to be trained; repeats: the trial of which it is another seed."""

    flat: dict[str, Scalar]
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)
    repeats: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, Any] = field(default_factory=dict)


class Proposer:
    """Proposes for one search; `see` keeps it up to date with each trial that begins or changes.

    propose: as `search.proposals.propose`. prior: trials of an earlier study.
    """

    def __init__(
        self,
        journal: Journal,
        space: Space,
        rungs: Rungs,
        seed: int,
        prior: Sequence[Known] = (),
        propose: Callable[..., Proposal] = propose,
    ):
        self.journal, self.space, self.rungs, self.seed = journal, space, rungs, seed
        self._propose, self._prior = propose, prior
        self._history: list[Known] = []
        self._place: dict[int, int] = {}
        self._trial_of: dict[frozenset[tuple[str, Scalar]], int] = {}
        self._repeats: dict[int, int] = {}
        self._exhausted = False

    def see(self, trial: Trial) -> None:
        """Take note of a trial that began or changed."""
        self._exhausted = False
        self._trial_of.setdefault(_identity(trial.flat), trial.number)
        if trial.repeats is not None:
            self._repeats[trial.number] = trial.repeats
        if not trial.searched:
            return
        place = self._place.setdefault(trial.number, len(self._history))
        self._history[place : place + 1] = [self._known(trial)]

    def _known(self, trial: Trial) -> Known:
        """A trial that waits at a rung is a pruned one to the searcher: as one that runs it would count as poor."""
        waits = self.rungs.waits_at(trial.number) is not None
        state = TrialState.PRUNED if waits else _STATES.get(trial.outcome, TrialState.FAIL)
        decided = trial.epochs and state in (TrialState.PRUNED, TrialState.COMPLETE)
        metrics = trial.epochs[-1].metrics if decided else {}
        objective = self.journal.objective
        return Known(
            number=trial.number,
            flat=trial.flat,
            state=state,
            values=objective.values(metrics) if decided else (),
            rung=self.rungs.level(trial.number),
            violations=objective.violations(metrics) if decided else (),
        )

    def draft(self) -> Draft | None:
        """The next configuration; None if all that the searcher comes up with was trained, and the best repeatedly.

        Once there is none, there is none until a trial changes.
        """
        if self._exhausted:
            return None
        draft = self._draft()
        if draft is None:
            self._exhausted = True
            log.info("the searcher proposes nothing that has not been trained")
        return draft

    def _draft(self) -> Draft | None:
        number = len(self.journal.trials())
        searcher = self.space.header.searcher
        for attempt in range(_REDRAWS):
            proposal = self._propose(
                self.space.domains,
                searcher.name,
                self._history,
                seed=self.seed,
                number=number,
                maximize=self.journal.objective.maximize,
                startup=searcher.startup,
                attempt=attempt,
                prior=self._prior,
            )
            flat = complete(proposal.flat)
            earlier = self._trial_of.get(_identity(flat))
            if earlier is None:
                evidence = {"searcher": searcher.name, "known": len(self._history), "redraws": attempt}
                return Draft(
                    flat,
                    proposal.origin,
                    evidence,
                    params=proposal.params,
                    distributions=proposal.distributions,
                )
        return self._repeat(earlier)

    def _repeat(self, duplicate: int | None) -> Draft | None:
        """Another seed of the best configuration that has not had enough of them."""
        for leader in self.journal.ranked():
            seeds = 1 + sum(of == leader.number for of in self._repeats.values())
            if seeds < _SEEDS:
                why = f"the searcher proposed trial {duplicate} again: spent as another seed of trial {leader.number}"
                return Draft(leader.flat, why, {"duplicate": duplicate, "seeds": seeds + 1}, repeats=leader.number)
        return None


def _identity(flat: Mapping[str, Scalar]) -> frozenset[tuple[str, Scalar]]:
    return frozenset(flat.items())


def complete(flat: dict[str, Scalar]) -> dict[str, Scalar]:
    """With the schedule's length, which everything that follows a trial needs."""
    return {"epochs": SEARCHABLE["epochs"].default, **flat}  # type: ignore[union-attr]
