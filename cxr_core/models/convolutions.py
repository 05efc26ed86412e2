"""Convolutions as the own networks use them: with batch norm or without, and how their weights start."""

from typing import Literal

from torch import nn

Norm = Literal["batch", "none"]
Init = Literal["default", "xavier"]
Size = int | tuple[int, int]


def convolution(
    narrow: int, wide: int, kernel: Size, stride: int = 1, *, norm: Norm = "batch", valid: bool = False
) -> nn.Sequential:
    """Convolution, norm and ReLU; the grid keeps its size (at stride 1) unless `valid` leaves out the padding.

    Without batch norm the weights start as in He et al. 2015 (arXiv:1502.01852), or the signal would fade layer by
    layer.
    """
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (0, 0) if valid else (rows // 2, columns // 2)
    layer = nn.Conv2d(narrow, wide, (rows, columns), stride, padding, bias=norm == "none")
    if norm == "batch":
        return nn.Sequential(layer, nn.BatchNorm2d(wide), nn.ReLU(inplace=True))
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.ReLU(inplace=True))


def initialise(model: nn.Module, init: Init) -> nn.Module:
    """Draw the weights anew: `xavier` is uniform, biases zero (Glorot & Bengio 2010, eq. 16); `default` keeps them."""
    if init == "xavier":
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return model
