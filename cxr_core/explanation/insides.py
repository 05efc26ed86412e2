"""What is inside a network: the filters of its first layer, and the maps that its stages make of a film."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cxr_core.explanation.drawing import INK, SOFT, draw_film, save
from cxr_core.explanation.feature_maps import stages

_MOST_FILTERS, _MOST_CHANNELS, _MOST_STAGES = 64, 8, 5


def first_filters(model: nn.Module) -> tuple[str, np.ndarray] | None:
    """Name and weights, (filters, h, w), of the first convolution of more than a pixel; None if there is none.

    Where it sees three copies of a film, their weights are added up.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
            return name, layer.weight.detach().float().sum(1).cpu().numpy()
    return None


def draw_filters(path: Path, name: str, filters: np.ndarray) -> None:
    """Draw the first filters, each by its own scale: red above zero, blue below, white zero."""
    shown = filters[:_MOST_FILTERS]
    columns = min(16, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(5.0, 0.55 * columns), 0.4 + 0.55 * rows), layout="constrained")
    which = f"{len(shown)} of {len(filters)}" if len(shown) < len(filters) else f"{len(filters)}"
    size = " x ".join(map(str, filters.shape[1:]))
    title = f"Filters of the first layer ({name}): {which} of {size} px; red above zero, blue below"
    figure.suptitle(title, fontsize=10, color=INK, x=0.01, ha="left")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if place < len(shown):
            most = float(np.abs(shown[place]).max()) or 1.0
            axes.imshow(shown[place], cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    save(figure, path)


def draw_stages(path: Path, model: nn.Module, film: Tensor, picture: np.ndarray, image: str) -> list[dict[str, object]]:
    """Draw the maps of one film: of each grid's last layer the channels that vary most. Tells the layers drawn.

    film: normalised, (1, 1, S, S). picture: the film as it is shown, (H, W) uint8.
    """
    found = stages(model, film)
    if len(found) > _MOST_STAGES:
        found = [found[place] for place in np.linspace(0, len(found) - 1, _MOST_STAGES).round().astype(int)]
    figure = Figure(figsize=(1.25 * (_MOST_CHANNELS + 1), 0.5 + 1.45 * len(found)), layout="constrained")
    figure.suptitle(f"What the layers make of {image}", fontsize=10, color=INK, x=0.01, ha="left")
    grid = figure.subplots(len(found), _MOST_CHANNELS + 1, squeeze=False)
    for (name, maps), line in zip(found, grid, strict=True):
        for axes in line:
            axes.set_axis_off()
        draw_film(line[0], picture, (picture.shape[1], picture.shape[0]))
        cells = f"{maps.shape[-1]} x {maps.shape[-1]} cells"
        line[1].set_title(
            f"layer {name}: {cells}, {len(line) - 1} of {maps.shape[0]} maps", fontsize=8, color=SOFT, loc="left"
        )
        chosen = torch.argsort(maps.float().var((1, 2)), descending=True, stable=True)[:_MOST_CHANNELS]
        for axes, channel in zip(line[1:], chosen, strict=False):
            axes.imshow(maps[channel].float().cpu().numpy(), cmap="viridis", interpolation="nearest")
    save(figure, path)
    return [{"layer": name, "maps": int(maps.shape[0]), "grid": int(maps.shape[-1])} for name, maps in found]
