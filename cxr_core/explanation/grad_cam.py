"""Grad-CAM: which parts of a film speak for a finding, by captum, for any network that keeps places."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cxr_core.explanation.feature_maps import FeatureMap, find_feature_maps

_TOGETHER = 8
"""Films whose gradients are held at a time."""


class GradCam:
    """Heat maps of a network (Selvaraju et al. 2017, arXiv:1610.02391).

    A map is the sum of a layer's channels, each weighed by the mean gradient of the finding's logit, cut off at zero,
    and enlarged to the film bilinearly. A network that reads several maps at once has the sum of theirs, each weighed
    by its number of cells, so that evidence per area adds up.
    """

    def __init__(
        self,
        model: nn.Module,
        films: Tensor,
        *,
        mirror: bool = False,
        crop: int | None = None,
        maps: Sequence[FeatureMap] | None = None,
    ):
        """Find the layers, unless `maps` tells them. Raises NoFeatureMap.

        films: a few, normalised, on the model's device, (N, 1, S, S). mirror: the mean of a film's map and its mirror
        image's, where probabilities are such means; of smaller views (`Views.zoom`) there are none. crop: side of the
        central square that the model cuts out itself.
        """
        self.model, self.mirror, self.crop = model.eval(), mirror, crop
        self.maps = list(maps or find_feature_maps(model, films))

    def __call__(self, films: Tensor, findings: Sequence[int], *, signed: bool = False) -> np.ndarray:
        """Heat maps of films, each for one finding, (N, S, S) float32; 0 where nothing speaks for the finding.

        films: (N, 1, S, S), normalised. findings: (N,) indices of logits. signed: keep what speaks against it, below 0.
        """
        maps = []
        for start in range(0, len(films), _TOGETHER):
            some, of = films[start : start + _TOGETHER], list(findings[start : start + _TOGETHER])
            heat = self._heat(some, of, signed)
            if self.mirror:
                heat = (heat + self._heat(some.flip(-1), of, signed).flip(-1)) / 2
            maps.append(heat.cpu().numpy())
        return np.concatenate(maps) if maps else np.zeros((0, *films.shape[2:]), np.float32)

    def _heat(self, films: Tensor, findings: list[int], signed: bool) -> Tensor:
        from captum.attr import LayerAttribution  # type: ignore[import-untyped]  # seconds to import

        side = self.crop or films.shape[-1]
        heat = torch.zeros(len(films), 1, side, side, device=films.device)
        for feature_map in self.maps:
            cells = self._attribute(feature_map, films, findings, signed)
            share = feature_map.grid**2 if len(self.maps) > 1 else 1
            heat += share * LayerAttribution.interpolate(cells, (side, side), "bilinear")
        margin = films.shape[-1] - side
        return pad(heat, (margin // 2, margin - margin // 2) * 2)[:, 0]

    def _attribute(self, feature_map: FeatureMap, films: Tensor, findings: list[int], signed: bool) -> Tensor:
        """Grad-CAM of the layer's cells, (N, 1, grid, grid)."""
        from captum.attr import LayerGradCam

        # captum takes the second axis for channels, and must be given a layer: this one lies, for the time being,
        # behind the network's own, and is given its output as a map. It hands on a copy, which an activation that
        # follows may change in place.
        cells = nn.Identity()

        def through(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            return feature_map.from_map(cells(feature_map.to_map(output)), output)

        with self.model.get_submodule(feature_map.name).register_forward_hook(through):
            cam = LayerGradCam(self.model, cells)
            found: Tensor = cam.attribute(films, target=findings, relu_attributions=not signed)
        return found.detach()
