"""What a study amounts to so far: counts, device time and the best trial, kept up as its trials change."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from search.trial import EpochRecord, Outcome, Trial


@dataclass(frozen=True)
class Standing:
    """The study at the end of a trial. counts: ended trials by outcome; seconds: all training until then.

    at: seconds since 1970.
    """

    ended: int
    counts: dict[str, int]
    seconds: float
    best: Trial | None
    at: float


class Tally:
    """Follows a study look by look. The cost of a look is that of what changed, and of going once through a list."""

    def __init__(self, maximize: bool, may_win: Callable[[Trial], bool] = lambda trial: trial.outcome is Outcome.FULL):
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self.best: Trial | None = None
        self.on_gpu = False
        self._sign = 1 if maximize else -1
        self._may_win = may_win
        self._seen: dict[int, Trial] = {}

    def changed(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those that differ from what was taken in of them."""
        return [trial for trial in trials if self._seen.get(trial.number) is not trial]

    def take(self, trials: list[Trial]) -> list[Standing]:
        """Take in changed trials; the standing at each end of a trial among them, in order of time."""
        events: list[tuple[float, int, EpochRecord | Trial]] = []
        for trial in trials:
            before = self._seen.get(trial.number)
            events += [(epoch.at, -1, epoch) for epoch in trial.epochs[len(before.epochs) if before else 0 :]]
            if trial.outcome is not Outcome.OPEN and (not before or before.outcome is Outcome.OPEN):
                events.append((end_of(trial), trial.number, trial))
            self._seen[trial.number] = trial
        standings = []
        for at, _, event in sorted(events, key=lambda event: event[:2]):
            if isinstance(event, EpochRecord):
                self.seconds += event.seconds
                self.on_gpu = self.on_gpu or event.peak_memory > 0
            else:
                self.counts[event.outcome.value] += 1
                self._compare(event)
                standings.append(Standing(self.counts.total(), dict(self.counts), self.seconds, self.best, at))
        return standings

    @property
    def open(self) -> int:
        """Trials that have begun and not ended."""
        return len(self._seen) - self.counts.total()

    def _compare(self, trial: Trial) -> None:
        """Of equals the earlier trial is the best, as in `Study.winner`."""
        if self._may_win(trial) and (self.best is None or self._rank(trial) > self._rank(self.best)):
            self.best = trial

    def _rank(self, trial: Trial) -> tuple[float, int]:
        return self._sign * (trial.value or 0.0), -trial.number


def end_of(trial: Trial) -> float:
    """When a trial ended, as far as its own records say, in seconds since 1970."""
    epochs = [epoch.at for epoch in trial.epochs[-1:]]
    decided = [decision.at for decision in trial.decisions]
    return max([trial.started, *epochs, *decided])
