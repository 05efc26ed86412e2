"""One network of timm, fitted to our films: its channels, its stem, its pretrained weights and what of it is frozen."""

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cxr_core.models.head import last_layers
from cxr_core.models.registry import Infeasible

# timm takes a second to import, and many configurations do not need it: it is imported where it is used.

_SMALL_FILM = 64
"""Side in pixels below which a stem keeps a finer grid: it would throw away what little there is."""

_LEAST = {"inception_v3": 75, "inception_v4": 75, "inception_resnet_v2": 75, "densenet": 16}
"""Smallest films in pixels, by the beginning of the name, where the layers' own complaint would be obscure."""

_GREY = (0.449, 0.226)
"""Mean and deviation of `normalize: imagenet`: ImageNet's, averaged over the colours."""


def name_complaint(name: str) -> str | None:
    """What is wrong with the name of a timm network, with the nearest ones; None if it exists. Needs no network."""
    import timm

    family, _, tag = name.partition(".")
    known = timm.list_models(f"{family}.*", include_tags=True) if tag else timm.list_models()
    if name in known or (tag and not known and family in timm.list_models()):
        return None if name in known else f"timm has no weights {tag!r} of {family}"
    nearest = difflib.get_close_matches(name, known or timm.list_models(), 3)
    hint = f"; did you mean {', '.join(map(repr, nearest))}?" if nearest else "; timm.list_models() lists them"
    return f"timm has no network {name!r}{hint}"


class _Channels(nn.Module):
    """From grey films, normalised with ImageNet's average mean and deviation, to the network's own normalisation."""

    gain: Tensor
    offset: Tensor

    def __init__(self, means: tuple[float, ...], deviations: tuple[float, ...]):
        super().__init__()
        mean, deviation = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (means, deviations))
        # Not saved: they follow from the name.
        self.register_buffer("gain", (_GREY[1] / deviation).float(), persistent=False)
        self.register_buffer("offset", ((_GREY[0] - mean) / deviation).float(), persistent=False)

    def forward(self, films: Tensor) -> Tensor:
        return films * self.gain + self.offset


class TimmNet(nn.Module):
    """A network of timm between films of one channel and the findings' logits.

    net: timm's module. Batch norms of frozen layers stay in evaluation mode in training, too: else their statistics
    would go on learning.
    """

    def __init__(self, create: Callable[..., nn.Module], channels: nn.Module, pretrained: str, freeze_until: str):
        super().__init__()
        # So that weights can be loaded over the same random start, which shows what they leave out.
        self._start = torch.get_rng_state()
        self._create, self._pretrained = create, pretrained
        self.channels = channels
        self.net = create()
        self._frozen = _frozen_layers(self.net, freeze_until)
        self._freeze()

    def forward(self, films: Tensor) -> Tensor:
        logits: Tensor = self.net(self.channels(films))
        return logits

    def get_classifier(self) -> Any:
        """The last layer of timm's network, or all of them."""
        return self.net.get_classifier()  # type: ignore[operator]

    def train(self, mode: bool = True) -> "TimmNet":
        super().train(mode)
        for layer in map(self.net.get_submodule, self._frozen):
            if hasattr(layer, "running_mean"):
                layer.eval()
        return self

    def _freeze(self) -> None:
        for layer in map(self.net.get_submodule, self._frozen):
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train(self.training)

    def check_pretrained(self) -> None:
        """Look whether the weights' file is there. Raises Infeasible."""
        if self._pretrained not in ("none", "imagenet") and not Path(self._pretrained).is_file():
            raise Infeasible(f"{self._pretrained}: no such file of weights (pretrained: imagenet, none or a file)")

    def load_pretrained(self) -> None:
        """Take the weights over from the hub's cache, the network or a file. Raises Infeasible."""
        if self._pretrained == "none":
            return
        self.check_pretrained()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._start)
            net = self._load()
        spared = {id(parameter) for layer in last_layers(net) for parameter in layer.parameters()}
        fresh, weights = dict(self.net.named_parameters()), 0
        left: list[str] = []
        for key, weight in net.named_parameters():
            if id(weight) not in spared and weight.ndim > 1 and weight.min() < weight.max():
                weights += 1
                left += [key] * bool(weight.equal(fresh[key]))
        if len(left) > weights / 10:  # a few may be fixed, such as sines and cosines of positions
            raise Infeasible(
                f"{self._pretrained}: not weights of {self._name} ({len(left)} of {weights} layers, such as {left[0]}, "
                "are not in it)"
            )
        self.net = net
        self._freeze()

    def _load(self) -> nn.Module:
        name, file = self._name, self._pretrained
        try:
            if file == "imagenet":
                return self._create(pretrained=True)
            return self._create(pretrained=True, pretrained_cfg_overlay={"file": file})
        except Exception as fault:  # whatever the network, the hub or a damaged file raises
            reason = " ".join(str(fault).split())[:200] or type(fault).__name__
            if file != "imagenet":
                raise Infeasible(f"{file}: cannot be loaded into {name} ({reason})") from None
            raise Infeasible(
                f"{name}: its pretrained weights are not in the Hugging Face cache (HF_HOME) and could not be fetched "
                f"({reason}); fetch them once where there is a network, or give a file: pretrained: FILE.safetensors"
            ) from None

    @property
    def _name(self) -> str:
        return str(self._create.keywords["name"])  # type: ignore[attr-defined]


def _frozen_layers(net: nn.Module, until: str) -> list[str]:
    """Names of all layers before `until`, in the order of definition; of all but the last one if it is "head"."""
    if not until:
        return []
    names = [name for name, _ in net.named_modules()]
    if until == "head":
        last = {id(layer) for layer in last_layers(net)}
        return [name for name, layer in net.named_modules() if id(layer) not in last]
    if until not in names[1:]:
        nearest = difflib.get_close_matches(until, names[1:], 3)
        hint = f"; did you mean {', '.join(map(repr, nearest))}?" if nearest else ""
        raise Infeasible(f"freeze_until: the network has no layer {until!r}{hint}")
    return names[: names.index(until)]


def timm_net(
    name: str,
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    pretrained: str = "none",
    freeze_until: str = "",
    channels: Literal[1, 3] = 1,
    residual_scale: float | None = None,
    **options: Any,
) -> TimmNet:
    """Build a timm network, not yet with its pretrained weights; options go to timm. Raises Infeasible."""
    import timm

    if complaint := name_complaint(name):
        raise Infeasible(complaint)
    for family, least in _LEAST.items():
        if name.startswith(family) and image_size < least:
            raise Infeasible(f"{name} needs films of {least} px or more, not {image_size}")
    if pretrained == "imagenet" and not timm.models.is_model_pretrained(name):
        raise Infeasible(f"{name}: timm has no pretrained weights of it; use pretrained: none, or a file")
    if freeze_until and pretrained == "none":
        raise Infeasible(f"{name}: freeze_until without pretrained weights would freeze random ones")
    create = partial(
        _create,
        name=name,
        image_size=image_size,
        residual_scale=residual_scale,
        in_chans=channels,
        num_classes=outputs,
        drop_rate=dropout,
        **options,
    )
    return TimmNet(create, _channels(name, channels, pretrained), pretrained, freeze_until)


def _channels(name: str, channels: int, pretrained: str) -> nn.Module:
    import timm

    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or (channels == 1 and pretrained == "none"):
        return nn.Identity()
    means, deviations = tuple(cfg.mean), tuple(cfg.std)
    if channels == 1:  # timm adds the weights of the three colours up, which then all see the same
        means, deviations = (sum(means) / len(means),), (sum(deviations) / len(deviations),)
    return _Channels(means, deviations)


def _create(*, name: str, image_size: int, residual_scale: float | None, **options: Any) -> nn.Module:
    import timm

    cfg = timm.models.get_pretrained_cfg(name)
    fixed = cfg is not None and cfg.fixed_input_size
    try:
        net: nn.Module = timm.create_model(name, **options, **({"img_size": image_size} if fixed else {}))
    except TypeError as fault:
        if "drop_path_rate" in str(fault):
            raise Infeasible(f"{name} takes no drop_path") from None
        raise
    _check_patches(name, net, image_size)
    if image_size < _SMALL_FILM and not fixed:
        _refine_stem(net, cfg.first_conv if cfg else None)
    if residual_scale is not None:
        _set_residual_scale(name, net, residual_scale)
    return net


def _check_patches(name: str, net: nn.Module, image_size: int) -> None:
    embedding = getattr(net, "patch_embed", None)
    if getattr(embedding, "strict_img_size", False) and not getattr(embedding, "dynamic_img_pad", False):
        side = embedding.patch_size[0]  # type: ignore[union-attr]
        if image_size % side:
            raise Infeasible(f"{name} cuts films into patches of {side} px, and {image_size} px is no multiple of it")


def _refine_stem(net: nn.Module, first_conv: Any) -> None:
    """Leave out the stem's max pooling; where there is none, halve the stride of the first convolution."""
    for pool in ("maxpool", "features.pool0"):
        owner, _, attribute = pool.rpartition(".")
        parent = net.get_submodule(owner) if not owner or hasattr(net, owner) else None
        if isinstance(getattr(parent, attribute, None), nn.MaxPool2d | nn.Sequential):
            setattr(parent, attribute, nn.Identity())
            return
    layer = net.get_submodule(first_conv) if isinstance(first_conv, str) else None
    if isinstance(layer, nn.Conv2d) and layer.stride in ((2, 2), (4, 4)):
        layer.stride = (layer.stride[0] // 2, layer.stride[1] // 2)


def _set_residual_scale(name: str, net: nn.Module, scale: float) -> None:
    """All blocks get the same; timm fixes 0.17, 0.10 and 0.20 on the three grids, and 1 in the last block."""
    from timm.models.inception_resnet_v2 import InceptionResnetV2

    if not isinstance(net, InceptionResnetV2):
        raise Infeasible(f"{name} has no residual_scale; inception_resnet_v2 has")
    for block in net.modules():
        if hasattr(block, "scale"):
            block.scale = scale
