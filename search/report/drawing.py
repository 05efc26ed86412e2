"""How the report's figures look: plotly, with text and grid in the page's colours, in light and in dark."""

import plotly.graph_objects as go
import plotly.io
from markupsafe import Markup

BLUE, ORANGE, RED, GREY = "#2f7fe0", "#dd8420", "#d0504b", "#8a919e"


def draw(figure: go.Figure) -> Markup:
    """A figure as HTML, for a page that holds plotly.js."""
    unneeded = ["select2d", "lasso2d", "autoScale2d"]
    config = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": unneeded}
    return Markup(plotly.io.to_html(figure, config, full_html=False, include_plotlyjs=False))


def blank(height: int, x: str, y: str) -> go.Figure:
    """An empty figure of titled axes, its height in pixels.

    Dragging does nothing until a tool is chosen, so that a finger can scroll past it.
    """
    clear = "rgba(0,0,0,0)"
    axis = {"automargin": True, "zeroline": False, "title": {"standoff": 8}}
    figure = go.Figure(layout={"template": "none", "height": height, "dragmode": False})
    figure.update_layout(paper_bgcolor=clear, plot_bgcolor=clear, font={"family": "system-ui, sans-serif", "size": 13})
    figure.update_layout(margin={"l": 8, "r": 12, "t": 40, "b": 8}, hovermode="closest", xaxis=axis, yaxis=axis)
    figure.update_layout(modebar={"bgcolor": clear, "color": GREY, "activecolor": BLUE})
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})
    return figure.update_layout(xaxis_title_text=x, yaxis_title_text=y)
