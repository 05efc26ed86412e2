"""What a person sees while one network trains: a bar on a terminal, and a line an epoch elsewhere."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from statistics import fmean

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from cxr_core.console import console
from cxr_core.history import History

log = logging.getLogger(__name__)

_RECENT = 10
"""Epochs whose mean length tells the time left."""


@contextmanager
def epoch_bar(history: History, epochs: int) -> Iterator[Callable[[], None]]:
    """Show how far a training is: call what this gives after each epoch that was added to the history."""
    if not console.is_terminal:
        yield lambda: log.info("epoch %d/%d: %s", history.rows[-1]["epoch"], epochs, describe(history, epochs))
        return
    columns = (TextColumn("epoch"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _Bar(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        done = len(history.rows)
        task = bar.add_task(describe(history, epochs) if done else "", completed=done, total=epochs)
        yield lambda: bar.update(task, completed=len(history.rows), description=describe(history, epochs))


class _Bar(Progress):
    """A bar with the figures in lines of their own: beside it a usual terminal has no room."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.description) for task in self.tasks)


def describe(history: History, epochs: int) -> str:
    """The last epoch, the best one, and the time that the rest will take."""
    last, best, metric = history.rows[-1], history.best, history.metric
    value = "undefined" if math.isnan(last[metric]) else f"{last[metric]:.4f}"
    words = [f"train loss {last['train_loss']:.4f}", f"{metric} {value}"]
    words += [f"best {best[metric]:.4f} (epoch {best['epoch']:.0f})"] if best else []
    words += [f"{last['films_per_second']:,.0f} films/s"]
    seconds = fmean(row["seconds"] for row in history.rows[-_RECENT:])
    left = timedelta(seconds=round(seconds * (epochs - last["epoch"])))
    return ", ".join([*words, f"{left} left"] if left else words)
