"""What a search was paid for: its training time by what became of it, and what pruning saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from search.trial import Outcome, Trial


@dataclass(frozen=True)
class Share:
    """Trials of one fate, their epochs, and their training in device-hours."""

    fate: str
    trials: int
    epochs: int
    hours: float


@dataclass(frozen=True)
class Saved:
    """Epochs trained, and what the pruned trials would have cost in full: epochs, and seconds at each one's speed."""

    trained: int
    left: int
    seconds: float


@dataclass(frozen=True)
class Spread:
    """What one configuration reached with several seeds.

    metric: in which, where it is not the first objective.
    """

    trial: Trial
    repeats: tuple[Trial, ...]
    metric: str | None = None

    @property
    def values(self) -> list[float]:
        """The metric of each seed that was trained in full."""
        full = [trial for trial in (self.trial, *self.repeats) if trial.value is not None]
        found = [trial.epochs[-1].metrics.get(self.metric) if self.metric else trial.value for trial in full]
        return [value for value in found if value is not None]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None of a single one."""
        return stdev(self.values) if len(self.values) > 1 else None


def shares(trials: Iterable[Trial], devices: float) -> list[Share]:
    """Who the training time went to, most of it first. devices: GPUs of a trial, or 1 where there are none."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(fate(trial), []).append(trial)
    found = [
        Share(name, len(group), sum(len(t.epochs) for t in group), sum(t.seconds for t in group) * devices / 3600)
        for name, group in groups.items()
    ]
    return sorted(found, key=lambda share: -share.hours)


def fate(trial: Trial) -> str:
    """What became of a trial, and of what kind it was if it was trained in full."""
    if trial.outcome is Outcome.FULL:
        kind = "searched" if trial.searched else "baselines" if trial.baseline else "other seeds"
        return f"trained in full, {kind}"
    if trial.outcome is Outcome.FOLD:
        return "trained in full, on other folds"
    return "not ended" if trial.outcome is Outcome.OPEN else trial.outcome.value


def saved(trials: Iterable[Trial]) -> Saved:
    """What pruning saved."""
    trained, left, seconds = 0, 0, 0.0
    for trial in trials:
        trained += len(trial.epochs)
        if trial.outcome is Outcome.PRUNED and trial.epochs:
            missing = trial.schedule - len(trial.epochs)
            left += missing
            seconds += missing * trial.seconds / len(trial.epochs)
    return Saved(trained, left, seconds)


def spreads(trials: list[Trial], metric: str | None = None) -> list[Spread]:
    """The configurations that were trained with several seeds, in order of their first trial; metric: as in Spread."""
    repeats: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.repeats is not None and trial.on_own_split:
            repeats.setdefault(trial.repeats, []).append(trial)
    return [Spread(trials[origin], tuple(group), metric) for origin, group in sorted(repeats.items())]
