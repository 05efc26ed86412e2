"""A VGG-like network for one channel, with batch norm and one wide hidden layer."""

from typing import Annotated

from torch import nn

from cxr_core.models.convolutions import Init, Norm, convolution, initialise
from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range


@models.register("vgg_like")
def vgg_like(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(8, 128)] = 32,
    depth: Annotated[int, Range(2, 5)] = 5,
    convolutions: Annotated[int, Range(1, 4)] = 2,
    hidden: Annotated[int, Range(16, 4096)] = 2048,
    norm: Norm = "batch",
    init: Init = "default",
) -> nn.Module:
    """Stages of 3x3 convolutions, each halving the film, and a fully connected layer (after arXiv:1409.1556).

    width: channels of the first stage, doubled by each of the next three (VGG: 64); depth: stages; convolutions: in
    each stage; hidden: units of the fully connected layer, which has the norm, too.
    """
    if image_size < 16:
        raise Infeasible(f"vgg_like needs films of 16 px or more, not {image_size}")
    layers: list[nn.Module] = []
    narrow, grid = 1, image_size
    for stage in range(depth):
        wide = width * 2 ** min(stage, 3)
        for _ in range(convolutions):
            layers.append(convolution(narrow, wide, 3, norm=norm))
            narrow = wide
        # Rounded up, so that small films pass through all stages; even grids are halved exactly.
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
        grid = (grid + 1) // 2
    layers += [nn.Flatten(), nn.Linear(narrow * grid**2, hidden, bias=norm == "none")]
    if norm == "batch":
        layers.append(nn.BatchNorm1d(hidden))
    layers += [nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, outputs)]
    return initialise(nn.Sequential(*layers), init)
