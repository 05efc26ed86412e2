"""The registry of architecture families, and the check that one fits before a worker is used."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cxr_core.registry import Chosen, Registry, Scalar

models = Registry("model")
"""Architecture families by name.

`model(image_size, outputs, dropout, **hyperparameters)` gives a network from (N, 1, image_size, image_size) normalised
films to (N, outputs) logits, with `dropout` before its last linear layer. In training it may give `WithAuxiliary`
instead, in evaluation never. A family only builds: it loads no weights (see `Pretrained`). It raises Infeasible for
what cannot work.
"""


class Infeasible(Exception):
    """A configuration that cannot be built or does not fit the films; the message says why."""


class WithAuxiliary(NamedTuple):
    """What a network with an auxiliary classifier gives in training: the loss is loss(logits) + weight loss(auxiliary).

    logits, auxiliary: (N, C).
    """

    logits: Tensor
    auxiliary: Tensor
    weight: float


@runtime_checkable
class Pretrained(Protocol):
    """A network that can start from weights trained elsewhere."""

    def check_pretrained(self) -> None:
        """Look, without network and without reading them, whether there are such weights. Raises Infeasible."""
        ...

    def load_pretrained(self) -> None:
        """Take the weights over, or do nothing if none are asked for. Raises Infeasible, with what to do."""
        ...


@runtime_checkable
class SeveralMaps(Protocol):
    """A network, or a part of one, whose head reads several feature maps side by side."""

    def feature_maps(self) -> list[nn.Module]:
        """The layers whose outputs, maps over the film, are pooled or flattened for the head."""
        ...


@dataclass(frozen=True)
class Footprint:
    """Size of a network: trainable parameters, and floating-point operations of one film's forward pass."""

    parameters: int
    flops: int


def build_model(
    chosen: Chosen, image_size: int, outputs: int, dropout: float, *, crop: int | None = None, pretrained: bool = True
) -> nn.Module:
    """Build the chosen family, with the pretrained weights that it asks for. Raises Infeasible.

    crop: side of the central square that the network looks at, None for the whole film. pretrained: False leaves the
    weights out, for a network whose weights are replaced anyway; nothing is read then.
    """
    if crop and crop > image_size:
        raise Infeasible(f"a central crop of {crop} px does not fit films of {image_size} px")
    model: nn.Module = models.call(chosen, crop or image_size, outputs, dropout)
    if crop:
        model.register_forward_pre_hook(partial(_crop, side=crop))
    if pretrained and isinstance(model, Pretrained):
        model.load_pretrained()
    return model


def _crop(model: nn.Module, films: tuple[Tensor], side: int) -> tuple[Tensor]:
    margin = (films[0].shape[-1] - side) // 2
    return (films[0][..., margin : margin + side, margin : margin + side],)


def measure_model(
    chosen: Chosen, image_size: int, outputs: int, dropout: float, *, crop: int | None = None
) -> Footprint:
    """Build the network on the meta device and run a film through it, without memory, weights or network.

    The dropout changes nothing of it. Raises Infeasible.
    """
    return _measure(chosen.name, tuple(sorted(chosen.params.items())), image_size, outputs, crop)


@lru_cache(maxsize=1024)  # a search proposes the same network again and again, with other settings around it
def _measure(
    family: str, params: tuple[tuple[str, Scalar], ...], image_size: int, outputs: int, crop: int | None
) -> Footprint:
    name = dict(params).get("name", family)
    try:
        with torch.device("meta"):
            chosen = Chosen(family, dict(params))
            model = build_model(chosen, image_size, outputs, 0.0, crop=crop, pretrained=False).eval()
            parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
            model.requires_grad_(False)  # else the counter follows weights that are passed between modules, and fails
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                logits = model(torch.empty(2, 1, image_size, image_size))
        if isinstance(model, Pretrained):
            model.check_pretrained()
    except (RuntimeError, AssertionError, ValueError) as fault:  # what torch's and timm's layers refuse a size with
        reason = next(iter(str(fault).splitlines()), type(fault).__name__)
        raise Infeasible(f"{name} does not fit {image_size} px films: {reason}") from None
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (2, outputs):
        raise Infeasible(f"{name} gives {shape[1:]} values a film instead of {outputs}")
    return Footprint(parameters, counter.get_total_flops() // 2)
