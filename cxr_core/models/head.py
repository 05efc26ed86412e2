"""The end of a network: from feature maps to logits, and the prevalences it can start from."""

from typing import Literal

import torch
from torch import Tensor, nn

from cxr_core.models.registry import Infeasible

Pool = Literal["average", "max", "flatten"]


def classifier(channels: int, grid: int, outputs: int, dropout: float, pool: Pool = "average") -> list[nn.Module]:
    """Layers from (N, channels, grid, grid) features to (N, outputs) logits: a pool, dropout and a linear layer."""
    pools = {"average": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1), "flatten": nn.Identity()}
    features = channels * grid**2 if pool == "flatten" else channels
    return [pools[pool], nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, outputs)]


def last_layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """The layers whose outputs are the logits: one, or one of each head of a network that has several.

    A network names them itself with `get_classifier()`, as timm's do; without it, it is the last linear layer.
    """
    found = model.get_classifier() if hasattr(model, "get_classifier") else model  # type: ignore[operator]
    heads = found if isinstance(found, tuple | list | nn.ModuleList) else [found]
    layers: list[nn.Linear | nn.Conv2d] = []
    for head in heads:
        layers += [layer for layer in head.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1:]
    return layers


def logits_of_prevalence(positives: Tensor, labelled: Tensor) -> Tensor:
    """log(p / (1 - p)) of each finding, (C,), with one film added to either side so that no finding is certain.

    positives, labelled: (C,) counts of the training films.
    """
    present = positives.double()
    return ((present + 1) / (labelled.double() - present + 1)).log().float()


@torch.no_grad()
def set_head_bias(model: nn.Module, logits: Tensor) -> None:
    """Let the findings start near their prevalences, as rare ones should (Lin et al. 2017, arXiv:1708.02002, sec. 3.3).

    logits: (C,), such as `logits_of_prevalence`. Raises Infeasible if the network does not end in a bias for each.
    """
    layers = last_layers(model)
    biases = [layer.bias for layer in layers if layer.bias is not None and layer.bias.shape == logits.shape]
    if not layers or len(biases) < len(layers):
        raise Infeasible(f"head_bias needs a last layer with a bias for each of {len(logits)} findings")
    for bias in biases:
        bias.copy_(logits)
