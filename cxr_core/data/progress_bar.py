"""What a person sees while films are decoded: a bar on a terminal, and a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cxr_core.console import console

log = logging.getLogger(__name__)

_REDRAW = 0.2
"""Seconds between updates of the bar: decoding must not wait for it."""
_SUMMARY = 10.0
"""Seconds between lines where there is no terminal."""


@contextmanager
def film_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a build is: use what this gives as `on_film` of `build_cache`.

    what: such as "decoding films". Nothing is shown before the first film.
    """
    if not console.is_terminal:
        yield _Lines(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
    drawn = -_REDRAW

    def show(done: int, total: int) -> None:
        nonlocal drawn
        if not bar.tasks:
            bar.start()
            bar.add_task(what, completed=done, total=total)
        elif time.monotonic() - drawn > _REDRAW or done == total:
            bar.update(bar.tasks[0].id, completed=done, total=total)
            drawn = time.monotonic()

    try:
        yield show
    finally:
        bar.stop()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} films/s" if task.speed else "")


class _Lines:
    """Logs progress; what was done before the first call, by an earlier process, does not count for the rate."""

    def __init__(self, what: str):
        self._what = what
        self._start: tuple[float, int] | None = None
        self._logged = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start, self._logged = (now, done), now
        if now - self._logged < _SUMMARY:
            return
        self._logged = now
        began, before = self._start
        rate = max(done - before, 1) / (now - began)
        left = _duration((total - done) / rate)
        log.info("%s: %s of %s, %.0f films/s, %s left", self._what, f"{done:,}", f"{total:,}", rate, left)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
