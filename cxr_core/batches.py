"""From cached 8-bit films to normalised batches on the training device."""

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from cxr_core.data.films import Films

_DEVICE_SHARE = 0.5
"""Share of the accelerator's free memory that a split may take; beyond it, films stay in the mmap."""


class Batches:
    """Films of one split, ready for a network on a device.

    On an accelerator the whole split moves there once if it fits; else batches are gathered from the mmap as uint8
    and copied. moments: mean and standard deviation of pixels in [0, 1] for the z-score.
    """

    def __init__(self, films: Films, device: torch.device, moments: tuple[float, float]):
        self.device = device
        self._source = films
        self._mean, self._std = moments
        self._targets = torch.from_numpy(films.targets).to(device)
        self._resident = self._move() if device.type == "cuda" else None

    def _move(self) -> Tensor | None:
        size = len(self._source) * self._source.images[0].nbytes
        free, _ = torch.cuda.mem_get_info(self.device)
        if size > _DEVICE_SHARE * free:
            return None
        return torch.from_numpy(self._source.pixels(np.arange(len(self._source)))).to(self.device)

    def __len__(self) -> int:
        return len(self._source)

    def films(self, index: np.ndarray) -> Tensor:
        """Normalised films, (B, 1, H, W) float32, channels last."""
        if self._resident is not None:
            pixels = self._resident[torch.from_numpy(index).to(self.device)]
        else:
            pixels = torch.from_numpy(self._source.pixels(index))
            if self.device.type == "cuda":
                pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        films = (pixels[:, None].float() - 255 * self._mean) / (255 * self._std)
        return films.contiguous(memory_format=torch.channels_last)

    def targets(self, index: np.ndarray) -> Tensor:
        """Targets, (B, C) float32 in {0, 1, NaN}."""
        return self._targets[torch.from_numpy(index).to(self.device)]

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 where the device gains from it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
