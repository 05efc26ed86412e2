"""The residual scaling factor multiplies the residual branch, and nothing else."""

import pytest
import torch
from torch import Tensor, nn

from cxr_core.models import build_model, measure_model
from cxr_core.models.inception_blocks import ScaledResidual
from cxr_core.registry import Chosen


def network(scale: float, **options: int) -> nn.Module:
    torch.manual_seed(0)
    chosen = Chosen("inception_resnet", {"residual_scale": scale, "width": 8, **options})
    return build_model(chosen, 28, 2, 0.0).eval()


def blocks(model: nn.Module) -> list[ScaledResidual]:
    return [module for module in model.modules() if isinstance(module, ScaledResidual)]


def features(block: ScaledResidual) -> Tensor:
    return torch.randn(2, block.expand.out_channels, 7, 7, generator=torch.Generator().manual_seed(1))


def test_the_scale_is_no_weight() -> None:
    small, large = network(0.1).state_dict(), network(1.0).state_dict()
    assert list(small) == list(large)
    assert all(tensor.equal(large[key]) for key, tensor in small.items())


def test_the_scale_changes_what_the_network_says() -> None:
    films = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(network(0.1)(films), network(1.0)(films))


def test_every_block_has_the_scale_asked_for() -> None:
    assert {block.scale for block in blocks(network(0.35, depth=2))} == {0.35}


@torch.no_grad()
def test_the_residual_grows_in_proportion_to_the_scale() -> None:
    for small, large in zip(blocks(network(0.1)), blocks(network(0.3)), strict=True):
        x = features(small) + 100  # so that the last ReLU passes everything
        torch.testing.assert_close(large(x) - x, 3 * (small(x) - x), rtol=1e-3, atol=1e-3)
        assert (small(x) - x).abs().max() > 0.1


@torch.no_grad()
def test_a_block_without_residual_is_a_rectified_identity() -> None:
    for block in blocks(network(1.0)):
        nn.init.zeros_(block.expand.weight)
        nn.init.zeros_(block.expand.bias)
        x = features(block)
        assert block(x).equal(x.clamp(min=0))


def test_the_residual_is_widened_by_a_convolution_without_activation() -> None:
    """Szegedy et al. 2017, figure 15: it may be negative."""
    for block in blocks(network(1.0)):
        x = features(block) + 100
        assert (block(x) < x).any()
        assert (block(x) > x).any()


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_blocks_a_b_and_c_are_repeated_once_twice_and_once_the_depth(depth: int) -> None:
    channels = [block.expand.out_channels for block in blocks(network(0.2, depth=depth))]
    assert channels == [16] * depth + [32] * 2 * depth + [64] * depth


def test_films_of_64_px_are_quartered_by_the_stem_and_smaller_ones_halved() -> None:
    """So 64 px and 32 px give the blocks the same grid; only the stem costs more."""
    flops = {size: measure_model(Chosen("inception_resnet"), size, 1, 0.0).flops for size in (32, 62, 64, 128)}
    assert flops[62] > 1.5 * flops[64]
    assert flops[128] == pytest.approx(4 * flops[64], rel=1e-3)
