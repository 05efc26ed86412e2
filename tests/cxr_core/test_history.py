"""A training's history: what is kept of it, and which epoch was best."""

import math
from pathlib import Path

import pytest

from cxr_core.evaluate import Scores
from cxr_core.history import History
from cxr_core.train import Epoch


def epoch(index: int, **metrics: float) -> Epoch:
    return Epoch(index, index / 9, 1 / 3 / index, Scores(metrics, {"Mass": math.nan}), 1000 / 7, 0.1, 0)


def grown(metric: str, *values: float) -> History:
    history = History(metric)
    for index, value in enumerate(values, 1):
        history.add(epoch(index, **{metric: value}), learning_rate=0.1 / index)
    return history


def test_a_history_reads_back_to_the_last_bit(tmp_path: Path) -> None:
    history = grown("auroc_macro", 2 / 3, math.nan, 5 / 7)
    history.write(tmp_path / "a.csv")
    again = History.read(tmp_path / "a.csv", "auroc_macro", 3)
    assert [list(map(repr, row.values())) for row in again.rows] == [
        list(map(repr, row.values())) for row in history.rows
    ]


def test_epochs_that_were_not_saved_with_their_network_are_left_out(tmp_path: Path) -> None:
    grown("auroc_macro", 0.6, 0.7, 0.8).write(tmp_path / "a.csv")
    assert [row["epoch"] for row in History.read(tmp_path / "a.csv", "auroc_macro", 2).rows] == [1, 2]


def test_a_history_that_was_deleted_is_empty(tmp_path: Path) -> None:
    assert History.read(tmp_path / "a.csv", "auroc_macro", 2).rows == []


def test_a_write_that_fails_leaves_the_old_table(tmp_path: Path) -> None:
    grown("auroc_macro", 0.6).write(tmp_path / "a.csv")
    before = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.partial").mkdir()  # so it cannot be written
    with pytest.raises(OSError, match=r"a\.partial"):
        grown("auroc_macro", 0.6, 0.7).write(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == before


@pytest.mark.parametrize(("metric", "best"), [("auroc_macro", 2), ("log_loss", 3)])
def test_the_best_epoch_is_best_in_the_metrics_own_direction(metric: str, best: int) -> None:
    assert grown(metric, 0.6, 0.8, 0.5, 0.8).best["epoch"] == best


def test_an_undefined_metric_is_never_best() -> None:
    assert grown("auroc_macro", math.nan, 0.6).best["epoch"] == 2
    assert grown("auroc_macro", math.nan).best is None
