"""What Inception networks are made of: parallel branches, joined or added, reductions of the grid, and the stems."""

from typing import Literal

import torch
from torch import Tensor, nn

from cxr_core.models.convolutions import Norm, Size, convolution
from cxr_core.models.registry import Infeasible

Steps = tuple[tuple[int, Size], ...]
"""A branch: (channels, kernel) of one convolution after another."""

Stem = Literal["small", "inception_v4"]


def branch(narrow: int, steps: Steps, norm: Norm, stride: int = 1, *, valid: bool = False) -> nn.Sequential:
    """Convolutions in a row; the last one has the stride, and no padding if `valid`."""
    layers: list[nn.Module] = []
    for place, (wide, kernel) in enumerate(steps, 1):
        last = place == len(steps)
        layers.append(convolution(narrow, wide, kernel, stride if last else 1, norm=norm, valid=valid and last))
        narrow = wide
    return nn.Sequential(*layers)


def pooled_branch(narrow: int, wide: int, norm: Norm) -> nn.Sequential:
    """Average pooling that keeps the grid, then a 1x1 convolution."""
    pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    return nn.Sequential(pool, convolution(narrow, wide, 1, norm=norm))


class Concatenation(nn.Module):
    """Parallel branches, their channels side by side."""

    def __init__(self, branches: list[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class ScaledResidual(nn.Module):
    """Parallel branches, widened by a linear 1x1 convolution, scaled, and added to their input.

    The scale (Szegedy et al. 2017, arXiv:1602.07261, sec. 3.3) keeps wide residual networks from dying early.
    """

    def __init__(self, channels: int, branches: tuple[Steps, ...], norm: Norm, scale: float):
        super().__init__()
        self.branches = Concatenation([branch(channels, steps, norm) for steps in branches])
        self.expand = nn.Conv2d(sum(steps[-1][0] for steps in branches), channels, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.scale * self.expand(self.branches(x)))


def reduction(channels: int, branches: tuple[Steps, ...], norm: Norm, *, valid: bool) -> Concatenation:
    """Halve the grid: max pooling beside branches whose last convolution has stride 2."""
    pool = nn.MaxPool2d(3, 2, padding=0 if valid else 1)
    return Concatenation([pool, *[branch(channels, steps, norm, 2, valid=valid) for steps in branches]])


def reduced(channels: int, branches: tuple[Steps, ...]) -> int:
    """Channels that a `reduction` gives."""
    return channels + sum(steps[-1][0] for steps in branches)


def small_stem(image_size: int, width: int, norm: Norm) -> list[nn.Module]:
    """Three convolutions to 2 width channels; the film is quartered, below 64 px halved."""
    layers: list[nn.Module] = [
        convolution(1, width, 3, 2, norm=norm),
        convolution(width, width, 3, norm=norm),
        convolution(width, 2 * width, 3, norm=norm),
    ]
    if image_size >= 64:
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    return layers


def inception_v4_stem(width: int, norm: Norm) -> list[nn.Module]:
    """The stem of Inception-v4 and Inception-ResNet-v2 (Szegedy et al. 2017, fig. 3), published with width 32.

    299 px become a grid of 35, with 12 width channels.
    """
    w = width
    return [
        convolution(1, w, 3, 2, norm=norm, valid=True),
        convolution(w, w, 3, norm=norm, valid=True),
        convolution(w, 2 * w, 3, norm=norm),
        reduction(2 * w, (((3 * w, 3),),), norm, valid=True),
        Concatenation(
            [
                branch(5 * w, ((2 * w, 1), (3 * w, 3)), norm, valid=True),
                branch(5 * w, ((2 * w, 1), (2 * w, (7, 1)), (2 * w, (1, 7)), (3 * w, 3)), norm, valid=True),
            ]
        ),
        reduction(6 * w, (((6 * w, 3),),), norm, valid=True),
    ]


def check_size(family: str, image_size: int, stem: Stem) -> None:
    """Raises Infeasible for films that the stem and the two reductions would bring to nothing."""
    least = {"small": 16, "inception_v4": 75}[stem]
    if image_size < least:
        which = " with the inception_v4 stem" if stem == "inception_v4" else ""
        raise Infeasible(f"{family}{which} needs films of {least} px or more, not {image_size}")
