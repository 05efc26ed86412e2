"""timm's networks are the published ones, but for one input channel and the findings asked for."""

import pytest
import torch
from torch import nn

from cxr_core.models import build_model, measure_model
from cxr_core.registry import Chosen

# Parameters with 3 channels and 1,000 classes (torchvision's tables), features before the last layer.
PUBLISHED = {"resnet18": (11_689_512, 512), "resnext50_32x4d": (25_028_904, 2048), "densenet121": (7_978_856, 1024)}
GIGAFLOPS = {"resnet18": 1.81, "resnext50_32x4d": 4.23, "densenet121": 2.83}  # multiply-adds, torchvision's tables
STEM = 7 * 7 * 64  # weights for each input channel

every_net = pytest.mark.parametrize("name", PUBLISHED)


@every_net
def test_a_net_has_the_published_number_of_parameters(name: str) -> None:
    published, features = PUBLISHED[name]
    expected = published - 2 * STEM - (features + 1) * 1000 + (features + 1) * 14
    assert measure_model(Chosen(name), 224, 14, 0.0).parameters == expected


@every_net
def test_a_net_costs_what_is_published(name: str) -> None:
    """But for two of three input channels, which are a few per cent of the smallest net."""
    expected = 2 * (GIGAFLOPS[name] * 1e9 - 2 * STEM * 112**2)
    assert measure_model(Chosen(name), 224, 1000, 0.0).flops == pytest.approx(expected, rel=0.02)


@every_net
def test_below_64_px_the_stem_does_not_pool(name: str) -> None:
    with torch.device("meta"):
        pools = {
            size: sum(isinstance(module, nn.MaxPool2d) for module in build_model(Chosen(name), size, 1, 0.0).modules())
            for size in (63, 64)
        }
    assert pools == {63: 0, 64: 1}


def test_the_drop_rate_of_densenet_lies_within_its_dense_layers() -> None:
    torch.manual_seed(0)
    model = build_model(Chosen("densenet121", {"drop_rate": 0.5}), 28, 2, 0.0).eval()
    films = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        assert model(films).equal(model(films))
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert not model(films).allclose(model(films))
