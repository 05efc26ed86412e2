"""Test-time augmentation: the views of a film whose probabilities are averaged."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """What a network is shown of each film: the film as it is, and what is asked for beyond.

    mirror: its mirror image. zoom: smaller pictures of it, in which the film's side is divided by 1 + zoom / 2 and by
    1 + zoom; beyond its border the film goes on as it is there. Nothing of the film is cut off in any view.
    """

    mirror: bool = False
    zoom: float = 0.0

    @property
    def count(self) -> int:
        """How many views there are of a film."""
        return (3 if self.zoom else 1) * (2 if self.mirror else 1)

    def of(self, films: Tensor) -> list[Tensor]:
        """The views of (N, 1, S, S) films, each of that shape, the films as they are first."""
        views = [films]
        if self.zoom:
            views += [_reduced(films, 1 + self.zoom / 2), _reduced(films, 1 + self.zoom)]
        return views + [view.flip(-1) for view in views] if self.mirror else views

    def __str__(self) -> str:
        """What probabilities are the mean over, in words; empty where there is one view."""
        smaller = f"two pictures of it, its side divided by up to {1 + self.zoom:g}" if self.zoom else ""
        if smaller and self.mirror:
            return f"the film, {smaller}, and the mirror images of these"
        return f"the film and {smaller or 'its mirror image'}" if self.count > 1 else ""


def _reduced(films: Tensor, by: float) -> Tensor:
    """Films in which everything is smaller, about the centre; bilinear. As products of matrices any runtime has it."""
    side = films.shape[-1]
    pixels = torch.arange(side, device=films.device, dtype=films.dtype)
    centre = (side - 1) / 2
    seen = (centre + by * (pixels - centre)).clamp(0, side - 1)
    weights = (1 - (seen[:, None] - pixels).abs()).clamp(min=0)
    return weights @ films @ weights.T
