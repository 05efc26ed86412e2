"""Stressed validation: how a network stands films that are taken a little differently, under declared changes.

A validation split at its ceiling cannot tell networks apart, and one that resembles the training says little of other
hospitals. Under mild changes, none of which hides a finding, networks differ again (Hendrycks & Dietterich 2019,
arXiv:1903.12261, for photographs).
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from cxr_core.batches import Batches
from cxr_core.evaluate import Transform, predict
from cxr_core.metrics import OBJECTIVES, STRESSED, macro, per_label
from cxr_core.normalisations import Normalisation
from cxr_core.views import Views

_GRAINS = 16
"""Patterns of noise; which one a film gets depends on the film alone, not on its place in a batch."""


def _gamma(films: Tensor, exponent: float) -> Tensor:
    return films**exponent


def _contrast(films: Tensor, factor: float) -> Tensor:
    mean = films.mean((1, 2, 3), keepdim=True)
    return (mean + factor * (films - mean)).clamp(0, 1)


def _blurred(films: Tensor) -> Tensor:
    sigma = max(0.6, 0.006 * films.shape[-1])
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, device=films.device, dtype=films.dtype)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).view(1, 1, 1, -1)
    films = pad(films, (reach,) * 4, mode="replicate")
    return conv2d(conv2d(films, weights), weights.transpose(2, 3))


def _noisy(films: Tensor, deviation: float) -> Tensor:
    grains = _grains(films.shape[-1]).to(films.device)
    which = (films * 255).round().sum((1, 2, 3), dtype=torch.float64).long() % _GRAINS
    return (films + deviation * grains[which]).clamp(0, 1)


@lru_cache(maxsize=2)
def _grains(side: int) -> Tensor:
    """Drawn on the CPU, so that they are the same on every device."""
    return torch.randn((_GRAINS, 1, side, side), generator=torch.Generator().manual_seed(0))


def _moved(films: Tensor, side: float, shift: float) -> Tensor:
    """The central square of a share of the side, enlarged, or the films moved; beyond a border it goes on."""
    rows = films.new_tensor([[side, 0, 2 * shift], [0, side, 2 * shift]]).expand(len(films), 2, 3)
    grid = affine_grid(rows, list(films.shape), align_corners=False)
    return grid_sample(films, grid, mode="bilinear", padding_mode="border", align_corners=False)


CHANGES: dict[str, Transform] = {
    "overexposed": lambda films: _gamma(films, 1.4),
    "underexposed": lambda films: _gamma(films, 0.7),
    "flat": lambda films: _contrast(films, 0.7),
    "blurred": _blurred,
    "noisy": lambda films: _noisy(films, 0.04),
    "cropped": lambda films: _moved(films, 0.9, 0.0),
    "shifted": lambda films: _moved(films, 1.0, 0.05),
}
"""Changes of (N, 1, S, S) films in [0, 1], deterministic and the same on every device.

overexposed, underexposed: grey levels to the power of 1.4 and 0.7 (what is exposed is dark). flat: contrast about the
film's mean times 0.7. blurred: Gaussian, standard deviation 0.6 px or 0.6 % of the side, whichever is more. noisy:
Gaussian, standard deviation 4 % of the full range. cropped: the central square of 90 % of the side, enlarged. shifted:
by 5 % of the side up and to the left.
"""


def stressed_metrics(
    model: nn.Module, films: Batches, normalise: Normalisation, targets: np.ndarray, *, views: Views
) -> dict[str, float]:
    """The metrics of STRESSED, and each under each change, such as `auroc_macro_blurred`; NaN where undefined.

    films, normalise: on one device. targets: (N, C) in {0, 1, NaN}. views: of a film that was changed. Takes as long as
    predicting the films, with these views, 7 times.
    """
    metrics: dict[str, float] = {}
    for change_name, change in CHANGES.items():
        scores = predict(model, films, normalise, views=views, change=change)
        for metric in STRESSED.values():
            metrics[f"{metric}_{change_name}"] = macro(per_label(OBJECTIVES[metric], targets, scores))
    for stressed, metric in STRESSED.items():
        metrics[stressed] = float(np.mean([metrics[f"{metric}_{name}"] for name in CHANGES]))
    return metrics
