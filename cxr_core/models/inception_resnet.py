"""Inception-ResNet with a residual scaling factor, in a width and depth that suit the films."""

from typing import Annotated

import torch
from torch import Tensor, nn

from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range

Size = int | tuple[int, int]


def _conv(narrow: int, wide: int, kernel: Size, stride: int = 1) -> nn.Sequential:
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    convolution = nn.Conv2d(narrow, wide, (rows, columns), stride, padding=(rows // 2, columns // 2), bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wide), nn.ReLU(inplace=True))


def _branch(narrow: int, wide: int, *kernels: Size) -> nn.Sequential:
    widths = [narrow, *[wide] * len(kernels)]
    return nn.Sequential(*[_conv(a, b, kernel) for a, b, kernel in zip(widths, widths[1:], kernels, strict=False)])


class ScaledResidual(nn.Module):
    """Parallel branches, widened by a linear 1x1 convolution, scaled, and added to their input.

    The scale (Szegedy et al. 2017, arXiv:1602.07261, sec. 3.3) keeps wide residual networks from dying early.
    """

    def __init__(self, channels: int, branches: list[nn.Sequential], wide: int, scale: float):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.expand = nn.Conv2d(wide * len(branches), channels, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        residual = self.expand(torch.cat([branch(x) for branch in self.branches], 1))
        return torch.relu(x + self.scale * residual)


class Reduction(nn.Module):
    """Halve the grid and double the channels: max pooling beside two strided convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.short = _conv(channels, half, 3, 2)
        self.long = nn.Sequential(_conv(channels, half, 1), _conv(half, half, 3), _conv(half, half, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pool(x), self.short(x), self.long(x)], 1)


def _block_a(channels: int, wide: int, scale: float) -> nn.Module:
    kernels: list[tuple[Size, ...]] = [(1,), (1, 3), (1, 3, 3)]
    return ScaledResidual(channels, [_branch(channels, wide, *sizes) for sizes in kernels], wide, scale)


def _block_b(channels: int, wide: int, scale: float) -> nn.Module:
    kernels: list[tuple[Size, ...]] = [(1,), (1, (1, 7), (7, 1))]
    return ScaledResidual(channels, [_branch(channels, wide, *sizes) for sizes in kernels], wide, scale)


def _block_c(channels: int, wide: int, scale: float) -> nn.Module:
    kernels: list[tuple[Size, ...]] = [(1,), (1, (1, 3), (3, 1))]
    return ScaledResidual(channels, [_branch(channels, wide, *sizes) for sizes in kernels], wide, scale)


@models.register("inception_resnet")
def inception_resnet(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(8, 128)] = 32,
    depth: Annotated[int, Range(1, 5)] = 1,
    residual_scale: Annotated[float, Range(0.01, 1.0)] = 0.2,
) -> nn.Module:
    """Inception-ResNet blocks A, B and C on three grids, each half of the one before (Szegedy et al. 2017).

    width: channels of a branch on the first grid; depth: blocks A, B, C are repeated depth, 2 depth and depth times
    (the published network has depth 5). The stem quarters the film, below 64 px it halves it.
    """
    if image_size < 16:
        raise Infeasible(f"inception_resnet needs films of 16 px or more, not {image_size}")
    channels = 2 * width
    layers: list[nn.Module] = [_conv(1, width, 3, 2), _conv(width, width, 3), _conv(width, channels, 3)]
    if image_size >= 64:
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    layers += [_block_a(channels, width, residual_scale) for _ in range(depth)]
    layers += [Reduction(channels)]
    layers += [_block_b(2 * channels, 2 * width, residual_scale) for _ in range(2 * depth)]
    layers += [Reduction(2 * channels)]
    layers += [_block_c(4 * channels, 4 * width, residual_scale) for _ in range(depth)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * channels, outputs)]
    return nn.Sequential(*layers, *head)
