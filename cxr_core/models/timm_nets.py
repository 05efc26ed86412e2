"""Residual and dense networks from timm, with one input channel."""

from typing import Annotated, Any

from torch import nn

from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range

_SMALL_FILM = 64
"""Side in pixels below which a stem's max pooling is left out: it would throw away what little there is."""


def _create(name: str, image_size: int, outputs: int, dropout: float, stem_pool: str, **options: Any) -> nn.Module:
    import timm  # seconds to import, and most configurations do not need it

    model: nn.Module = timm.create_model(name, in_chans=1, num_classes=outputs, drop_rate=dropout, **options)
    if image_size < _SMALL_FILM:
        owner = model.get_submodule(stem_pool.rpartition(".")[0])
        setattr(owner, stem_pool.rpartition(".")[2], nn.Identity())
    return model


@models.register("resnet18")
def resnet18(image_size: int, outputs: int, dropout: float) -> nn.Module:
    """ResNet-18 (He et al. 2016, arXiv:1512.03385)."""
    return _create("resnet18", image_size, outputs, dropout, "maxpool")


@models.register("resnext50_32x4d")
def resnext50_32x4d(image_size: int, outputs: int, dropout: float) -> nn.Module:
    """ResNeXt-50 with 32 groups of 4 channels (Xie et al. 2017, arXiv:1611.05431)."""
    return _create("resnext50_32x4d", image_size, outputs, dropout, "maxpool")


@models.register("densenet121")
def densenet121(
    image_size: int, outputs: int, dropout: float, *, drop_rate: Annotated[float, Range(0, 0.9)] = 0.0
) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017, arXiv:1608.06993); drop_rate is the dropout after each dense layer."""
    if image_size < 16:
        raise Infeasible(f"densenet121 needs films of 16 px or more, not {image_size}")
    return _create("densenet121", image_size, outputs, dropout, "features.pool0", proj_drop_rate=drop_rate)
