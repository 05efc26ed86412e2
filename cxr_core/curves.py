"""The picture of a training: its losses, its main metric and its learning rate, epoch by epoch."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr_core.history import History

_TRAINING, _VALIDATION, _RATE = "#d95f02", "#1f5fa8", "#555555"


def draw_curves(history: History, title: str, path: Path) -> None:
    """Draw a training as a PNG; a reader sees the old picture or the new one."""
    figure = Figure(figsize=(7, 8), layout="constrained")
    figure.suptitle(title)
    losses, metric, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    _draw(losses, history, "train_loss", _TRAINING, "training loss")
    _draw(losses, history, "log_loss", _VALIDATION, "validation log loss")
    losses.set_ylabel("loss, nats")
    _draw(metric, history, history.metric, _VALIDATION, f"validation {history.metric}")
    metric.set_ylabel(history.metric)
    if history.best:
        epoch, value = history.best["epoch"], history.best[history.metric]
        metric.plot(
            epoch, value, "*", markersize=13, color=_VALIDATION, label=f"best: {value:.4f} in epoch {epoch:.0f}"
        )
    _draw(rate, history, "learning_rate", _RATE, "learning rate")
    rate.set_ylabel("at the epoch's end")
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (losses, metric, rate):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)


def _draw(axes: Axes, history: History, column: str, color: str, name: str) -> None:
    epochs, values = zip(*((row["epoch"], row[column]) for row in history.rows), strict=True)
    axes.plot(epochs, values, color=color, label=name, marker="o", markersize=3 if len(epochs) < 40 else 0)
