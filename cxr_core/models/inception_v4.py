"""Inception-v4: the sibling of Inception-ResNet that joins its branches instead of adding them."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from cxr_core.models.convolutions import Norm, convolution
from cxr_core.models.head import classifier
from cxr_core.models.inception_blocks import (
    Concatenation,
    Stem,
    Steps,
    branch,
    check_size,
    inception_v4_stem,
    pooled_branch,
    reduced,
    reduction,
    small_stem,
)
from cxr_core.models.registry import models
from cxr_core.registry import Range


@dataclass(frozen=True)
class _Block:
    """Branches of a block: straight ones, ones that end in 1x3 beside 3x1 of `fork` channels, and a pooled one."""

    straight: tuple[Steps, ...]
    pooled: int
    forked: tuple[Steps, ...] = ()
    fork: int = 0

    @property
    def channels(self) -> int:
        return sum(steps[-1][0] for steps in self.straight) + self.pooled + 2 * self.fork * len(self.forked)

    def build(self, narrow: int, norm: Norm) -> nn.Module:
        branches: list[nn.Module] = [branch(narrow, steps, norm) for steps in self.straight]
        for steps in self.forked:
            last = steps[-1][0]
            ends = [convolution(last, self.fork, (1, 3), norm=norm), convolution(last, self.fork, (3, 1), norm=norm)]
            branches.append(nn.Sequential(branch(narrow, steps, norm), Concatenation([*ends])))
        return Concatenation([*branches, pooled_branch(narrow, self.pooled, norm)])


@dataclass(frozen=True)
class _Filters:
    """The blocks on the three grids (a, b, c) and the reductions between them."""

    a: _Block
    to_b: tuple[Steps, ...]
    b: _Block
    to_c: tuple[Steps, ...]
    c: _Block


def _compact(w: int) -> _Filters:
    """As wide as the compact Inception-ResNet: 2, 4 and 8 w channels (two fewer on the first grid if w is odd)."""
    h = w // 2
    return _Filters(
        a=_Block((((h, 1),), ((h, 1), (h, 3)), ((h, 1), (h, 3), (h, 3))), pooled=h),
        to_b=(((w, 3),), ((w, 1), (w, 3), (w, 3))),
        b=_Block(
            (
                ((w, 1),),
                ((w, 1), (w, (1, 7)), (w, (7, 1))),
                ((w, 1), (w, (1, 7)), (w, (7, 1)), (w, (1, 7)), (w, (7, 1))),
            ),
            pooled=w,
        ),
        to_c=(((2 * w, 3),), ((2 * w, 1), (2 * w, 3), (2 * w, 3))),
        c=_Block(
            (((2 * w, 1),),),
            pooled=2 * w,
            forked=(((2 * w, 1),), ((2 * w, 1), (2 * w, (1, 3)), (2 * w, (3, 1)))),
            fork=w,
        ),
    )


def _published(w: int) -> _Filters:
    """Inception-v4 (Szegedy et al. 2017, figs. 4-9), in units of its first convolution's 32 channels."""
    return _Filters(
        a=_Block((((3 * w, 1),), ((2 * w, 1), (3 * w, 3)), ((2 * w, 1), (3 * w, 3), (3 * w, 3))), pooled=3 * w),
        to_b=(((12 * w, 3),), ((6 * w, 1), (7 * w, 3), (8 * w, 3))),
        b=_Block(
            (
                ((12 * w, 1),),
                ((6 * w, 1), (7 * w, (1, 7)), (8 * w, (7, 1))),
                ((6 * w, 1), (6 * w, (1, 7)), (7 * w, (7, 1)), (7 * w, (1, 7)), (8 * w, (7, 1))),
            ),
            pooled=4 * w,
        ),
        to_c=(((6 * w, 1), (6 * w, 3)), ((8 * w, 1), (8 * w, (1, 7)), (10 * w, (7, 1)), (10 * w, 3))),
        c=_Block(
            (((8 * w, 1),),),
            pooled=8 * w,
            forked=(((12 * w, 1),), ((12 * w, 1), (14 * w, (1, 3)), (16 * w, (3, 1)))),
            fork=8 * w,
        ),
    )


@models.register("inception_v4")
def inception_v4(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(8, 128)] = 32,
    depth: Annotated[int, Range(1, 5)] = 1,
    stem: Stem = "small",
    norm: Norm = "batch",
) -> nn.Module:
    """Inception blocks A, B and C on three grids, each half of the one before (arXiv:1602.07261).

    stem: `small` goes with a compact network for small films and data sets, `inception_v4` with the published filters
    (at width 32; grids of 35, 17 and 8 at 299 px). width: channels of the first convolution. depth: blocks A, B, C are
    repeated depth, 2 depth - 1 and depth - 1 times, at least once (published: depth 4).
    """
    check_size("inception_v4", image_size, stem)
    valid = stem == "inception_v4"
    filters = _published(width) if valid else _compact(width)
    layers = inception_v4_stem(width, norm) if valid else small_stem(image_size, width, norm)
    channels = 12 * width if valid else 2 * width
    for block, repeats, shrink in (
        (filters.a, depth, filters.to_b),
        (filters.b, 2 * depth - 1, filters.to_c),
        (filters.c, max(depth - 1, 1), None),
    ):
        for _ in range(repeats):
            layers.append(block.build(channels, norm))
            channels = block.channels
        if shrink:
            layers.append(reduction(channels, shrink, norm, valid=valid))
            channels = reduced(channels, shrink)
    return nn.Sequential(*layers, *classifier(channels, 1, outputs, dropout))
