"""The registry of architecture families, and the check that one fits before a worker is used."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxr_core.registry import Chosen, Registry

models = Registry("model")
"""Architecture families by name.

`model(image_size, outputs, dropout, **hyperparameters)` gives a network from (N, 1, image_size, image_size) normalised
films to (N, outputs) logits, with `dropout` before its last linear layer. It raises Infeasible for what cannot work.
"""


class Infeasible(Exception):
    """A configuration that cannot be built or does not fit the films; the message says why."""


@dataclass(frozen=True)
class Footprint:
    """Size of a network: trainable parameters, and floating-point operations of one film's forward pass."""

    parameters: int
    flops: int


def build_model(chosen: Chosen, image_size: int, outputs: int, dropout: float) -> nn.Module:
    """Build the chosen family. Raises Infeasible."""
    model: nn.Module = models.call(chosen, image_size, outputs, dropout)
    return model


def measure_model(chosen: Chosen, image_size: int, outputs: int, dropout: float) -> Footprint:
    """Build the network on the meta device and run a film through it; no memory is used. Raises Infeasible."""
    try:
        with torch.device("meta"):
            model = build_model(chosen, image_size, outputs, dropout).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                logits = model(torch.empty(2, 1, image_size, image_size))
    except RuntimeError as fault:
        raise Infeasible(f"{chosen.name} does not fit {image_size} px films: {str(fault).splitlines()[0]}") from None
    if logits.shape != (2, outputs):
        raise Infeasible(f"{chosen.name} gives {tuple(logits.shape)[1:]} values a film instead of {outputs}")
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Footprint(parameters, counter.get_total_flops() // 2)
