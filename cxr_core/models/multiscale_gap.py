"""Findings differ in size: each scale of a small network is averaged over the film, and all are seen by the head."""

from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn

from cxr_core.models.convolutions import Norm, convolution
from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range


class MultiscaleAverage(nn.Module):
    """Convolutions one after another, each halving the grid; the global averages of all of them, side by side."""

    def __init__(self, scales: list[nn.Module]):
        super().__init__()
        self.scales = nn.ModuleList(scales)
        self.halve = nn.MaxPool2d(2)

    def feature_maps(self) -> list[nn.Module]:
        """All scales: the head reads the average of each."""
        return list(self.scales)

    def forward(self, films: Tensor) -> Tensor:
        x, averages = films, []
        for place, scale in enumerate(self.scales):
            x = scale(self.halve(x) if place else x)
            averages.append(x.mean((2, 3)))
        return torch.cat(averages, 1)


@models.register("multiscale_gap")
def multiscale_gap(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(8, 128)] = 64,
    hidden: Annotated[int, Range(16, 1024)] = 128,
    norm: Norm = "batch",
) -> nn.Module:
    """Scales of width, 2 width and 4 width channels, averaged over the film, and a fully connected layer.

    Published with width 64 (448 features) and 128 hidden units.
    """
    if image_size < 8:
        raise Infeasible(f"multiscale_gap needs films of 8 px or more, not {image_size}")
    widths = [1, width, 2 * width, 4 * width]
    scales = [convolution(narrow, wide, 3, norm=norm) for narrow, wide in pairwise(widths)]
    head = [nn.Linear(7 * width, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, outputs)]
    return nn.Sequential(MultiscaleAverage([*scales]), *head)
