"""Optimizers, with no weight decay on norms and biases."""

from typing import Annotated, Any

from torch import nn, optim

from cxr_core.registry import Range, Registry

optimizers = Registry("optimizer")
"""Optimizers by name: `optimizer(model, lr, **hyperparameters)` gives a torch optimizer of the trainable parameters."""


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


@optimizers.register("adamw")
def adamw(model: nn.Module, lr: float, *, weight_decay: Annotated[float, Range(0, 1)] = 0.01) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return optim.AdamW(_groups(model, weight_decay), lr=lr, foreach=True)


@optimizers.register("sgd")
def sgd(
    model: nn.Module,
    lr: float,
    *,
    momentum: Annotated[float, Range(0, 0.999)] = 0.9,
    weight_decay: Annotated[float, Range(0, 1)] = 1e-4,
) -> optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum (Sutskever et al. 2013)."""
    return optim.SGD(_groups(model, weight_decay), lr=lr, momentum=momentum, nesterov=momentum > 0, foreach=True)
