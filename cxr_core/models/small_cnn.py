"""Three convolutions: the network that every larger one has to beat."""

from typing import Annotated

from torch import nn

from cxr_core.models.convolutions import Norm, convolution
from cxr_core.models.head import Pool, classifier
from cxr_core.models.registry import Infeasible, models
from cxr_core.registry import Range


@models.register("small_cnn")
def small_cnn(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(4, 256)] = 32,
    norm: Norm = "batch",
    pool: Pool = "average",
) -> nn.Module:
    """Three 3x3 convolutions of width, 2 width and 4 width channels, each halving the film, then a pool over it."""
    if image_size < 16:
        raise Infeasible(f"small_cnn needs films of 16 px or more, not {image_size}")
    layers: list[nn.Module] = []
    for narrow, wide in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [*convolution(narrow, wide, 3, norm=norm), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *classifier(4 * width, image_size // 8, outputs, dropout, pool))
