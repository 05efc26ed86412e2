"""The networks of the published studies have the sizes that these state, or that follow from them by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from cxr_core.models import WithAuxiliary, build_model, measure_model
from cxr_core.registry import Chosen, Scalar


def on_meta(family: str, size: int, outputs: int = 14, **params: Scalar) -> nn.Module:
    with torch.device("meta"):
        return build_model(Chosen(family, params), size, outputs, 0.5)


def parameters(family: str, size: int, outputs: int = 14, **params: Scalar) -> int:
    return measure_model(Chosen(family, params), size, outputs, 0.0).parameters


def head_inputs(model: nn.Module) -> list[int]:
    return [layer.in_features for layer in model.modules() if isinstance(layer, nn.Linear)]


def shapes_after(model: nn.Module, kind: type[nn.Module], size: int) -> list[tuple[int, ...]]:
    """(channels, rows, columns) that each layer of a kind gives for a film."""
    shapes: list[tuple[int, ...]] = []

    def note(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        shapes.append(tuple(output.shape[1:]))

    for layer in model.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(note)
    with torch.device("meta"):
        model.eval()(torch.empty(1, 1, size, size))
    return shapes


def test_the_flatten_network_sees_937800_features_at_512_px() -> None:
    model = on_meta("multiscale_flatten", 512)
    pools = shapes_after(model, nn.MaxPool2d, 512)
    assert pools == [(12, 252, 252), (10, 122, 122), (8, 58, 58)]
    assert [math.prod(shape) for shape in pools] == [762_048, 148_840, 26_912]
    assert head_inputs(model) == [937_800]


def test_the_flatten_network_has_the_parameters_of_its_kernels_and_features() -> None:
    convolutions = 12 * 8 * 8 + 10 * 12 * 8 * 8 + 8 * 10 * 6 * 6
    assert parameters("multiscale_flatten", 512, norm="none") == convolutions + 30 + 14 * 937_801


def test_the_average_network_has_448_features_and_128_hidden_units() -> None:
    assert head_inputs(on_meta("multiscale_gap", 512)) == [448, 128]
    convolutions = 9 * (64 + 64 * 128 + 128 * 256)
    assert parameters("multiscale_gap", 512, norm="none") == convolutions + 448 + 449 * 128 + 129 * 14


def test_the_three_convolutions_may_end_in_their_whole_grid() -> None:
    assert head_inputs(on_meta("small_cnn", 64, width=8, pool="flatten")) == [32 * 8 * 8]


def test_the_average_is_the_mean_of_the_grid_and_the_maximum_its_largest_value() -> None:
    torch.manual_seed(0)
    for pool, reduce in (("average", lambda grid: grid.mean((2, 3))), ("max", lambda grid: grid.amax((2, 3)))):
        model = build_model(Chosen("small_cnn", {"width": 4, "pool": pool}), 32, 2, 0.0).eval()
        assert isinstance(model, nn.Sequential)
        grid = torch.randn(2, 16, 4, 4)
        torch.testing.assert_close(model[-4:](grid), model[-1](reduce(grid)))


def test_the_two_convolutions_have_the_parameters_counted_by_hand() -> None:
    convolutions = 9 * (16 + 16 * 32) + 16 + 32
    head = (32 * 56 * 56 + 1) * 14
    assert parameters("two_conv", 224, width=16, norm="none") == convolutions + head


def test_the_vgg_like_network_of_width_64_is_vgg_13_with_another_head() -> None:
    """VGG-13's ten convolutions have 9,404,992 weights and biases with three channels (torchvision: vgg13)."""
    vgg13 = 9_404_992 - 2 * 9 * 64
    hidden = (512 * 7 * 7 + 1) * 2048 + 2049 * 14
    assert parameters("vgg_like", 224, width=64, norm="none") == vgg13 + hidden


def test_the_hidden_layer_of_the_vgg_like_network_has_2048_units_with_a_norm() -> None:
    model = on_meta("vgg_like", 224)
    assert head_inputs(model) == [256 * 7 * 7, 2048]
    assert [layer.num_features for layer in model.modules() if isinstance(layer, nn.BatchNorm1d)] == [2048]


@pytest.mark.parametrize("family", ["two_conv", "vgg_like"])
def test_xavier_draws_weights_with_the_variance_of_glorot_and_no_bias(family: str) -> None:
    """Uniform in +-sqrt(6 / (fan in + fan out)); a standard deviation is within 5 sigma, false in 1 of 10**6."""
    torch.manual_seed(0)
    model = build_model(Chosen(family, {"width": 16, "init": "xavier"}), 32, 14, 0.0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = math.prod(layer.weight.shape[2:])
            bound = math.sqrt(6 / (area * sum(layer.weight.shape[:2])))
            assert layer.weight.abs().max() <= bound
            spread, count = float(layer.weight.detach().std()) / (bound / math.sqrt(3)), layer.weight.numel()
            assert abs(spread - 1) < 5 * math.sqrt(0.2 / count) + 1 / count
            assert layer.bias is None or not layer.bias.any()


def test_without_batch_norm_the_signal_keeps_its_size_through_twenty_layers() -> None:
    torch.manual_seed(0)
    model = build_model(Chosen("inception_v4", {"norm": "none", "width": 16, "depth": 2}), 32, 3, 0.0).eval()
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        deep = model[:-4](torch.randn(2, 1, 32, 32))
    assert 0.05 < deep.std() < 20


def test_no_norm_leaves_no_norm() -> None:
    for family in ("inception_resnet", "inception_v4", "small_cnn", "vgg_like", "multiscale_gap"):
        kinds = {type(layer) for layer in on_meta(family, 64, norm="none").modules()}
        assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d}


def inception_module(narrow: int, filters: tuple[int, ...]) -> int:
    """Weights and norms of a module with 3x1, 1x3 and 5x1, 1x5 convolutions, counted branch by branch."""
    one, before_three, three, before_five, five, pooled = filters
    weights = narrow * (one + before_three + before_five + pooled)
    weights += 3 * three * (before_three + three) + 5 * five * (before_five + five)
    return weights + 2 * (one + before_three + 2 * three + before_five + 2 * five + pooled)


def test_the_mini_inception_has_the_published_filters() -> None:
    modules = inception_module(64, (64, 48, 64, 8, 16, 32)) + inception_module(176, (128, 64, 96, 16, 32, 64))
    stem = 9 * (32 + 32 * 64) + 2 * (32 + 64)
    head = (128 + 96 + 32 + 64 + 1) * 128 + 129
    assert parameters("mini_inception_v3", 150, 1, auxiliary=0.0) == stem + modules + head


def test_the_auxiliary_classifier_answers_in_training_only() -> None:
    model = build_model(Chosen("mini_inception_v3", {"auxiliary": 0.4}), 32, 3, 0.0)
    outputs = model.train()(torch.randn(4, 1, 32, 32))
    assert isinstance(outputs, WithAuxiliary)
    assert (outputs.logits.shape, outputs.auxiliary.shape, outputs.weight) == ((4, 3), (4, 3), 0.4)
    assert isinstance(model.eval()(torch.randn(4, 1, 32, 32)), Tensor)


def test_an_auxiliary_classifier_of_no_weight_is_left_out() -> None:
    model = build_model(Chosen("mini_inception_v3", {"auxiliary": 0.0}), 32, 3, 0.0)
    assert isinstance(model.train()(torch.randn(4, 1, 32, 32)), Tensor)


def test_the_auxiliary_loss_teaches_the_first_module_and_not_the_second() -> None:
    model = build_model(Chosen("mini_inception_v3"), 32, 3, 0.0).train()
    model(torch.randn(4, 1, 32, 32)).auxiliary.sum().backward()
    taught = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert taught == {"first", "auxiliary"}
