"""Whether heat maps show what a network has learnt: they must change when its weights become random ones."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata
from torch import Tensor, nn

from cxr_core.explanation.grad_cam import GradCam
from cxr_core.scorecard import finite

_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the layers with weights, those that are random, from the logits down; the first step is the last layer alone."""
_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03
"""Of SSIM's window, in pixels, and its constants (Wang et al. 2004, doi:10.1109/TIP.2003.819861, sec. III.C)."""
_ALIKE = 0.5
"""Mean rank correlation from which on maps of a random network count as those of the trained one."""


def sanity_check(cam: GradCam, fresh: Sequence[nn.Module], films: Tensor, findings: Sequence[int]) -> dict[str, Any]:
    """Compare a trained network's maps with those of ever more random ones (Adebayo et al. 2018, arXiv:1810.03292).

    Compared are maps before they are cut off at zero, so that a map without anything above zero counts, too: by
    Spearman's rank correlation and SSIM, as means over the films and random networks, and by the range of the networks'
    means: of a single one chance would decide whether it likes what the trained one likes.
    fresh: the same network with random weights, several times. films, findings: as `GradCam` takes them.
    """
    trained, steps = cam(films, findings, signed=True), []
    for several in zip(*(_compared(cam, one, trained, films, findings) for one in fresh), strict=True):
        ranks = [rank for _, rank, _ in several if np.isfinite(rank)]
        step = {"random": several[0][0], "spearman": _mean(ranks), "ssim": _mean([like for *_, like in several])}
        steps.append({**step, "low": min(ranks, default=None), "high": max(ranks, default=None)})
    counts = {"films": len(films), "networks": len(fresh)}
    return {**counts, "steps": steps, "sentence": _in_words(steps[-1], len(fresh))}


def _compared(
    cam: GradCam, fresh: nn.Module, trained: np.ndarray, films: Tensor, findings: Sequence[int]
) -> list[tuple[float, float, float]]:
    """Share of random layers, mean rank correlation (NaN if no map has any order) and mean SSIM, step by step."""
    found = []
    for share, model in randomised(cam.model, fresh):
        maps = GradCam(model, films, mirror=cam.mirror, crop=cam.crop, maps=cam.maps)(films, findings, signed=True)
        pairs = list(zip(trained, maps, strict=True))
        ranks = [rank for pair in pairs if np.isfinite(rank := spearman(*pair))]
        likeness = float(np.mean([ssim(*pair) for pair in pairs]))
        found.append((share, float(np.mean(ranks)) if ranks else float("nan"), likeness))
    return found


def randomised(trained: nn.Module, fresh: nn.Module) -> Iterator[tuple[float, nn.Module]]:
    """The network with its last layer random, then ever more of the layers below, then all; one after the other.

    Yields the share of layers with weights that is random. The network is changed in place between two steps.
    """
    model, source = copy.deepcopy(trained), dict(fresh.named_modules())
    layers = [name for name, layer in model.named_modules() if next(layer.parameters(recurse=False), None) is not None]
    layers.reverse()
    counts = dict.fromkeys([1, *(max(1, round(share * len(layers))) for share in _SHARES)])
    done = 0
    for count in counts:
        for name in layers[done:count]:
            _take(model.get_submodule(name), source[name])
        done = count
        yield count / len(layers), model.eval()


@torch.no_grad()
def _take(layer: nn.Module, other: nn.Module) -> None:
    """Give a layer another one's own weights and statistics."""
    for kind in ("named_parameters", "named_buffers"):
        values = dict(getattr(other, kind)(recurse=False))
        for name, value in getattr(layer, kind)(recurse=False):
            value.copy_(values[name])


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation of two maps over their pixels; NaN if one is constant."""
    ranks = [rankdata(each, axis=None) for each in (first, second)]
    if any(np.ptp(each) == 0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of two maps, each scaled to a greatest deviation of 1 from zero; 1 for equal ones."""
    x, y = (each.astype(np.float64) / (np.abs(each).max() or 1.0) for each in (first, second))
    blur = lambda image: gaussian_filter(image, _SIGMA, truncate=3.5)  # noqa: E731
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, both = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = ((k * 2.0) ** 2 for k in (_K1, _K2))  # the maps' range is -1 to 1
    likeness = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _mean(values: Sequence[float]) -> float | None:
    return finite(float(np.mean(values))) if values else None


def _in_words(last: Mapping[str, Any], networks: int) -> str:
    if last["spearman"] is None:
        return "The maps are constant, so nothing can be said of what they depend on."
    said = (
        f"rank correlation {last['spearman']:+.2f}, from {last['low']:+.2f} to {last['high']:+.2f} in {networks} random"
    )
    said += f" networks; SSIM {last['ssim']:.2f}"
    if last["spearman"] < _ALIKE:
        return f"The maps depend on the trained weights: with random ones they become others ({said})."
    return (
        f"The maps hardly depend on the trained weights: with random ones they stay alike ({said}). They show where a "
        "film has structure, not what the network learnt."
    )
