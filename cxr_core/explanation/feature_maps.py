"""Where a network still knows places: the last layer whose output is a map over the film, found by running films."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cxr_core.models import SeveralMaps

Layout = Literal["channels first", "channels last", "tokens"]

_LEAST_GRID = 4
"""Cells along a side below which a map cannot point at anything; an earlier layer is taken where there is one."""
_UNPLACED = (0, 1, 2)
"""Class tokens that a transformer may have in front of those of its patches, where it does not tell."""
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d)


class NoFeatureMap(Exception):
    """No layer of a network gives a map over the film; the message says what was looked for."""


@dataclass(frozen=True)
class FeatureMap:
    """A layer whose output is a map over the film.

    name: as `named_modules` has it. grid: cells along each side. layout: of the output, (N, C, grid, grid),
    (N, grid, grid, C) or (N, unplaced + grid², C). unplaced: tokens of no place (class and register tokens).
    """

    name: str
    grid: int
    layout: Layout
    unplaced: int = 0

    def to_map(self, output: Tensor) -> Tensor:
        """The layer's output as (N, C, grid, grid), without tokens that belong to no place."""
        if self.layout == "channels first":
            return output
        if self.layout == "channels last":
            return output.permute(0, 3, 1, 2)
        placed = output[:, self.unplaced :].transpose(1, 2)
        return placed.reshape(*placed.shape[:2], self.grid, self.grid)

    def from_map(self, maps: Tensor, output: Tensor) -> Tensor:
        """The layer's output with maps of (N, C, grid, grid) in the place of its own."""
        if self.layout == "channels first":
            return maps
        if self.layout == "channels last":
            return maps.permute(0, 2, 3, 1)
        return torch.cat([output[:, : self.unplaced], maps.flatten(2).transpose(1, 2)], 1)


def find_feature_maps(model: nn.Module, films: Tensor) -> list[FeatureMap]:
    """The layers that heat maps are made of; the model is left in evaluation mode.

    Of a network that reads several maps at once (`SeveralMaps`) all of these. Of any other the last layer before
    pooling or flattening through which everything passes that the network knows of a film, and at whose output several
    places change the logits: what follows the last attention to patches, with a class token, does not. A layer whose
    map has fewer than 4 x 4 cells gives way to an earlier one that has more.
    films: a few, normalised, (N, 1, S, S). Raises NoFeatureMap.
    """
    trace = _Trace.of(model.eval(), films)
    declared = [
        layer for module in model.modules() if isinstance(module, SeveralMaps) for layer in module.feature_maps()
    ]
    if declared:
        return [found for one in trace.outputs if any(one.layer is layer for layer in declared) and (found := one.map)]
    coarse = None
    for one in reversed(trace.outputs):
        found = one.map
        is_finer = coarse is None or (found is not None and found.grid >= _LEAST_GRID)
        if not found or not is_finer or not one.matters(found) or not _all_passes(model, films, one.layer):
            continue
        if found.grid >= _LEAST_GRID:
            return [found]
        coarse = found
    if coarse is None:
        raise NoFeatureMap(
            "no layer of this network gives a map over the film through which all that it knows passes; Grad-CAM "
            "explains networks that keep places (convolutions, patches) until they pool or flatten them"
        )
    return [coarse]


@torch.no_grad()
def stages(model: nn.Module, film: Tensor) -> list[tuple[str, Tensor]]:
    """Maps of one film, (C, grid, grid), from the finest to the coarsest grid, each with its layer's name.

    Of a grid they are of the last layer that is no part of another one, or of as few as there are. film: (1, 1, S, S).
    """
    of_grid: dict[int, _Output] = {}
    for one in _Trace.of(model.eval(), film).outputs:
        if found := one.map:
            earlier = of_grid.get(found.grid)
            if earlier is None or one.name.count(".") <= earlier.name.count("."):
                of_grid[found.grid] = one
    last = [of_grid[grid] for grid in sorted(of_grid, reverse=True)]
    return [(one.name, one.map.to_map(one.tensor.detach())[0]) for one in last if one.map]


@dataclass(frozen=True, eq=False)
class _Output:
    """What a layer gave, how the logits depend on it, and the map that it is, if it is one."""

    name: str
    layer: nn.Module
    tensor: Tensor
    gradient: Tensor | None
    map: FeatureMap | None

    def matters(self, found: FeatureMap) -> bool:
        """Whether the logits depend on more than one place of the map."""
        return self.gradient is not None and int(found.to_map(self.gradient).abs().sum((0, 1)).count_nonzero()) > 1


@dataclass(frozen=True, eq=False)
class _Trace:
    """Outputs of all layers that are run once, in the order in which they are ready, those of pools left out."""

    outputs: list[_Output]

    @classmethod
    @torch.enable_grad()
    def of(cls, model: nn.Module, films: Tensor) -> "_Trace":
        given: list[tuple[str, nn.Module, Tensor]] = []
        runs: Counter[str] = Counter()

        def record(name: str, layer: nn.Module, output: object) -> None:
            runs[name] += 1
            if isinstance(output, Tensor):
                given.append((name, layer, output))

        with ExitStack() as hooks:
            for name, layer in model.named_modules():
                hook = lambda module, _, output, name=name: record(name, module, output)  # noqa: E731
                hooks.enter_context(layer.register_forward_hook(hook))
            logits = model(films.detach().clone().requires_grad_())
        pooled = {id(output) for _, layer, output in given if isinstance(layer, _POOLS)}
        kept = [one for one in given if one[0] and runs[one[0]] == 1 and id(one[2]) not in pooled]
        # Weighed, or what moves all findings alike in opposite ways would cancel.
        weights = torch.linspace(1, 2, logits.shape[1], device=logits.device)
        gradients = torch.autograd.grad((logits * weights).sum(), [one[2] for one in kept], allow_unused=True)
        layouts = _layouts(model, [tuple(output.shape) for _, _, output in kept], films.shape[-1])
        found = zip(kept, gradients, layouts, strict=True)
        return cls(
            [
                _Output(name, layer, output, gradient, FeatureMap(name, *layout) if layout else None)
                for (name, layer, output), gradient, layout in found
            ]
        )


def _layouts(model: nn.Module, shapes: list[tuple[int, ...]], side: int) -> Iterator[tuple[int, Layout, int] | None]:
    """Grid, layout and unplaced tokens of each output that may be a map."""
    told = {getattr(module, "num_prefix_tokens", None) for module in model.modules()}
    unplaced = [*sorted(count for count in told if isinstance(count, int)), *_UNPLACED]
    grids: set[int] = set()
    for shape in shapes:
        layout = _layout(shape, unplaced, grids)
        if layout and layout[1] != "tokens":
            grids.add(layout[0])
        yield layout if layout and layout[0] <= side else None


def _layout(shape: tuple[int, ...], unplaced: list[int], grids: set[int]) -> tuple[int, Layout, int] | None:
    """grids: of maps seen so far; tokens are patches of one of them, if there are any."""
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return shape[2], "channels first", 0
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return shape[1], "channels last", 0
    if len(shape) == 3:
        for count in unplaced:
            grid = math.isqrt(max(0, shape[1] - count))
            if grid > 1 and grid**2 == shape[1] - count and (not grids or grid in grids):
                return grid, "tokens", count
    return None


@torch.enable_grad()
def _all_passes(model: nn.Module, films: Tensor, layer: nn.Module) -> bool:
    """Whether cutting the layer's output off cuts the logits off from the films."""
    films = films.detach().clone().requires_grad_()
    with layer.register_forward_hook(lambda module, _, output: output.detach()):
        logits = model(films)
    if not logits.requires_grad:
        return True
    return torch.autograd.grad(logits.sum(), films, allow_unused=True)[0] is None
