"""torch.compile for a training, which goes on without it where it cannot be had."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Compiled:
    """A network's forward pass through torch.compile; the plain one, with a warning, where compilation fails.

    It shares the network's parameters, so weights are saved and loaded without a trace of it.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._forward: Any = torch.compile(model)

    def __call__(self, films: Tensor) -> Any:
        from torch._dynamo.exc import BackendCompilerFailed  # seconds to import; torch.compile needs it anyway

        try:
            return self._forward(films)
        except BackendCompilerFailed as fault:
            reason = next(iter(str(fault).splitlines()), type(fault).__name__)
            log.warning(
                "compile: true has no effect, torch.compile failed (%s); it needs a C++ compiler such as g++, "
                "and Triton on a GPU. Going on without it: only slower",
                reason,
            )
            self._forward = self._model
        return self._forward(films)
