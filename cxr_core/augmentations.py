"""Augmentations on the training device, with parameters drawn for each film, and one interpolation for all geometry."""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from cxr_core.registry import Range, Registry

augmentations = Registry("augmentation")
"""Augmentations by name: `augmentation(films, generator, **hyperparameters)` on (N, 1, H, W) normalised films."""


@augmentations.register("none")
def none(films: Tensor, generator: torch.Generator) -> Tensor:
    """Films as they are."""
    return films


@augmentations.register("affine")
def affine(
    films: Tensor,
    generator: torch.Generator,
    *,
    rotation: Annotated[float, Range(0, 45)] = 7.0,
    shift: Annotated[float, Range(0, 0.5)] = 0.06,
    scale: Annotated[float, Range(0, 0.5)] = 0.08,
    contrast: Annotated[float, Range(0, 0.9)] = 0.1,
    horizontal_flip: bool = False,
) -> Tensor:
    """Rotation (+-degrees), shift (+-share of the side), scale and contrast (+-share), each uniform for each film.

    horizontal_flip mirrors half of the films; it is off unless asked for, because it destroys laterality.
    """

    def uniform(bound: float) -> Tensor:
        draw = torch.rand(len(films), generator=generator, device=films.device)
        return (2 * draw - 1) * bound

    angle, size = uniform(math.radians(rotation)), 1 + uniform(scale)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    mirror = uniform(1.0).sign() if horizontal_flip else torch.ones_like(cos)
    rows = [
        torch.stack([cos * mirror, -sin, 2 * uniform(shift)], 1),
        torch.stack([sin * mirror, cos, 2 * uniform(shift)], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1).to(films.dtype), list(films.shape), align_corners=False)
    moved = grid_sample(films, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved * (1 + uniform(contrast)).to(films.dtype)[:, None, None, None]
