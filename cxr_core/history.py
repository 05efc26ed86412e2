"""A training's history: one row an epoch, and the table of them on disk."""

import csv
import math
from pathlib import Path

from cxr_core.metrics import OBJECTIVES
from cxr_core.train import Epoch

Row = dict[str, float]
"""An epoch's numbers by name; NaN is undefined."""


class History:
    """The epochs of a training so far; `metric` is the one that the training is known by."""

    def __init__(self, metric: str, rows: list[Row] | None = None):
        self.metric = metric
        self.rows = rows or []

    @classmethod
    def read(cls, path: Path, metric: str, epochs: int) -> "History":
        """The table's first epochs; those after them were not saved with their network, and will come again.

        A table that is not there has no rows.
        """
        if not path.exists():
            return cls(metric)
        with path.open(newline="", encoding="utf-8") as file:
            table = [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]
        return cls(metric, [row for row in table if row["epoch"] <= epochs])

    def write(self, path: Path) -> None:
        """Write the table, of one row or more; who is killed leaves the old one or the new one, never half a row."""
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
        partial.replace(path)

    def add(self, epoch: Epoch, learning_rate: float) -> None:
        """Add an epoch. learning_rate: at its end."""
        self.rows.append(
            {
                "epoch": epoch.index,
                "learning_rate": learning_rate,
                "train_loss": epoch.train_loss,
                **epoch.validation.metrics,
                **{f"auroc.{label}": area for label, area in epoch.validation.auroc.items()},
                "films_per_second": epoch.films_per_second,
                "seconds": epoch.seconds,
                "peak_memory": epoch.peak_memory,
            }
        )

    @property
    def best(self) -> Row | None:
        """The epoch with the best validation metric, of equal ones the first; None if it was defined in none."""
        sign = 1 if OBJECTIVES[self.metric].direction == "maximize" else -1
        defined = [row for row in self.rows if not math.isnan(row[self.metric])]
        return max(defined, key=lambda row: sign * row[self.metric], default=None)


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
