"""The winner trained once more on training and validation films together: `python -m search.finalize --refit`.

More films make a better network, as a rule; which one it is, nobody can tell any more: of the films that may be looked
at none is left to judge it by, and none to fit thresholds on. So it is trained exactly as the winner was (its schedule,
without early stopping), takes over the thresholds of the training that is handed over, and is never evaluated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from search.finals.record import winner_row
from search.finals.repeats import Repeats
from search.finals.words import in_words
from search.leg import Leg
from search.legs import Pause
from search.placement import Resources
from search.space import Space
from search.study import Study
from search.trial import Outcome, Trial


class Refit(Repeats):
    """Hands out the one training, or the rest of it. delivered: the training whose thresholds it takes over."""

    def __init__(self, study: Study, space: Space, winner: int, delivered: int, resources: Resources):
        self.delivered = delivered
        super().__init__(study, space, [winner], 1, resources)

    def _is_own(self, trial: Trial) -> bool:
        return trial.repeats in self.finalists and trial.refit == self.delivered

    def lacking(self) -> dict[int, int]:
        """1 if it has yet to begin. One that broke counts as begun."""
        (winner,) = self.finalists
        return {winner: 0 if any(map(self._is_own, self.study.trials())) else 1}

    def next_leg(self) -> Leg | Pause:
        """The training as it was interrupted, or from its start."""
        (winner,) = self.finalists
        if not self.stopping and not self._interrupted and self.lacking()[winner]:
            why = f"the winner, trial {winner}, trained on the validation films, too"
            kind = {"repeats": winner, "refit": self.delivered, "finals": True}
            return self._begin(self._add(self.journal.trial(winner).flat, why, **kind)) or Pause.FINISHED
        return super().next_leg()


def refit_of(trials: Sequence[Trial], record: Mapping[str, Any]) -> Trial | None:
    """The refit of the training that a result hands over, once it is trained; record: as `finalists.json`."""
    done = [t for t in trials if t.outcome is Outcome.REFIT and t.refit == record["delivered"]]
    return done[-1] if done else None


def refit_sentence(trials: Sequence[Trial], record: Mapping[str, Any]) -> str:
    """What can be said of a refit, and what not; empty without one."""
    if (refit := refit_of(trials, record)) is None:
        return ""
    row = winner_row(record)
    return (
        f"Trial {refit.number} is the winner, trial {record['winner']}, trained once more in the same way, on the "
        f"validation films, too ({refit.epochs[-1].checkpoint}). How good it is is not known, as no film is left to "
        f"judge it by: it was not evaluated, on test neither. The mean test {record['metric']} of the winner's seeds, "
        f"{in_words(row['test']['mean'])}, is the nearest there is. Its thresholds are those of trial "
        f"{record['delivered']}, fitted on validation; where its scores lie otherwise, they do not fit."
    )
