"""Finalists trained again with other seeds: the legs of `python -m search.finalize`."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from search.budget import Budget
from search.checkpoints import Checkpoints
from search.credibility import Credibility
from search.finals.ties import with_ties_broken
from search.leg import Leg
from search.legs import Compare, Legs, Pause
from search.placement import Resources
from search.priors import load_prior
from search.proposer import Proposer
from search.space import BudgetSection, Space
from search.study import Study
from search.trial import FAILED, Outcome, Trial


class NoFinalist(Exception):
    """No trial of a study can be a finalist; the message says why."""


def choose(study: Study, top: int, compare: Compare | None = None) -> list[Trial]:
    """The best trials that may win, by the first objective, and every baseline that was trained in full.

    compare: by it, trials that are not credibly worse than the best go by the tie-breakers, if the objective has some.
    Raises NoFinalist if there is none that may win.
    """
    best = study.ranked()
    if not best:
        within = " within the constraints" if study.objective.bounds else ""
        raise NoFinalist(f"{study.folder}: no trial was trained in full{within}; go on with search.run --resume")
    chosen = (with_ties_broken(best, study.objective, compare) if compare else best)[:top]
    taken = {trial.number for trial in chosen}
    baselines = [t for t in study.trials() if t.baseline and t.outcome is Outcome.FULL and t.number not in taken]
    return [*chosen, *baselines]


def seeds_of(study: Study, finalist: int) -> list[Trial]:
    """A finalist and its repeats, whatever became of them."""
    alike = [trial for trial in study.trials() if finalist in (trial.number, trial.repeats)]
    return [trial for trial in alike if trial.on_own_split]


def folds_of(trials: Sequence[Trial], finalist: int) -> list[Trial]:
    """The trainings of a finalist on other folds, whatever became of them."""
    return [trial for trial in trials if trial.repeats == finalist and trial.fold is not None]


def trainings_of(study: Study, finalist: int) -> list[Trial]:
    """The trainings of a finalist that can be evaluated: done in full, with the checkpoint at hand."""
    return [trial for trial in seeds_of(study, finalist) if is_kept(study, trial)]


def is_kept(study: Study, trial: Trial) -> bool:
    """Whether a trial was trained in full and its checkpoint is at hand."""
    return trial.outcome is Outcome.FULL and (study.folder / trial.epochs[-1].checkpoint).is_file()


class Repeats(Legs):
    """Hands out the trainings that finalists lack, and those of them that a crash or a signal interrupted.

    seeds: trainings that each finalist is to have. One that broke counts: to replace it would hide that the
    configuration breaks. One whose checkpoint is gone does not, as nothing can be evaluated of it. Where a tie-breaker
    is a mean over folds, finalists among which it may have to choose are trained once on each of the other folds, too.
    """

    def __init__(self, study: Study, space: Space, finalists: Sequence[int], seeds: int, resources: Resources):
        self.study, self.finalists, self.seeds = study, list(finalists), seeds
        begun = sum(trial.baseline is None for trial in study.trials())
        section = BudgetSection(trials=max(1, begun + self.left), reserve=0.0)
        space = replace(space, header=space.header.model_copy(update={"budget": section}))
        began, devices = time.monotonic() - study.facts.get("seconds_used", 0.0), resources.gpus or 1.0
        account = Budget(section, study.objective.maximize[0], devices, resources.concurrent, began=began, finals=True)
        keep = space.header.checkpoints
        super().__init__(
            study,
            space,
            study.facts["seed"],
            account,
            proposer=partial(Proposer, prior=load_prior(study.folder)),
            compare=Credibility(study, space.task.labels) if space.header.asha.confidence else None,
            on_end=Checkpoints(study.folder, study, keep.best, keep.quota).sweep,
        )
        # What else was interrupted is the search's, and waits until it is resumed.
        self._interrupted = deque(n for n in self._interrupted if self._is_own(study.trial(n)))

    def _is_own(self, trial: Trial) -> bool:
        return trial.repeats in self.finalists and trial.refit is None

    def lacking(self) -> dict[int, int]:
        """Trainings that have yet to begin, by finalist."""
        lost = lambda trial: trial.outcome is Outcome.FULL and not is_kept(self.study, trial)  # noqa: E731
        begun = {number: sum(not lost(t) for t in seeds_of(self.study, number)) for number in self.finalists}
        return {number: max(0, self.seeds - count) for number, count in begun.items()}

    def lacking_folds(self) -> list[tuple[int, int]]:
        """Trainings on other folds that have yet to begin, as (finalist, fold), the best finalist first."""
        may_win = [number for number in self.finalists if self.study.may_win(self.study.trial(number))]
        if len(may_win) < 2:
            return []  # there is nothing to choose
        begun = {(number, trial.fold) for number in may_win for trial in folds_of(self.study.trials(), number)}
        wanted = [(number, fold) for number in may_win for fold in range(self.study.objective.other_folds)]
        return [pair for pair in wanted if pair not in begun]

    @property
    def left(self) -> int:
        """How many trainings have yet to begin."""
        return sum(self.lacking().values()) + len(self.lacking_folds())

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to train."""
        return not self._interrupted and not self.live and not self.left

    def next_leg(self) -> Leg | Pause:
        """Interrupted legs, seeds of the finalist that lacks most, the best of equals, then those on other folds."""
        while not self.stopping and self._interrupted:
            if leg := self._leg(self.journal.trial(self._interrupted.popleft())):
                return leg
        while not self.stopping and any(lacking := self.lacking().values()):
            finalist = self.journal.trial(self.finalists[list(lacking).index(max(lacking))])
            have = self.seeds - max(lacking)
            why = f"training {have + 1} of {self.seeds} of the finalist trial {finalist.number}, with another seed"
            if leg := self._begin(self._add(finalist.flat, why, repeats=finalist.number, finals=True)):
                return leg
        while not self.stopping and (folds := self.lacking_folds()):
            number, fold = folds[0]
            why = f"the finalist trial {number} on fold {fold + 1} of {self.study.objective.folds}, for a tie-breaker"
            kind = {"repeats": number, "fold": fold, "finals": True}
            if leg := self._begin(self._add(self.journal.trial(number).flat, why, **kind)):
                return leg
        return Pause.WAIT if self.live else Pause.FINISHED


def broken(study: Study, finalists: Sequence[int]) -> list[Trial]:
    """Trainings of finalists, on other folds, too, that began and did not come to their end."""
    ended = (*FAILED, Outcome.INFEASIBLE)
    begun = [t for number in finalists for t in (*seeds_of(study, number), *folds_of(study.trials(), number))]
    return [trial for trial in begun if trial.outcome in ended]
