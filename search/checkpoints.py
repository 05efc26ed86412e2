"""Which checkpoints a study keeps: the latest of trials that may go on, and those of the best full ones."""

import logging
from pathlib import Path

from search.journal import Journal
from search.trial import Outcome, Trial

log = logging.getLogger(__name__)

_DONE = (Outcome.FULL, Outcome.REFIT)


class Checkpoints:
    """Keeps a study's disk within bounds.

    best: full trials, by the objective, whose checkpoint is kept, beside every baseline's and the Pareto front's.
    quota: bytes for all of them together, or None; what exceeds it goes from the worst full trial up, the winner last.
    Trials that may go on keep theirs whatever the quota: without it they would be lost. So do the trainings of the
    finalists, which the study's fact `finalists` lists: they are to be evaluated; and the members of ensembles.
    """

    def __init__(self, folder: Path, journal: Journal, best: int, quota: float | None = None):
        self.folder, self.journal, self.best, self.quota = folder, journal, best, quota
        self._kept: list[Trial] | None = None

    def sweep(self, trial: Trial) -> None:
        """A trial has ended: drop what it, and those that it displaced, need no more."""
        if self._kept is None:
            self._kept = self._left_by_earlier_sessions()
        elif trial.outcome is Outcome.FULL:
            self._kept.append(trial)
        self._drop_all_but_last(trial)
        if trial.outcome is Outcome.FULL:
            self._displace(self._kept)

    def _left_by_earlier_sessions(self) -> list[Trial]:
        """Full trials, after what a kill left over of ended ones is gone."""
        ended = [trial for trial in self.journal.trials() if trial.outcome is not Outcome.OPEN]
        for trial in ended:
            self._drop_all_but_last(trial)
        return [trial for trial in ended if trial.outcome is Outcome.FULL]

    def _drop_all_but_last(self, trial: Trial) -> None:
        self._drop(trial, keep={trial.epochs[-1].checkpoint} if trial.outcome in _DONE else set())

    def _displace(self, full: list[Trial]) -> None:
        """Of the full trials, drop the checkpoints of those that are too many, then of those that are too large."""
        ranked, finalists = self._ranked(full), self._finalists(full)
        front = {trial.number for trial in self.journal.front()} if len(self.journal.objective.metrics) > 1 else set()
        others = [(place, t) for place, t in enumerate(ranked) if t.number not in finalists]
        kept = [t for place, t in others if place < self.best or t.baseline or t.number in front]
        finals = [trial for trial in ranked if trial.number in finalists]
        least = 0 if finals else 1
        while self.quota is not None and len(kept) > least and sum(map(self._size, kept + finals)) > self.quota:
            kept.pop()
        kept += finals
        staying = {trial.number for trial in kept}
        for trial in ranked:
            if trial.number not in staying:
                self._drop(trial)
        self._kept = kept  # who has been displaced never comes back

    def _finalists(self, full: list[Trial]) -> set[int]:
        """The finalists among full trials, their repeats, and the members of the ensembles."""
        facts = self.journal.facts
        named, openings = facts.get("finalists", []), facts.get("test_openings", [])
        members = {number for opening in openings for number, _ in opening.get("ensemble", ())}
        return members | {trial.number for trial in full if trial.number in named or trial.repeats in named}

    def _ranked(self, full: list[Trial]) -> list[Trial]:
        """Full trials from the best down, those outside the constraints last."""
        return sorted(full, key=lambda t: (self.journal.objective.reached(t.epochs[-1].metrics), t.number))

    def _size(self, trial: Trial) -> int:
        path = self.folder / trial.epochs[-1].checkpoint
        return path.stat().st_size if path.exists() else 0

    def _drop(self, trial: Trial, keep: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        for path in (self.folder / "trials" / f"{trial.number:05d}").glob("epoch-*.pt"):
            if str(path.relative_to(self.folder)) not in keep:
                path.unlink(missing_ok=True)
