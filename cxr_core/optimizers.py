"""Optimizers, with no weight decay on norms and biases, and a smaller rate for lower layers if asked for."""

from typing import Annotated, Any

from torch import nn, optim

from cxr_core.registry import Range, Registry

optimizers = Registry("optimizer")
"""Optimizers by name: `optimizer(model, lr, **hyperparameters)` gives a torch optimizer of the trainable parameters.

Each of its groups has `lr_scale`, the factor of the learning rate in this group: whoever sets the rate multiplies.
"""

WeightDecay = Annotated[float, Range(0, 1)]

LayerDecay = Annotated[float, Range(0.1, 1)]
"""Factor of the learning rate from each layer to the one below it; the last layer has the full rate (Howard & Ruder
2018, arXiv:1801.06146, sec. 3.2; Clark et al. 2020, arXiv:2003.10555). 1 trains all layers alike. Mind the depth: of
the 60 layers of a DenseNet-121 the lowest has 0.002 of the rate at 0.9, of the 10 of a ResNet-18 it has 0.39."""


@optimizers.register("adam")
def adam(
    model: nn.Module, lr: float, *, weight_decay: WeightDecay = 0.0, layer_decay: LayerDecay = 1.0
) -> optim.Optimizer:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980); weight_decay is an L2 penalty, as published systems that name one
    have it."""
    return optim.Adam(_groups(model, lr, weight_decay, layer_decay), lr=lr, foreach=True)


@optimizers.register("adamw")
def adamw(
    model: nn.Module, lr: float, *, weight_decay: WeightDecay = 0.01, layer_decay: LayerDecay = 1.0
) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return optim.AdamW(_groups(model, lr, weight_decay, layer_decay), lr=lr, foreach=True)


@optimizers.register("sgd")
def sgd(
    model: nn.Module,
    lr: float,
    *,
    momentum: Annotated[float, Range(0, 0.999)] = 0.9,
    nesterov: bool = True,
    weight_decay: WeightDecay = 1e-4,
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Stochastic gradient descent with momentum, Nesterov's or the plain one (Sutskever et al. 2013)."""
    groups = _groups(model, lr, weight_decay, layer_decay)
    return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, foreach=True)


def _groups(model: nn.Module, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters by layer, those that decay apart from those that do not."""
    layers = _layers(model) if layer_decay < 1 else {name: 0 for name, _ in model.named_parameters()}
    exempt = _exempt(model)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in exempt
            members.setdefault((layers[name], decays), []).append(parameter)
    top = max(layers.values(), default=0)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            "lr_scale": layer_decay ** (top - layer),
            "lr": lr * layer_decay ** (top - layer),
        }
        for (layer, decays), parameters in members.items()
    ]


def _exempt(model: nn.Module) -> set[str]:
    """Parameters that a timm network wants without weight decay although they are matrices, such as its positions."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }


def _layers(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter, by name, counted from the input.

    A timm network knows its own. Elsewhere each child is a layer, in order of registration, and each child of a
    Sequential or ModuleList; a child without matrices, such as a norm, belongs to the layer before it.
    """
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters  # seconds to import; a network of timm has done so

        matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
        layers: dict[str, int] = group_parameters(model, matcher, reverse=True)
        return layers
    layers = {name: 0 for name, _ in model.named_parameters(recurse=False)}
    found = 0
    for path, child in model.named_children():
        nested = isinstance(child, nn.Sequential | nn.ModuleList) or hasattr(child, "group_matcher")
        within = _layers(child) if nested else {name: 0 for name, _ in child.named_parameters()}
        new = any(parameter.ndim > 1 for parameter in child.parameters())
        first = found if new else max(0, found - 1)
        layers |= {f"{path}.{name}": first + layer for name, layer in within.items()}
        found = first + 1 + max(within.values()) if new else found
    return layers
