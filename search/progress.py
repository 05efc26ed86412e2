"""What a person sees while a search runs: a live table on a terminal, and one line an event everywhere."""

import logging
import time
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cxr_core.console import console
from search.durations import format_duration
from search.legs import Legs
from search.objectives import Reached
from search.overview import figure
from search.trial import FAILED, Outcome, Trial

_REDRAW = 0.5
"""Seconds between drawings of the live table."""
_SUMMARY = 30.0
"""Seconds between summary lines where there is no terminal."""
_STYLES = {"running": "green", "waiting": "yellow", "full": "bold", "interrupted": "yellow"}


class Progress:
    """Shows a search while it runs; `update` is cheap and may be called at any rate."""

    def __init__(self, legs: Legs, name: str):
        self.legs, self.name = legs, name
        self.ended = Ended(legs)
        self._drawn = self._summed = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def update(self) -> None:
        """Draw again if it is time to."""
        now = time.monotonic()
        if self._live and now - self._drawn > _REDRAW:
            self._drawn = now
            self._live.update(self.drawing())
        elif not self._live and now - self._summed > _SUMMARY:
            self._summed = now
            self.ended.look()
            logging.getLogger(__name__).info(self.summary())

    def drawing(self) -> Group:
        """The table, and below it what fits no column."""
        self.ended.look()
        lines = [self.summary()]
        if failure := self.ended.last_failure:
            lines.append(f"last failure: trial {failure.name}, {failure.outcome.value}: {failure.reason}")
        return Group(self._table(), *map(Text, lines))

    def summary(self) -> str:
        """Trials, the best, speed, budget and forecast in one line."""
        running = [trial for trial in self._running() if trial.epochs]
        speed = f"{sum(trial.epochs[-1].films_per_second for trial in running):,.0f} films/s"
        return " · ".join([self._counts(), self._best(), speed, *self._budget(), *self._forecast()])

    def _counts(self) -> str:
        running, interrupted = len(self._running()), len(self.legs.interrupted)
        begun = len(self.legs.journal.trials()) - self.ended.outcomes.total()
        counts = {"running": running, "waiting": begun - running - interrupted, "interrupted": interrupted}
        counts |= {how: self.ended.outcomes[Outcome(how)] for how in ("full", "pruned", "infeasible")}
        words = [f"{count} {word}" for word, count in counts.items() if count > 0]
        failed = sum(self.ended.outcomes[outcome] for outcome in FAILED)
        words += [f"{failed} failed"] if failed else []
        return ", ".join([*words, f"of {self.legs.space.header.budget.trials + len(self.legs.space.baselines)} trials"])

    def _best(self) -> str:
        best = self.ended.best
        if best is None:
            return "no full trial yet"
        metrics = self.legs.journal.objective.metrics
        reached = ", ".join(f"{name} {figure(value)}" for name, value in zip(metrics, best.values, strict=True))
        return f"best {reached} (trial {best.name})"

    def _budget(self) -> Iterator[str]:
        """What is used of each limit that the space sets, beside that of trials."""
        budget = self.legs.budget
        section = budget.section
        elapsed = format_duration(budget.elapsed)
        yield elapsed if section.time is None else f"{elapsed} of {format_duration(section.time)}"
        if section.gpu_hours is not None:
            yield f"{budget.gpu_hours:.2f} of {section.gpu_hours:g} GPU-hours"
        if section.target is not None:
            yield f"target {section.target:g}"
        if section.plateau is not None:
            yield f"{budget.since_best} of {section.plateau} full trials without a better one"

    def _forecast(self) -> Iterator[str]:
        if (left := self.legs.seconds_left()) is not None:
            end = datetime.fromtimestamp(time.time() + left)
            yield f"about {format_duration(left)} left (until {end:%H:%M})"

    def _table(self) -> Table:
        metrics = self.legs.journal.objective.metrics
        table = Table(title=f"study {self.name}", title_justify="left", expand=False)
        for column in ("trial", "state", "model", "epoch", *metrics, "films/s"):
            table.add_column(column, justify="left" if column in ("trial", "state", "model") else "right")
        for trial in islice(self._shown(), max(6, console.height - 9)):
            last = trial.epochs[-1] if trial.epochs else None
            state = self.legs.standing(trial)
            table.add_row(
                trial.name,
                Text(state, style=_STYLES.get(state, "red")),
                trial.family,
                f"{len(trial.epochs)}/{trial.schedule}",
                *(figure(last.metrics.get(metric)) if last else "" for metric in metrics),
                f"{last.films_per_second:,.0f}" if last else "",
            )
        return table

    def _running(self) -> list[Trial]:
        trials = [self.legs.journal.trial(number) for number in sorted(self.legs.live)]
        return [trial for trial in trials if trial.outcome is Outcome.OPEN]

    def _shown(self) -> Iterator[Trial]:
        """Running trials, then the best full ones, then those that wait highest."""
        running = self._running()
        yield from running
        yield from islice(self.ended.full(), 3 * len(running) + 3)
        live = {trial.number for trial in running}
        waiting = (self.legs.journal.trial(number) for number, _ in self.legs.rungs.waiting())
        yield from (trial for trial in waiting if trial.number not in live)


class Ended:
    """What has ended, kept up to date by looking at what changed: a look at 10,000 trials takes some 2 ms."""

    def __init__(self, legs: Legs):
        self.journal = legs.journal
        self.outcomes: Counter[Outcome] = Counter()
        self.last_failure: Trial | None = None
        self._open: list[int] = []
        self._seen = 0
        self._full: list[tuple[float, int]] = []
        self._eligible: list[tuple[float, int]] = []

    def look(self) -> None:
        """Take note of the trials that ended since the last look."""
        trials = self.journal.trials()
        self._open += range(self._seen, len(trials))
        self._seen = len(trials)
        ended = [number for number in self._open if trials[number].outcome is not Outcome.OPEN]
        if not ended:
            return
        self._open = [number for number in self._open if trials[number].outcome is Outcome.OPEN]
        for number in ended:
            self._note(trials[number])

    def _note(self, trial: Trial) -> None:
        self.outcomes[trial.outcome] += 1
        if trial.outcome in FAILED:
            self.last_failure = trial
        if trial.outcome is Outcome.FULL:
            reached: Reached = self.journal.objective.reached(trial.epochs[-1].metrics)
            insort(self._full, (reached.costs[0], trial.number))
            if trial.repeats is None and reached.violation == 0:
                insort(self._eligible, (reached.costs[0], trial.number))

    @property
    def best(self) -> Trial | None:
        """The winner so far."""
        return self.journal.trial(self._eligible[0][1]) if self._eligible else None

    def full(self) -> Iterator[Trial]:
        """Full trials, the best by the first objective first."""
        return (self.journal.trial(number) for _, number in self._full)
