"""A long training is seen: as a bar on a terminal, as a line an epoch elsewhere."""

import io
import logging
import math

import pytest
from rich.console import Console

from cxr_core import epoch_bar as module
from cxr_core.epoch_bar import epoch_bar
from cxr_core.history import History


def row(epoch: int, area: float, seconds: float = 60.0) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": 0.5, "auroc_macro": area, "films_per_second": 1234.5, "seconds": seconds}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged where there is no terminal, for three epochs of which the second is the best."""
    monkeypatch.setattr(module, "console", Console(file=io.StringIO(), force_terminal=False))
    caplog.set_level(logging.INFO, "cxr_core")
    history = History("auroc_macro")
    with epoch_bar(history, 3) as on_epoch:
        for epoch, area in enumerate((math.nan, 0.75, 0.625), 1):
            history.rows.append(row(epoch, area))
            on_epoch()
    return caplog.messages


def test_without_a_terminal_a_line_an_epoch_tells_loss_metric_best_rate_and_time_left(lines: list[str]) -> None:
    assert lines[1:] == [
        "epoch 2/3: train loss 0.5000, auroc_macro 0.7500, best 0.7500 (epoch 2), 1,234 films/s, 0:01:00 left",
        "epoch 3/3: train loss 0.5000, auroc_macro 0.6250, best 0.7500 (epoch 2), 1,234 films/s",
    ]


def test_a_metric_that_is_undefined_is_told_as_such(lines: list[str]) -> None:
    assert lines[0] == "epoch 1/3: train loss 0.5000, auroc_macro undefined, 1,234 films/s, 0:02:00 left"


def test_on_a_terminal_a_bar_starts_where_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        module, "console", Console(file=screen, force_terminal=True, width=100, color_system=None, legacy_windows=False)
    )
    history = History("auroc_macro", [row(1, 0.6), row(2, 0.7)])
    with epoch_bar(history, 4) as on_epoch:
        before = screen.getvalue()
        history.rows.append(row(3, 0.8))
        on_epoch()
    assert "2/4" in before
    assert "3/4" in screen.getvalue()
    assert "auroc_macro 0.8000, best 0.8000 (epoch 3), 1,234 films/s, 0:01:00 left" in screen.getvalue()
