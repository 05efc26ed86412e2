"""What a person sees while a search runs: a live table on a terminal, and one line an event everywhere."""

import logging
import time
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cxr_core.console import console
from search.durations import format_duration
from search.legs import Legs
from search.trial import Trial

_REDRAW = 0.5
"""Seconds between drawings of the live table."""
_SUMMARY = 30.0
"""Seconds between summary lines where there is no terminal."""
_STYLES = {"running": "green", "waiting": "yellow", "full": "bold", "pruned": "dim", "interrupted": "yellow"}


class Progress:
    """Shows a search while it runs; `update` is cheap and may be called at any rate."""

    def __init__(self, legs: Legs, name: str):
        self.legs, self.name = legs, name
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
            self._live.update(Group(self._table(), Text(self._summary())))
        elif not self._live and now - self._summed > _SUMMARY:
            self._summed = now
            logging.getLogger(__name__).info(self._summary())

    def _summary(self) -> str:
        header = self.legs.space.header
        counts = self.legs.counts()
        words = [f"{counts[word]} {word}" for word in ("running", "waiting", "full", "pruned") if counts[word]]
        failed = sum(counts[word] for word in ("diverged", "error", "infrastructure", "infeasible"))
        words += [f"{failed} failed"] if failed else []
        words += [f"of {header.budget.trials + len(self.legs.space.baselines)} trials"]
        winner = self.legs.journal.winner()
        best = (
            f"best {header.objective.metric} {winner.value:.4f} (trial {winner.name})"
            if winner
            else "no full trial yet"
        )
        running = [t for t in self.legs.journal.trials() if t.number in self.legs.live and t.epochs]
        speed = f"{sum(t.epochs[-1].films_per_second for t in running):,.0f} films/s"
        left = self.legs.seconds_left()
        elapsed = format_duration(self.legs.budget.elapsed)
        clock = elapsed if left is None else f"{elapsed}, about {format_duration(left)} left"
        return " · ".join([", ".join(words), best, speed, clock])

    def _table(self) -> Table:
        objective = self.legs.space.header.objective
        table = Table(title=f"study {self.name}", title_justify="left", expand=False)
        for column in ("trial", "state", "model", "epoch", objective.metric, "films/s"):
            table.add_column(column, justify="left" if column in ("trial", "state", "model") else "right")
        for trial in self._shown():
            last = trial.epochs[-1] if trial.epochs else None
            state = self.legs.standing(trial)
            table.add_row(
                trial.name,
                Text(state, style=_STYLES.get(state, "red")),
                str(trial.flat.get("model", "")),
                f"{last.epoch if last else 0}/{trial.schedule}",
                f"{last.value:.4f}" if last else "",
                f"{last.films_per_second:,.0f}" if last else "",
            )
        return table

    def _shown(self) -> list[Trial]:
        """Running trials, then the best of the others, as many as fit a small terminal."""
        trials = [trial for trial in self.legs.journal.trials() if trial.flat]
        running = [trial for trial in trials if trial.number in self.legs.live]
        others = [trial for trial in trials if trial.number not in self.legs.live and trial.epochs]
        sign = 1 if self.legs.space.header.objective.maximize else -1
        others.sort(key=lambda t: (self.legs.standing(t) == "full", sign * t.epochs[-1].value), reverse=True)
        return (running + others)[: max(6, console.height - 8)]
