"""The picture of a comparison: how far each policy is behind the table's best, as time goes on."""

from pathlib import Path

import numpy as np

from search.comparison import HORIZONS, TOP1, Comparison

_COLORS = ("#8a919e", "#55606e", "#2f7fe0", "#dd8420", "#d0504b", "#3c9a5f", "#8d5fd3", "#b0892f")
_X = "wall clock, in mean training times"


class _Bands:
    """Median and quartiles of each policy's regret over time.

    at: in mean training times, shown up to `end`. lowest: where a regret of 0 is drawn.
    """

    def __init__(self, comparison: Comparison):
        table = comparison.table
        self.at = np.linspace(0, HORIZONS[-1], 501)
        self.title = f"{table.name}: behind the best of {len(table.curves)} trainings"
        self.y = f"{table.metric} behind the best (median, quartiles)"
        self.top1 = abs(table.best(TOP1) - table.best(0))
        regrets = {name: comparison.regret(comparison.found[name], self.at) for name in comparison.policies}
        positive = np.concatenate([regret[np.isfinite(regret) & (regret > 0)] for regret in regrets.values()])
        self.lowest = float(positive.min()) / 2 if len(positive) else 1.0
        self.of = {name: self._quartiles(regret) for name, regret in regrets.items()}
        # Nothing changes any more once three quarters of the searches of every policy have found the best.
        unsettled = np.any([band[2] > self.lowest for band in self.of.values()], axis=0)
        self.end = float(self.at[min(np.flatnonzero(unsettled).max(initial=0) + 20, len(self.at) - 1)])
        shown = np.concatenate([np.ravel(band[np.isfinite(band)]) for band in self.of.values()])
        self.highest = float(shown.max()) if len(shown) else 1.0

    def _quartiles(self, regret: np.ndarray) -> np.ndarray:
        """(3, times). Order statistics, as a search without a full training yet is infinitely far behind."""
        rows = np.quantile(regret, (0.25, 0.5, 0.75), axis=0, method="inverted_cdf")
        return np.asarray(np.maximum(rows, self.lowest))


def draw(comparison: Comparison, path: Path) -> None:
    """Draw a comparison as .png or .html; a reader sees the old picture or the new one."""
    bands, partial = _Bands(comparison), path.with_name(f".{path.name}.partial")
    (_draw_page if path.suffix == ".html" else _draw_png)(bands, partial)
    partial.replace(path)


def _draw_png(bands: _Bands, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for color, (name, (low, middle, high)) in zip(_colors(bands), bands.of.items(), strict=True):
        axes.plot(bands.at, middle, color=color, label=name, drawstyle="steps-post", linewidth=1.8)
        top = np.where(np.isfinite(high), high, 10 * bands.highest)
        axes.fill_between(bands.at, low, top, color=color, alpha=0.12, step="post", linewidth=0)
    axes.set_yscale("log")
    axes.set_ylim(bands.lowest * 0.8, bands.highest * 1.3)
    axes.set_xlim(0, bands.end)
    if bands.top1 > bands.lowest:
        axes.axhline(bands.top1, color="#333333", linewidth=1, linestyle=":")
        axes.annotate("best 1 %", (bands.end, bands.top1), (-4, 3), textcoords="offset points", ha="right")
    axes.axhline(bands.lowest, color="#333333", linewidth=0.6)
    axes.annotate("0: the best is found", (bands.end, bands.lowest), (-4, 3), textcoords="offset points", ha="right")
    axes.set(xlabel=_X, ylabel=bands.y, title=bands.title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, format="png", dpi=110)


def _draw_page(bands: _Bands, path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": "plotly_white", "title": bands.title, "hovermode": "x unified"})
    for color, (name, (low, middle, high)) in zip(_colors(bands), bands.of.items(), strict=True):
        top = np.where(np.isfinite(high), high, bands.highest)
        common = {"x": bands.at, "legendgroup": name, "hoverinfo": "skip", "showlegend": False}
        edge = {"width": 0, "shape": "hv"}
        figure.add_scatter(y=np.where(np.isfinite(low), low, np.nan), mode="lines", line=edge, **common)
        fill = {"fill": "tonexty", "fillcolor": color, "opacity": 0.12}
        figure.add_scatter(y=np.where(np.isfinite(low), top, np.nan), mode="lines", line=edge, **common, **fill)
        y = np.where(np.isfinite(middle), middle, np.nan)
        line = {"color": color, "width": 2, "shape": "hv"}
        figure.add_scatter(x=bands.at, y=y, name=name, legendgroup=name, mode="lines", line=line)
    if bands.top1 > bands.lowest:
        figure.add_hline(bands.top1, line={"dash": "dot", "width": 1}, annotation_text="best 1 %")
    figure.add_hline(bands.lowest, line={"width": 1}, annotation_text="0: the best is found")
    figure.update_yaxes(type="log", title=bands.y).update_xaxes(title=_X, range=[0, bands.end])
    figure.write_html(path, include_plotlyjs=True)


def _colors(bands: _Bands) -> list[str]:
    return [_COLORS[place % len(_COLORS)] for place in range(len(bands.of))]
