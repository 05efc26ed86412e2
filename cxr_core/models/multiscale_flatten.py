"""Three scales of a small network, each flattened with the places of what it saw."""

from typing import Annotated

import torch
from torch import Tensor, nn

from cxr_core.models.convolutions import Norm, convolution
from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range

_KERNELS = (8, 8, 6)
_SMALLEST = 49  # px: what leaves one pixel of the last scale


class MultiscaleFlatten(nn.Module):
    """Convolutions one after another, each with 2x2 max pooling; the values of all of them, side by side."""

    def __init__(self, scales: list[nn.Sequential]):
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def feature_maps(self) -> list[nn.Module]:
        """All scales, each before its pooling: the head reads the values of each."""
        return [scale[-2] for scale in self.scales]  # type: ignore[index]

    def forward(self, films: Tensor) -> Tensor:
        x, seen = films, []
        for scale in self.scales:
            x = scale(x)
            seen.append(x.flatten(1))
        return torch.cat(seen, 1)


def scale_sizes(image_size: int, width: int) -> list[tuple[int, int]]:
    """(channels, grid) of each scale: convolutions without padding, then 2x2 pools that drop an odd row."""
    sizes, grid = [], image_size
    for channels, kernel in zip((width, round(width * 5 / 6), round(width * 2 / 3)), _KERNELS, strict=True):
        grid = (grid - kernel + 1) // 2
        sizes.append((channels, grid))
    return sizes


@models.register("multiscale_flatten")
def multiscale_flatten(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(3, 48)] = 12,
    norm: Norm = "batch",
) -> nn.Module:
    """Scales of width, 5/6 width and 2/3 width channels with kernels of 8, 8 and 6 px, all of them flattened.

    Published with width 12: 12, 10 and 8 channels, at 512 px 762,048 + 148,840 + 26,912 = 937,800 features.
    """
    if image_size < _SMALLEST:
        raise Infeasible(f"multiscale_flatten needs films of {_SMALLEST} px or more, not {image_size}")
    sizes = scale_sizes(image_size, width)
    scales: list[nn.Sequential] = []
    narrow = 1
    for (wide, _), kernel in zip(sizes, _KERNELS, strict=True):
        scales.append(nn.Sequential(*convolution(narrow, wide, kernel, norm=norm, valid=True), nn.MaxPool2d(2)))
        narrow = wide
    features = sum(channels * grid**2 for channels, grid in sizes)
    return nn.Sequential(MultiscaleFlatten(scales), nn.Dropout(dropout), nn.Linear(features, outputs))
