"""Networks from timm: any of them by its name, and those of published comparisons as families of their own."""

from typing import Annotated, Any, Literal

from torch import nn

from cxr_core.models.registry import models
from cxr_core.models.timm_net import name_complaint, timm_net
from cxr_core.registry import Check, Range

DropRate = Annotated[float, Range(0, 0.9)]


@models.register("timm")
def by_name(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    name: Annotated[str, Check(name_complaint)] = "convnext_tiny",
    pretrained: str = "none",
    freeze_until: str = "",
    channels: Literal[1, 3] = 1,
    drop_path: Annotated[float, Range(0, 0.9)] = 0.0,
    residual_scale: Annotated[float | None, Range(0.01, 1.0)] = None,
) -> nn.Module:
    """Any network of timm by its name, such as vit_small_patch16_224 or resnet34.a1_in1k.

    pretrained: `imagenet` (from the Hugging Face hub or its cache), a file of weights (.pth, .safetensors), or `none`.
    freeze_until: name of the first layer that is trained, such as `layer4` or `blocks.6`; `head` trains the last
    layer only. channels: 1 adds the pretrained first layer's colours up, 3 repeats the film, coloured so that with
    `normalize: imagenet` the network sees exactly what it was trained with. drop_path: stochastic depth.
    residual_scale: of all blocks of inception_resnet_v2.

    Below 64 px the stem's max pooling is left out or, where there is none, the first convolution's stride is halved.
    """
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    return timm_net(
        name,
        image_size,
        outputs,
        dropout,
        pretrained=pretrained,
        freeze_until=freeze_until,
        channels=channels,
        residual_scale=residual_scale,
        **options,
    )


@models.register("resnet18")
def resnet18(
    image_size: int, outputs: int, dropout: float, *, pretrained: str = "none", freeze_until: str = ""
) -> nn.Module:
    """ResNet-18 (He et al. 2016, arXiv:1512.03385)."""
    return timm_net("resnet18", image_size, outputs, dropout, pretrained=pretrained, freeze_until=freeze_until)


@models.register("resnet50")
def resnet50(
    image_size: int, outputs: int, dropout: float, *, pretrained: str = "none", freeze_until: str = ""
) -> nn.Module:
    """ResNet-50 (He et al. 2016, arXiv:1512.03385)."""
    return timm_net("resnet50", image_size, outputs, dropout, pretrained=pretrained, freeze_until=freeze_until)


@models.register("resnext50_32x4d")
def resnext50_32x4d(
    image_size: int, outputs: int, dropout: float, *, pretrained: str = "none", freeze_until: str = ""
) -> nn.Module:
    """ResNeXt-50 with 32 groups of 4 channels (Xie et al. 2017, arXiv:1611.05431)."""
    return timm_net("resnext50_32x4d", image_size, outputs, dropout, pretrained=pretrained, freeze_until=freeze_until)


@models.register("densenet121")
def densenet121(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    drop_rate: DropRate = 0.0,
    pretrained: str = "none",
    freeze_until: str = "",
) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017, arXiv:1608.06993); drop_rate is the dropout after each dense layer."""
    films = image_size, outputs, dropout
    return timm_net("densenet121", *films, pretrained=pretrained, freeze_until=freeze_until, proj_drop_rate=drop_rate)


@models.register("densenet161")
def densenet161(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    drop_rate: DropRate = 0.0,
    pretrained: str = "none",
    freeze_until: str = "",
) -> nn.Module:
    """DenseNet-161 (Huang et al. 2017, arXiv:1608.06993); drop_rate is the dropout after each dense layer."""
    films = image_size, outputs, dropout
    return timm_net("densenet161", *films, pretrained=pretrained, freeze_until=freeze_until, proj_drop_rate=drop_rate)


@models.register("efficientnet_b3")
def efficientnet_b3(
    image_size: int, outputs: int, dropout: float, *, pretrained: str = "none", freeze_until: str = ""
) -> nn.Module:
    """EfficientNet-B3 (Tan & Le 2019, arXiv:1905.11946)."""
    return timm_net("efficientnet_b3", image_size, outputs, dropout, pretrained=pretrained, freeze_until=freeze_until)
