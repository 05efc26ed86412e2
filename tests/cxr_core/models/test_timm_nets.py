"""timm's networks are the published ones, but for one input channel and the findings asked for."""

import pytest
import timm
import torch
from torch import nn

from cxr_core.models import Infeasible, build_model, measure_model
from cxr_core.models.timm_net import TimmNet, name_complaint
from cxr_core.registry import Chosen, Scalar

# Parameters with 3 channels and 1,000 classes (torchvision's tables), features before the last layer, and the
# weights that each input channel has in the first convolution.
PUBLISHED = {
    "resnet18": (11_689_512, 512, 7 * 7 * 64),
    "resnet50": (25_557_032, 2048, 7 * 7 * 64),
    "resnext50_32x4d": (25_028_904, 2048, 7 * 7 * 64),
    "densenet121": (7_978_856, 1024, 7 * 7 * 64),
    "densenet161": (28_681_000, 2208, 7 * 7 * 96),
    "efficientnet_b3": (12_233_232, 1536, 3 * 3 * 40),
}
# Multiply-adds in 10**9 at 224 px, torchvision's tables (there EfficientNet-B3 is given for 300 px).
GIGAFLOPS = {"resnet18": 1.81, "resnet50": 4.09, "resnext50_32x4d": 4.23, "densenet121": 2.83, "densenet161": 7.73}

every_net = pytest.mark.parametrize("name", PUBLISHED)


def net(name: str, size: int = 64, outputs: int = 3, **params: Scalar) -> TimmNet:
    torch.manual_seed(0)
    model = build_model(Chosen("timm", {"name": name, **params}), size, outputs, 0.0, pretrained=False)
    assert isinstance(model, TimmNet)
    return model


def reason(name: str, size: int, **params: Scalar) -> str:
    with pytest.raises(Infeasible) as refused:
        measure_model(Chosen("timm", {"name": name, **params}), size, 3, 0.0)
    return str(refused.value)


@every_net
def test_a_net_has_the_published_number_of_parameters(name: str) -> None:
    published, features, channel = PUBLISHED[name]
    expected = published - 2 * channel - (features + 1) * 1000 + (features + 1) * 14
    assert measure_model(Chosen(name), 224, 14, 0.0).parameters == expected


@pytest.mark.parametrize("name", GIGAFLOPS)
def test_a_net_costs_what_is_published(name: str) -> None:
    """But for two of three input channels, which are a few per cent of the smallest net."""
    expected = 2 * (GIGAFLOPS[name] * 1e9 - 2 * PUBLISHED[name][2] * 112**2)
    assert measure_model(Chosen(name), 224, 1000, 0.0).flops == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "densenet121", "densenet161"])
def test_below_64_px_the_stem_does_not_pool(name: str) -> None:
    with torch.device("meta"):
        pools = {
            size: sum(isinstance(module, nn.MaxPool2d) for module in build_model(Chosen(name), size, 1, 0.0).modules())
            for size in (63, 64)
        }
    assert pools == {63: 0, 64: 1}


@pytest.mark.parametrize(
    ("name", "conv", "strides"), [("efficientnet_b0", "conv_stem", (1, 2)), ("convnext_atto", "stem.0", (2, 4))]
)
def test_below_64_px_a_stem_without_pool_strides_half_as_far(name: str, conv: str, strides: tuple[int, int]) -> None:
    with torch.device("meta"):
        layers = [net(name, size).net.get_submodule(conv) for size in (63, 64)]
    assert [layer.stride for layer in layers] == [(stride, stride) for stride in strides]


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


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "convnext_atto",
        "pit_ti_224",
        "regnetx_002",
        "mobilenetv3_small_050",
    ],
)
@pytest.mark.parametrize("size", [64, 160])
def test_networks_of_other_kinds_take_films_of_any_usual_size(name: str, size: int) -> None:
    assert measure_model(Chosen("timm", {"name": name}), size, 14, 0.0).parameters > 0


def test_a_film_that_is_no_multiple_of_the_patches_is_refused() -> None:
    message = "vit_tiny_patch16_224 cuts films into patches of 16 px, and 100 px is no multiple of it"
    assert reason("vit_tiny_patch16_224", 100) == message


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_timms_inception_networks_need_75_px(name: str) -> None:
    assert reason(name, 74) == f"{name} needs films of 75 px or more, not 74"
    assert measure_model(Chosen("timm", {"name": name}), 75, 3, 0.0).parameters > 20_000_000


def test_inception_v3_gives_one_answer_in_training_too() -> None:
    with torch.device("meta"):
        assert net("inception_v3", 75).train()(torch.empty(2, 1, 75, 75)).shape == (2, 3)


def test_drop_path_is_refused_by_a_network_that_takes_none() -> None:
    assert reason("densenet121", 64, drop_path=0.1) == "densenet121 takes no drop_path"


def test_drop_path_drops_whole_branches_in_training_only() -> None:
    model = net("test_vit", drop_path=0.5)
    films = torch.randn(4, 1, 64, 64)
    with torch.no_grad():
        assert not model.train()(films).allclose(model(films))
        assert model.eval()(films).equal(model(films))


def test_the_residual_scale_is_that_of_every_block() -> None:
    with torch.device("meta"):
        own, theirs = net("inception_resnet_v2", 75, residual_scale=0.3), net("inception_resnet_v2", 75)
    scales = [[block.scale for block in each.modules() if hasattr(block, "scale")] for each in (own, theirs)]
    assert scales == [[0.3] * 40, [0.17] * 10 + [0.1] * 20 + [0.2] * 9 + [1.0]]


def test_a_residual_scale_of_another_network_is_refused() -> None:
    assert reason("resnet18", 64, residual_scale=0.3) == "resnet18 has no residual_scale; inception_resnet_v2 has"


def test_an_unknown_name_is_refused_with_the_nearest_ones() -> None:
    assert reason("resnet81", 64).startswith("timm has no network 'resnet81'; did you mean 'resnet")
    assert "'resnet18.a1_in1k'" in reason("resnet18.a1_in2k", 64)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "vit_base_patch16_224.augreg_in21k"])
def test_known_names_are_known_with_the_tag_of_their_weights_or_without(name: str) -> None:
    assert name_complaint(name) is None


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "local-dir:/models", "resnet18.", "", "."])
def test_a_name_never_leads_to_another_source(name: str) -> None:
    assert name_complaint(name)


def test_three_channels_see_films_as_torchvision_normalises_their_grey_repeated() -> None:
    from torchvision.transforms.v2.functional import normalize

    grey = torch.rand(2, 1, 32, 32)
    films = (grey - 0.449) / 0.226  # as `normalize: imagenet` does
    seen = net("resnet18", 32, channels=3).channels(films)
    torch.testing.assert_close(
        seen, normalize(grey.expand(-1, 3, -1, -1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )


def test_networks_with_another_normalisation_see_theirs() -> None:
    grey = torch.rand(2, 1, 96, 96)
    cfg = timm.models.get_pretrained_cfg("inception_v4")
    assert (cfg.mean[0], cfg.std[0]) == (0.5, 0.5)
    with torch.device("cpu"):
        for channels in (1, 3):
            model = net("inception_v4", 96, channels=channels, pretrained="imagenet")
            seen = model.channels((grey - 0.449) / 0.226)
            torch.testing.assert_close(seen, ((grey - 0.5) / 0.5).expand(-1, channels, -1, -1))


def test_one_channel_without_pretrained_weights_sees_films_as_they_are() -> None:
    films = torch.randn(2, 1, 32, 32)
    assert net("test_resnet", 32).channels(films).equal(films)


def test_the_colours_are_not_among_the_saved_weights() -> None:
    assert not [key for key in net("test_resnet", 32, channels=3).state_dict() if not key.startswith("net.")]
