"""Normalisations: from pixels in [0, 1] to what a network is given, fitted on the training films alone."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cxr_core.data.films import TrainingData
from cxr_core.registry import Registry


@dataclass(frozen=True, eq=False)
class Normalisation:
    """(films - offset) / scale, for (N, 1, H, W) films in [0, 1]; offset is one number, or one of each pixel (H, W)."""

    offset: Tensor
    scale: float

    def __call__(self, films: Tensor) -> Tensor:
        return (films - self.offset) / self.scale

    def to(self, device: torch.device) -> "Normalisation":
        return Normalisation(self.offset.to(device), self.scale)

    def state_dict(self) -> dict[str, Any]:
        return {"offset": self.offset.cpu(), "scale": self.scale}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], image_size: int) -> "Normalisation":
        """Raises KeyError if something is missing, ValueError if it is no normalisation of films of this size."""
        offset, scale = state["offset"], state["scale"]
        if not isinstance(offset, Tensor) or not isinstance(scale, float):
            raise ValueError("the normalisation")
        fits = offset.shape in ((), (image_size, image_size)) and offset.dtype == torch.float32
        if not fits or not offset.isfinite().all() or not 0 < scale < math.inf:
            raise ValueError("the normalisation")
        return cls(offset, scale)


normalisations = Registry("normalisation")
"""Normalisations by name: `normalisation(data)` gives the `Normalisation` that fits the training films."""


@normalisations.register("unit")
def unit(data: TrainingData) -> Normalisation:
    """Pixels as they are, in [0, 1]."""
    return Normalisation(torch.tensor(0.0), 1.0)


@normalisations.register("zscore")
def zscore(data: TrainingData) -> Normalisation:
    """The training films' mean becomes 0 and their standard deviation 1."""
    pixels = data.pixel_statistics
    return Normalisation(torch.tensor(pixels.mean, dtype=torch.float32), pixels.std)


@normalisations.register("imagenet")
def imagenet(data: TrainingData) -> Normalisation:
    """What networks trained on ImageNet expect, with its means and deviations averaged over the three colours."""
    return Normalisation(torch.tensor(0.449), 0.226)


@normalisations.register("mean_image")
def mean_image(data: TrainingData) -> Normalisation:
    """The training films' mean film is subtracted; the standard deviation around it becomes 1."""
    pixels = data.pixel_statistics
    return Normalisation(torch.from_numpy(pixels.mean_image).float(), pixels.std_around_mean_image)
