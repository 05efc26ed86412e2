"""A mini Inception-v3 for pneumonia: two inception modules with factorised convolutions and an auxiliary classifier."""

from typing import Annotated

from torch import Tensor, nn

from cxr_core.models.convolutions import convolution
from cxr_core.models.inception_blocks import Concatenation, Steps, branch
from cxr_core.models.registry import Infeasible, WithAuxiliary, models
from cxr_core.registry import Range

# Filters in the order of GoogLeNet's table: 1x1, before 3x3, 3x3, before 5x5, 5x5, after pooling.
_FIRST = (64, 48, 64, 8, 16, 32)
_SECOND = (128, 64, 96, 16, 32, 64)
_PUBLISHED_WIDTH = 64


def _module(narrow: int, filters: list[int]) -> Concatenation:
    """Four branches; a 3x3 convolution is 3x1 then 1x3, a 5x5 one is 5x1 then 1x5 (arXiv:1512.00567, sec. 3.2)."""
    one, before_three, three, before_five, five, pooled = filters
    branches: list[Steps] = [
        ((one, 1),),
        ((before_three, 1), (three, (3, 1)), (three, (1, 3))),
        ((before_five, 1), (five, (5, 1)), (five, (1, 5))),
    ]
    pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), convolution(narrow, pooled, 1))
    return Concatenation([*[branch(narrow, steps, "batch") for steps in branches], pool])


def _joined(filters: list[int]) -> int:
    return filters[0] + filters[2] + filters[4] + filters[5]


class MiniInception(nn.Module):
    """Stem, first module, second module and head; in training also a classifier after the first module."""

    def __init__(self, first: nn.Module, auxiliary: nn.Module | None, weight: float, rest: nn.Module, head: nn.Module):
        super().__init__()
        self.first, self.auxiliary, self.rest, self.head = first, auxiliary, rest, head
        self.weight = weight

    def get_classifier(self) -> list[nn.Module]:
        """The parts that end in logits, as timm's networks name theirs."""
        return [self.head] if self.auxiliary is None else [self.head, self.auxiliary]

    def forward(self, films: Tensor) -> Tensor | WithAuxiliary:
        x = self.first(films)
        logits: Tensor = self.head(self.rest(x))
        if self.auxiliary is None or not self.training:
            return logits
        return WithAuxiliary(logits, self.auxiliary(x), self.weight)


@models.register("mini_inception_v3")
def mini_inception_v3(
    image_size: int,
    outputs: int,
    dropout: float,
    *,
    width: Annotated[int, Range(16, 128)] = 64,
    hidden: Annotated[int, Range(16, 1024)] = 128,
    auxiliary: Annotated[float, Range(0, 1)] = 0.3,
) -> nn.Module:
    """Two inception modules, global average, a fully connected layer (after Szegedy et al. 2016, arXiv:1512.00567).

    width: 1x1 filters of the first module, the others in proportion (published: 64). hidden: units of the fully
    connected layer. auxiliary: weight of the auxiliary classifier's loss, 0 for none; in training the network gives
    `WithAuxiliary`. The stem quarters the film, below 64 px it halves it.
    """
    if image_size < 16:
        raise Infeasible(f"mini_inception_v3 needs films of 16 px or more, not {image_size}")
    first, second = ([max(1, n * width // _PUBLISHED_WIDTH) for n in filters] for filters in (_FIRST, _SECOND))
    stem: list[nn.Module] = [convolution(1, width // 2, 3, 2), convolution(width // 2, width, 3)]
    if image_size >= 64:
        stem.append(nn.MaxPool2d(3, 2, padding=1))
    joined, last = _joined(first), _joined(second)
    side = None
    if auxiliary:
        side = nn.Sequential(convolution(joined, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        side.append(nn.Linear(width, outputs))
    rest = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), _module(joined, second), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = [nn.Linear(last, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, outputs)]
    return MiniInception(nn.Sequential(*stem, _module(width, first)), side, auxiliary, rest, nn.Sequential(*head))
