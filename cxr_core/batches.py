"""From cached 8-bit films to batches in [0, 1] on the training device."""

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from cxr_core.data.films import Films

_DEVICE_SHARE = 0.5
"""Share of the accelerator's free memory that a split may take; beyond it, films stay in the mmap."""
_MOVED_TOGETHER = 256
"""Films copied at a time to where the whole split will live: pinned memory stays small."""


class Batches:
    """Films of one split, ready for a network on a device.

    On an accelerator the whole split moves there once if it fits; else batches are gathered from the mmap as uint8
    and copied while the device computes.
    """

    def __init__(self, films: Films, device: torch.device):
        self.device = device
        self._source = films
        self._targets = torch.from_numpy(films.targets).to(device)
        self._resident = self._move() if device.type == "cuda" else None

    def _move(self) -> Tensor | None:
        shape = (len(self), *self._source.images.shape[1:])
        free, total = torch.cuda.mem_get_info(self.device)
        # Of a GPU shared by several processes, this one may be allowed a part only.
        free = min(free, int(torch.cuda.get_per_process_memory_fraction(self.device) * total))
        if np.prod(shape) > _DEVICE_SHARE * free:
            return None
        resident = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(self), _MOVED_TOGETHER):
            index = np.arange(start, min(start + _MOVED_TOGETHER, len(self)))
            resident[start : start + len(index)] = self._gather(index)
        return resident

    def __len__(self) -> int:
        return len(self._source)

    def films(self, index: np.ndarray) -> Tensor:
        """Films in [0, 1], (B, 1, H, W) float32, the caller's own."""
        pixels = self._gather(index) if self._resident is None else self._resident[self._upload(index)]
        return pixels[:, None].float().div_(255)

    def targets(self, index: np.ndarray) -> Tensor:
        """Targets, (B, C) float32 in {0, 1, NaN}."""
        return self._targets[self._upload(index)]

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 where the device gains from it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    # Only pinned memory is copied without waiting for the device. It comes from PyTorch's cache of pinned blocks,
    # which gives a block away again only after the copy out of it is done.

    def _gather(self, index: np.ndarray) -> Tensor:
        pinned = self.device.type == "cuda"
        shape = (len(index), *self._source.images.shape[1:])
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        self._source.pixels(index, out=pixels.numpy())
        return pixels.to(self.device, non_blocking=pinned)

    def _upload(self, index: np.ndarray) -> Tensor:
        positions = torch.from_numpy(index)
        if self.device.type == "cuda":
            positions = positions.pin_memory()
        return positions.to(self.device, non_blocking=True)
