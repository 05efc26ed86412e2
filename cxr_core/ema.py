"""Moving average of a network's weights."""

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of weights and of batch-norm statistics.

    The decay rises from 0.1 to its value in the first steps, as (1 + updates) / (10 + updates), so that the random
    initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floats = [(mean, new) for mean, new in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floats], [new for _, new in floats], 1 - decay)
