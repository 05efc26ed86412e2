"""Figures of the evidence: ROC and precision-recall curves, reliability diagrams, groups and metadata alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from search.evidence.words import in_words
from search.report.drawing import BLUE, GREY, ORANGE, RED, blank

_COLORS = (BLUE, ORANGE, "#3a9c5f", RED, "#8a63c9", "#8c6a4f", "#d06aa8")
_DASHES = ("solid", "dash", "dot")
"""Seven colours, then the same dashed: more findings than that are told by pointing at them."""
_BAND = "rgba(47, 127, 224, 0.18)"
"""BLUE, through which the grid is seen."""
_SHARE = {"range": [-0.02, 1.02], "tickvals": [0, 0.25, 0.5, 0.75, 1]}


def name_of(label: str) -> str:
    """A finding as a reader writes it."""
    return label.replace("_", " ")


def roc(discrimination: Mapping[str, Any]) -> go.Figure:
    """Sensitivity against false positives, of each finding that has both classes; of one finding with its band."""
    figure = _square("1 - specificity (false positive rate)", "sensitivity")
    if len(discrimination["curves"]) == 1:
        (only,) = discrimination["curves"].values()
        edges: dict[str, Any] = {"mode": "lines", "line_width": 0, **_SILENT}
        figure.add_scatter(x=only["band"]["fpr"], y=only["band"]["low"], **edges)
        figure.add_scatter(x=only["band"]["fpr"], y=only["band"]["high"], fill="tonexty", fillcolor=_BAND, **edges)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"}, **_SILENT)
    for place, (label, curves) in enumerate(discrimination["curves"].items()):
        if curves["fpr"]:
            area = in_words(discrimination["auroc"]["labels"][label])
            _line(figure, place, curves["fpr"], curves["tpr"], label, f"{name_of(label)}<br>AUROC {area}")
    return _legend(figure, discrimination["curves"])


def precision_recall(discrimination: Mapping[str, Any]) -> go.Figure:
    """Precision against recall in steps, whose area is the average precision; of one finding with its prevalence."""
    figure = _square("recall (sensitivity)", "precision")
    curves_of = discrimination["curves"]
    for place, (label, curves) in enumerate(curves_of.items()):
        if curves["recall"]:
            area = in_words(discrimination["auprc"]["labels"][label])
            text = f"{name_of(label)}<br>AUPRC {area}, prevalence {curves['prevalence']:.1%}"
            _line(figure, place, curves["recall"], curves["precision"], label, text, shape="vh")
    if len(curves_of) == 1:
        (only,) = curves_of.values()
        if only["prevalence"] is not None:
            note = {"annotation_text": "prevalence", "annotation_position": "bottom left", "annotation_font_size": 11}
            figure.add_hline(only["prevalence"], line={"color": GREY, "width": 1, "dash": "dot"}, **note)
    return _legend(figure, curves_of)


def reliability(before: Mapping[str, Any], after: Mapping[str, Any]) -> go.Figure:
    """One finding's share of positives against its mean score, before and after calibration; size grows with films."""
    figure = _square("mean score of the films in a bin", "share with the finding", 300)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"}, **_SILENT)
    for name, bins, color in (("before", before, ORANGE), ("after", after, BLUE)):
        films = bins["films"]
        figure.add_scatter(
            x=bins["score"],
            y=bins["share"],
            customdata=films,
            name=name,
            mode="lines+markers",
            line={"color": color, "width": 1.5},
            marker={"color": color, "size": [5 + 9 * (count / max(films)) ** 0.5 for count in films]},
            hovertemplate=name + ": %{y:.2f} of %{customdata:,} films at a mean score of %{x:.2f}<extra></extra>",
        )
    return figure.update_layout(showlegend=True)


def group_areas(groups: Sequence[Mapping[str, Any]]) -> go.Figure:
    """The mean AUROC of each group with its interval."""
    known = [group for group in groups if group["auroc"]["mean"]["value"] is not None]
    figure = blank(90 + 30 * len(known), "AUROC", "")
    _with_intervals(figure, range(len(known)), [group["auroc"]["mean"] for group in known], BLUE, "AUROC")
    return _named_rows(figure, [f"{group['kind']}: {group['name']}" for group in known])


def alone_and_network(metadata: Mapping[str, Any]) -> go.Figure:
    """AUROC of each finding of metadata alone, and of the network a little below it."""
    sides = (("without the film", "alone", ORANGE, -0.16), ("network", "network", BLUE, 0.16))
    labels = list(metadata["auroc"]["alone"]["labels"])
    figure = blank(120 + 40 * len(labels), "AUROC", "")
    for name, side, color, offset in sides:
        told = [metadata["auroc"][side]["labels"][label] for label in labels]
        known = [place for place, one in enumerate(told) if one["value"] is not None]
        _with_intervals(figure, [place + offset for place in known], [told[place] for place in known], color, name)
    figure.add_vline(0.5, line={"color": GREY, "width": 1, "dash": "dot"})
    return _named_rows(figure, list(map(name_of, labels))).update_layout(showlegend=True)


_SILENT: dict[str, Any] = {"hoverinfo": "skip", "showlegend": False}


def _square(x: str, y: str, height: int = 430) -> go.Figure:
    return blank(height, x, y).update_xaxes(**_SHARE).update_yaxes(**_SHARE)


def _line(
    figure: go.Figure,
    place: int,
    x: Sequence[float],
    y: Sequence[float],
    label: str,
    text: str,
    shape: str = "linear",
) -> None:
    dash = _DASHES[place // len(_COLORS) % len(_DASHES)]
    line = {"color": _COLORS[place % len(_COLORS)], "width": 1.8, "shape": shape, "dash": dash}
    figure.add_scatter(x=x, y=y, name=name_of(label), mode="lines", line=line, hovertemplate=text + "<extra></extra>")


def _legend(figure: go.Figure, labels: Mapping[str, Any]) -> go.Figure:
    """Below the picture, where its many lines do not push the picture down."""
    rows = -(-len(labels) // 2)  # of a narrow page
    figure.update_layout(legend={"y": -0.2, "yanchor": "top"}, margin_t=10, showlegend=len(labels) > 1)
    return figure.update_layout(height=430 + (22 * rows if len(labels) > 1 else 0))


def _with_intervals(
    figure: go.Figure, rows: Sequence[float], told: Sequence[Mapping[str, Any]], color: str, name: str
) -> None:
    def beyond(end: str) -> list[float]:
        return [0.0 if one[end] is None else abs(one[end] - one["value"]) for one in told]

    whisker = {"type": "data", "symmetric": False, "color": color, "thickness": 1.5, "width": 4}
    figure.add_scatter(
        x=[one["value"] for one in told],
        y=list(rows),
        error_x={**whisker, "array": beyond("high"), "arrayminus": beyond("low")},
        text=[in_words(one) for one in told],
        name=name,
        mode="markers",
        marker={"color": color, "size": 9},
        hovertemplate=name + " %{text}<extra></extra>",
    )


def _named_rows(figure: go.Figure, names: Sequence[str]) -> go.Figure:
    ticks = {"tickvals": list(range(len(names))), "ticktext": list(names)}
    return figure.update_yaxes(range=[len(names) - 0.5, -0.5], showgrid=False, **ticks)
