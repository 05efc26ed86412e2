"""Augmentations on the training device, with parameters drawn for each film, and one interpolation for all geometry."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from cxr_core.registry import Range, Registry

augmentations = Registry("augmentation")
"""Augmentations by name.

`augmentation(films, generator, **hyperparameters)` takes and gives (N, 1, H, W) films in [0, 1], before normalisation.
The generator is on the films' device.
"""

_ERASED_AREA = (0.02, 0.2)
"""Share of the film's area that is erased; Zhong et al. go up to 0.4 on photographs."""
_ERASED_ASPECT = (0.3, 1 / 0.3)
"""Height over width of what is erased, as published."""

Uniform = Callable[[float, float], Tensor]
"""Draws a number between two bounds for each film, (N,)."""


@augmentations.register("none")
def none(films: Tensor, generator: torch.Generator) -> Tensor:
    """Films as they are."""
    return films


@augmentations.register("standard")
def standard(
    films: Tensor,
    generator: torch.Generator,
    *,
    rotation: Annotated[float, Range(0, 45)] = 7.0,
    rotation_from: Annotated[float | None, Range(-45, 0)] = None,
    shift: Annotated[float, Range(0, 0.5)] = 0.06,
    scale: Annotated[float, Range(0, 0.5)] = 0.08,
    crop: Annotated[float, Range(0, 0.9)] = 0.0,
    horizontal_flip: bool = False,
    equalize: Annotated[float, Range(0, 1)] = 0.0,
    gamma: Annotated[float, Range(0, 2)] = 0.0,
    contrast: Annotated[float, Range(0, 0.9)] = 0.1,
    brightness: Annotated[float, Range(0, 0.9)] = 0.0,
    noise: Annotated[float, Range(0, 0.5)] = 0.0,
    erasing: Annotated[float, Range(0, 1)] = 0.0,
) -> Tensor:
    """What is usual for chest films: geometry in one interpolation, then grey levels, each uniform for each film.

    rotation: degrees to either side; with rotation_from (below 0) from there to rotation, counter-clockwise positive.
    shift: +-share of the side. scale: +-share. crop: a square of 1 - crop to 1 of the side, anywhere, is enlarged.
    horizontal_flip mirrors half of the films; it is off unless asked for, because it destroys laterality.
    equalize: share of films whose histogram is equalised. gamma: exponent exp(+-gamma). contrast: +-share, about the
    film's mean. brightness: +-share of the full range. noise: Gaussian, its standard deviation up to this share of
    the full range. erasing: share of films of which a rectangle becomes the film's mean (Zhong et al. 2017,
    arXiv:1708.04896, with the logarithm of the aspect uniform).
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(films), generator=generator, device=films.device) * (high - low) + low

    turn = (-rotation if rotation_from is None else rotation_from, rotation)
    if any(turn) or shift or scale or crop or horizontal_flip:
        films = _moved(films, uniform, turn, shift, scale, crop, horizontal_flip)
    if equalize:  # first of the grey levels: it undoes what is done to them before
        films = torch.where(_chosen(uniform, equalize), equalized(films), films)
    if gamma:
        films = films ** _each(uniform(-gamma, gamma).exp())
    if contrast or brightness:
        films = _stretched(films, uniform, contrast, brightness)
    if noise:
        grain = torch.randn(films.shape, generator=generator, device=films.device)
        films = films + grain * _each(uniform(0, noise))
    if erasing:
        films = torch.where(_chosen(uniform, erasing) & _rectangles(films, uniform), _mean(films), films)
    return films.clamp(0, 1)


def _each(values: Tensor) -> Tensor:
    """One value of each film, (N,), as (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _mean(films: Tensor) -> Tensor:
    return films.mean((1, 2, 3), keepdim=True)


def _chosen(uniform: Uniform, share: float) -> Tensor:
    return _each(uniform(0, 1) < share)


def _moved(
    films: Tensor,
    uniform: Uniform,
    turn: tuple[float, float],
    shift: float,
    scale: float,
    crop: float,
    horizontal_flip: bool,
) -> Tensor:
    """Films turned and scaled about their middle and shifted; of that a square is cropped, enlarged and mirrored.

    Where a film ends, its border goes on. Distances are in half sides, as in `affine_grid`.
    """
    zero = films.new_zeros(len(films))
    angle = uniform(*map(math.radians, turn)) if any(turn) else zero
    size = 1 + uniform(-scale, scale) if scale else zero + 1
    across, down = (2 * uniform(-shift, shift) if shift else zero for _ in range(2))
    side = uniform(1 - crop, 1) if crop else zero + 1
    left, top = (uniform(-1, 1) * (1 - side) if crop else zero for _ in range(2))
    mirror = torch.where(uniform(0, 1) < 0.5, -side, side) if horizontal_flip else side
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    rows = [
        torch.stack([cos * mirror, -sin * side, cos * left - sin * top + across], 1),
        torch.stack([sin * mirror, cos * side, sin * left + cos * top + down], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1), list(films.shape), align_corners=False)
    return grid_sample(films, grid, mode="bilinear", padding_mode="border", align_corners=False)


def equalized(films: Tensor) -> Tensor:
    """Equalise each film's histogram on 256 levels, as Pillow and torchvision do; films with one level stay.

    films: (N, 1, H, W) in [0, 1], rounded to levels of 1/255.
    """
    levels = (films * 255).round().long().flatten(1)
    count = torch.zeros(len(films), 256, dtype=torch.long, device=films.device)
    count.scatter_add_(1, levels, torch.ones_like(levels))
    darker = count.cumsum(1) - count
    brightest = count.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - brightest) // 255  # pixels for each new level
    new = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    new = torch.where(step > 0, new, torch.arange(256, device=films.device))
    return (new / 255).to(films.dtype).gather(1, levels).view_as(films)


def _stretched(films: Tensor, uniform: Uniform, contrast: float, brightness: float) -> Tensor:
    mean = _mean(films)
    stretch = _each(1 + uniform(-contrast, contrast)) if contrast else 1.0
    lift = _each(uniform(-brightness, brightness)) if brightness else 0.0
    return films * stretch + (mean * (1 - stretch) + lift)


def _rectangles(films: Tensor, uniform: Uniform) -> Tensor:
    """Where each film's rectangle lies, (N, 1, H, W) bool; it is always whole, for the largest fits any aspect."""
    area, aspect = uniform(*_ERASED_AREA), uniform(*map(math.log, _ERASED_ASPECT)).exp()

    def inside(length: Tensor, pixels: int) -> Tensor:
        start = uniform(0, 1) * (1 - length)
        centre = (torch.arange(pixels, device=films.device) + 0.5) / pixels
        return (centre >= start[:, None]) & (centre < (start + length)[:, None])

    rows = inside((area * aspect).sqrt(), films.shape[2])
    columns = inside((area / aspect).sqrt(), films.shape[3])
    return rows[:, None, :, None] & columns[:, None, None, :]
