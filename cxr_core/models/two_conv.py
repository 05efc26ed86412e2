"""Two convolutions: the simple network of the VGG-like study on ChestX-ray8."""

from typing import Annotated

from torch import nn

from cxr_core.models.convolutions import Init, Norm, convolution, initialise
from cxr_core.models.head import Pool, classifier
from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range


@models.register("two_conv")
def two_conv(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(4, 256)] = 32,
    norm: Norm = "batch",
    pool: Pool = "flatten",
    init: Init = "default",
) -> nn.Module:
    """Two 3x3 convolutions of width and 2 width channels, each halving the film, then a pool over it.

    It sees 10 px of a film at once, so all that it knows of places it has from the flattened grid.
    """
    if image_size < 8:
        raise Infeasible(f"two_conv needs films of 8 px or more, not {image_size}")
    layers: list[nn.Module] = []
    for narrow, wide in ((1, width), (width, 2 * width)):
        layers += [convolution(narrow, wide, 3, norm=norm), nn.MaxPool2d(2)]
    return initialise(nn.Sequential(*layers, *classifier(2 * width, image_size // 4, outputs, dropout, pool)), init)
