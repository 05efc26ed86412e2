"""A long build is seen: as a bar on a terminal, as a line every ten seconds elsewhere."""

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from cxr_core import console as console_module
from cxr_core.console import show_log
from cxr_core.data import progress_bar
from cxr_core.data.progress_bar import film_bar


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_bar, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None, legacy_windows=False)
    for module in (progress_bar, console_module):
        monkeypatch.setattr(module, "console", console)
    return screen


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(progress_bar, "console", Console(file=io.StringIO(), force_terminal=False))
    caplog.set_level(logging.INFO, "cxr_core")
    return caplog


@pytest.fixture
def package() -> Iterator[str]:
    yield "a_package_of_this_test"
    logging.getLogger("a_package_of_this_test").handlers.clear()


def test_without_a_terminal_a_line_tells_films_rate_and_time_left(pipe: pytest.LogCaptureFixture, clock: Clock) -> None:
    with film_bar("decoding films") as on_film:
        on_film(0, 112_120)
        clock.now += 40
        on_film(12_400, 112_120)
    assert pipe.messages == ["decoding films: 12,400 of 112,120, 310 films/s, 5 min left"]


def test_films_of_an_earlier_process_do_not_count_for_the_rate(pipe: pytest.LogCaptureFixture, clock: Clock) -> None:
    with film_bar("decoding films") as on_film:
        on_film(50_000, 51_000)
        clock.now += 10
        on_film(50_500, 51_000)
    assert pipe.messages == ["decoding films: 50,500 of 51,000, 50 films/s, 10 s left"]


def test_there_is_a_line_every_ten_seconds_and_no_more(pipe: pytest.LogCaptureFixture, clock: Clock) -> None:
    with film_bar("decoding films") as on_film:
        for film in range(351):
            on_film(film, 100_000)
            clock.now += 0.1
    assert len(pipe.messages) == 3


def test_a_terminal_shows_a_bar_with_films_and_rate_and_takes_it_away(terminal: io.StringIO) -> None:
    with film_bar("decoding films") as on_film:
        on_film(0, 40)
        on_film(40, 40)
    assert "decoding films" in terminal.getvalue()
    assert "40/40" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased


def test_nothing_is_shown_where_no_film_is_decoded(terminal: io.StringIO) -> None:
    with film_bar("decoding films"):
        pass
    assert terminal.getvalue() == ""


def test_messages_go_to_the_same_terminal(terminal: io.StringIO, package: str) -> None:
    show_log(package)
    with film_bar("decoding films") as on_film:
        on_film(1, 40)
        logging.getLogger(package).info("unreadable film, left out")
    assert "unreadable film, left out" in terminal.getvalue()
