"""Inception-ResNet with a residual scaling factor, from a compact size to the published one."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from cxr_core.models.convolutions import Norm
from cxr_core.models.head import classifier
from cxr_core.models.inception_blocks import (
    ScaledResidual,
    Stem,
    Steps,
    check_size,
    inception_v4_stem,
    reduced,
    reduction,
    small_stem,
)
from cxr_core.models.registry import models
from cxr_core.registry import Range


@dataclass(frozen=True)
class _Filters:
    """Branches of the blocks on the three grids (a, b, c) and of the reductions between them."""

    a: tuple[Steps, ...]
    to_b: tuple[Steps, ...]
    b: tuple[Steps, ...]
    to_c: tuple[Steps, ...]
    c: tuple[Steps, ...]


def _compact(w: int) -> _Filters:
    """Every branch has w channels on the first grid, and twice as many on each following one."""
    return _Filters(
        a=(((w, 1),), ((w, 1), (w, 3)), ((w, 1), (w, 3), (w, 3))),
        to_b=(((w, 3),), ((w, 1), (w, 3), (w, 3))),
        b=(((2 * w, 1),), ((2 * w, 1), (2 * w, (1, 7)), (2 * w, (7, 1)))),
        to_c=(((2 * w, 3),), ((2 * w, 1), (2 * w, 3), (2 * w, 3))),
        c=(((4 * w, 1),), ((4 * w, 1), (4 * w, (1, 3)), (4 * w, (3, 1)))),
    )


def _published(w: int) -> _Filters:
    """Inception-ResNet-v2 (Szegedy et al. 2017, figs. 7 and 16-19), in units of its first convolution's 32 channels.

    The paper's 1154 and 2048 channels of the last two grids cannot be added; the reductions give 1152 and 2144.
    """
    return _Filters(
        a=(((w, 1),), ((w, 1), (w, 3)), ((w, 1), (3 * w // 2, 3), (2 * w, 3))),
        to_b=(((12 * w, 3),), ((8 * w, 1), (8 * w, 3), (12 * w, 3))),
        b=(((6 * w, 1),), ((4 * w, 1), (5 * w, (1, 7)), (6 * w, (7, 1)))),
        to_c=(((8 * w, 1), (12 * w, 3)), ((8 * w, 1), (9 * w, 3)), ((8 * w, 1), (9 * w, 3), (10 * w, 3))),
        c=(((6 * w, 1),), ((6 * w, 1), (7 * w, (1, 3)), (8 * w, (3, 1)))),
    )


@models.register("inception_resnet")
def inception_resnet(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(8, 128)] = 32,
    depth: Annotated[int, Range(1, 5)] = 1,
    residual_scale: Annotated[float, Range(0.01, 1.0)] = 0.2,
    stem: Stem = "small",
    norm: Norm = "batch",
) -> nn.Module:
    """Inception-ResNet blocks A, B and C on three grids, each half of the one before (arXiv:1602.07261).

    stem: `small` goes with a compact network for small films and data sets, `inception_v4` with the published filters
    (at width 32; grids of 35, 17 and 8 at 299 px). width: channels of the first convolution. depth: blocks A, B, C are
    repeated depth, 2 depth and depth times (published: depth 5).
    """
    check_size("inception_resnet", image_size, stem)
    valid = stem == "inception_v4"
    filters = _published(width) if valid else _compact(width)
    layers = inception_v4_stem(width, norm) if valid else small_stem(image_size, width, norm)
    first = 12 * width if valid else 2 * width
    second = reduced(first, filters.to_b)
    third = reduced(second, filters.to_c)
    layers += [ScaledResidual(first, filters.a, norm, residual_scale) for _ in range(depth)]
    layers += [reduction(first, filters.to_b, norm, valid=valid)]
    layers += [ScaledResidual(second, filters.b, norm, residual_scale) for _ in range(2 * depth)]
    layers += [reduction(second, filters.to_c, norm, valid=valid)]
    layers += [ScaledResidual(third, filters.c, norm, residual_scale) for _ in range(depth)]
    return nn.Sequential(*layers, *classifier(third, 1, outputs, dropout))
