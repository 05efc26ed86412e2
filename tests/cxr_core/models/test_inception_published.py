"""With the published stem and width, both Inception networks are those of Szegedy et al. 2017 (arXiv:1602.07261)."""

from collections.abc import Iterator
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn

from cxr_core.models import Infeasible, build_model, measure_model
from cxr_core.models.inception_blocks import Concatenation, ScaledResidual, inception_v4_stem
from cxr_core.registry import Chosen, Scalar

PUBLISHED: dict[str, dict[str, Scalar]] = {
    "inception_resnet": {"stem": "inception_v4", "width": 32, "depth": 5},
    "inception_v4": {"stem": "inception_v4", "width": 32, "depth": 4},
}


@cache
def published(name: str) -> nn.Sequential:
    with torch.device("meta"):
        model = build_model(Chosen(name, PUBLISHED[name]), 299, 1000, 0.2)
    assert isinstance(model, nn.Sequential)
    return model.eval()


def weights(layers: list[nn.Module]) -> int:
    return sum(weight.numel() for layer in layers for weight in layer.parameters())


def grids(name: str) -> Iterator[tuple[int, ...]]:
    """(channels, side) after the stem, after each block and after each reduction, repeats left out."""
    with torch.device("meta"):
        x: Tensor = torch.empty(1, 1, 299, 299)
        seen = (0, 0)
        for layer in published(name)[:-4]:
            x = layer(x)
            if isinstance(layer, Concatenation | ScaledResidual) and tuple(x.shape[1:3]) != seen:
                seen = tuple(x.shape[1:3])
                yield seen


def test_299_px_give_the_residual_network_grids_of_35_17_and_8() -> None:
    assert list(grids("inception_resnet"))[-3:] == [(384, 35), (1152, 17), (2144, 8)]


def test_299_px_give_inception_v4_grids_of_35_17_and_8_with_the_published_channels() -> None:
    assert list(grids("inception_v4"))[-3:] == [(384, 35), (1024, 17), (1536, 8)]


def test_the_stem_halves_and_narrows_the_grid_as_in_figure_3() -> None:
    assert list(grids("inception_v4"))[:3] == [(160, 73), (192, 71), (384, 35)]


def test_inception_v4_has_the_parameters_of_another_implementation() -> None:
    with torch.device("meta"):
        other = timm.create_model("inception_v4", in_chans=1, num_classes=1000)
    assert weights([published("inception_v4")]) == weights([other])


def test_the_stem_has_the_parameters_of_another_implementation() -> None:
    with torch.device("meta"):
        other = timm.create_model("inception_v4", in_chans=1)
        assert weights(inception_v4_stem(32, "batch")) == weights([other.features[:6]])


def conv(*steps: tuple[int, int]) -> int:
    """Weights and norms of convolutions given as (weights of a filter, filters)."""
    return sum(inputs * filters + 2 * filters for inputs, filters in steps)


def test_the_residual_blocks_have_the_filters_of_figures_16_17_and_19() -> None:
    a = conv((384, 32), (384, 32), (9 * 32, 32), (384, 32), (9 * 32, 48), (9 * 48, 64)) + 128 * 384 + 384
    b = conv((1152, 192), (1152, 128), (7 * 128, 160), (7 * 160, 192)) + 384 * 1152 + 1152
    c = conv((2144, 192), (2144, 192), (3 * 192, 224), (3 * 224, 256)) + 448 * 2144 + 2144
    blocks = [layer for layer in published("inception_resnet") if isinstance(layer, ScaledResidual)]
    assert [weights([block]) for block in blocks] == [a] * 5 + [b] * 10 + [c] * 5


def test_the_reductions_of_the_residual_network_have_the_filters_of_table_1_and_figure_18() -> None:
    to_b = conv((9 * 384, 384), (384, 256), (9 * 256, 256), (9 * 256, 384))
    to_c = conv((1152, 256), (9 * 256, 384), (1152, 256), (9 * 256, 288), (1152, 256), (9 * 256, 288), (9 * 288, 320))
    layers = list(published("inception_resnet"))
    assert [weights([layer]) for layer in layers if isinstance(layer, Concatenation)][-2:] == [to_b, to_c]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_stem_needs_75_px(name: str) -> None:
    small = Chosen(name, PUBLISHED[name] | {"width": 8, "depth": 1})
    assert measure_model(small, 75, 3, 0.0).parameters > 0
    with pytest.raises(Infeasible, match=f"^{name} with the inception_v4 stem needs films of 75 px or more, not 74$"):
        measure_model(small, 74, 3, 0.0)


@pytest.mark.parametrize(("depth", "repeats"), [(1, 1 + 1 + 1), (2, 2 + 3 + 1), (4, 4 + 7 + 3)])
def test_the_depth_of_inception_v4_counts_its_blocks(depth: int, repeats: int) -> None:
    with torch.device("meta"):
        model = build_model(Chosen("inception_v4", {"width": 8, "depth": depth}), 64, 3, 0.0)
    assert sum(isinstance(layer, Concatenation) for layer in model.children()) == repeats + 2


def test_the_pure_network_joins_what_the_residual_one_adds() -> None:
    kinds = {type(layer) for layer in published("inception_v4").modules()}
    assert ScaledResidual not in kinds
    assert ScaledResidual in {type(layer) for layer in published("inception_resnet").modules()}
