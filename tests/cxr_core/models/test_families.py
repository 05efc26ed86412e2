"""Every registered architecture family keeps the same rules."""

import copy
import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cxr_core.models import Infeasible, WithAuxiliary, build_model, last_layers, measure_model, models
from cxr_core.registry import Chosen, Scalar

# Narrow where a family can be, so that the tests are fast; the rules do not depend on it.
SMALL: dict[str, dict[str, Scalar]] = {
    "inception_resnet": {"width": 8},
    "inception_v4": {"width": 8},
    "mini_inception_v3": {"width": 16, "hidden": 32},
    "multiscale_gap": {"width": 8, "hidden": 32},
    "timm": {"name": "test_vit"},
    "vgg_like": {"width": 8, "hidden": 64},
}
VARIANTS: list[tuple[str, dict[str, Scalar]]] = [
    ("inception_resnet", {"norm": "none"}),
    ("inception_v4", {"norm": "none"}),
    ("mini_inception_v3", {"auxiliary": 0.0}),
    ("multiscale_gap", {"norm": "none"}),
    ("small_cnn", {"norm": "none", "pool": "flatten"}),
    ("small_cnn", {"pool": "max"}),
    ("timm", {"name": "test_convnext"}),
    ("timm", {"name": "test_efficientnet", "channels": 3}),
    ("two_conv", {"norm": "none", "init": "xavier"}),
    ("two_conv", {"pool": "average"}),
    ("vgg_like", {"norm": "none", "depth": 2, "convolutions": 1}),
    ("vgg_like", {"init": "xavier"}),
]
# These share all code but timm's own with resnet18 and densenet121, and take seconds to train.
LARGE = {"resnet50", "resnext50_32x4d", "densenet161", "efficientnet_b3"}


def case(name: str, params: dict[str, Scalar]) -> Any:
    chosen = Chosen(name, SMALL.get(name, {}) | params)
    label = "-".join([name, *(f"{key}={value}" for key, value in params.items())])
    return pytest.param(chosen, id=label)


DEFAULTS = [case(name, {}) for name in models]
CASES = [each for each in DEFAULTS if each.id not in LARGE] + [case(*variant) for variant in VARIANTS]
every_family = pytest.mark.parametrize("chosen", DEFAULTS)
every_case = pytest.mark.parametrize("chosen", CASES)


def size_for(chosen: Chosen) -> int:
    return 64 if chosen.name == "multiscale_flatten" else 32


def films(count: int, chosen: Chosen) -> Tensor:
    size = size_for(chosen)
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def build(chosen: Chosen, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return build_model(chosen, size_for(chosen), 3, dropout)


@cache
def _built(name: str, params: tuple[tuple[str, Scalar], ...]) -> nn.Module:
    return build(Chosen(name, dict(params)))


def built(chosen: Chosen) -> nn.Module:
    """The same network for all tests that leave its weights alone: large ones take a second to build."""
    return _built(chosen.name, tuple(chosen.params.items()))


def loss_of(model: nn.Module, batch: Tensor, targets: Tensor) -> Tensor:
    outputs = model(batch)
    if not isinstance(outputs, WithAuxiliary):
        return binary_cross_entropy_with_logits(outputs, targets)
    main, side = (binary_cross_entropy_with_logits(each, targets) for each in outputs[:2])
    return main + outputs.weight * side


def in_training_but_for_norms(model: nn.Module) -> nn.Module:
    """So that only dropout tells training from evaluation."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    return model


@every_family
@pytest.mark.parametrize("size", [64, 224])
def test_a_family_gives_a_logit_for_each_finding_at_usual_sizes(chosen: Chosen, size: int) -> None:
    with torch.device("meta"):
        model = build_model(chosen, size, 14, 0.0).eval()
        assert model(torch.empty(2, 1, size, size)).shape == (2, 14)


@every_case
def test_a_case_gives_a_logit_for_each_finding_of_a_single_film(chosen: Chosen) -> None:
    with torch.no_grad():
        assert built(chosen).eval()(films(1, chosen)).shape == (1, 3)


@every_family
def test_a_family_is_built_on_the_meta_device_without_memory(chosen: Chosen) -> None:
    with torch.device("meta"):
        model = build(chosen, 0.5)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@every_case
def test_a_few_steps_lower_the_loss_of_a_fixed_batch(chosen: Chosen) -> None:
    model = copy.deepcopy(built(chosen)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = films(4, chosen)
    targets, losses = (batch[:, 0, 0, :3] > 0).float(), []
    for _ in range(4):
        loss = loss_of(model, batch, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]


@every_case
def test_a_gradient_reaches_every_trainable_weight(chosen: Chosen) -> None:
    model = copy.deepcopy(built(chosen)).train()
    batch = films(4, chosen)
    for _ in range(2):  # timm's residual branches start at zero: only a first step opens them to the gradient
        loss_of(model, batch, (batch[:, 0, 0, :3] > 0).float()).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    unreached = [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    ]
    assert unreached == []


def refusal(chosen: Chosen, size: int) -> str | None:
    try:
        measure_model(chosen, size, 3, 0.0)
    except Infeasible as reason:
        return str(reason)
    return None


@every_case
@pytest.mark.parametrize("size", [1, 15])
def test_a_film_is_either_large_enough_or_refused_with_its_size(chosen: Chosen, size: int) -> None:
    if reason := refusal(chosen, size):
        assert re.search(rf"^{chosen.params.get('name', chosen.name)} .*\b{size}\b", reason)
    else:
        with torch.no_grad():
            assert build_model(chosen, size, 3, 0.0).eval()(torch.zeros(1, 1, size, size)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("small_cnn", 16),
        ("inception_resnet", 16),
        ("inception_v4", 16),
        ("mini_inception_v3", 16),
        ("vgg_like", 16),
        ("densenet121", 16),
        ("two_conv", 8),
        ("multiscale_gap", 8),
        ("multiscale_flatten", 49),
    ],
)
def test_films_that_a_family_would_reduce_to_nothing_are_refused(name: str, least: int) -> None:
    assert refusal(Chosen(name), least - 1) == f"{name} needs films of {least} px or more, not {least - 1}"
    assert refusal(Chosen(name), least) is None


@every_case
def test_a_footprint_counts_the_parameters_of_a_real_network(chosen: Chosen) -> None:
    real = sum(parameter.numel() for parameter in built(chosen).parameters())
    assert measure_model(chosen, size_for(chosen), 3, 0.0).parameters == real


@every_case
def test_the_same_seed_builds_the_same_network(chosen: Chosen) -> None:
    first, second = built(chosen).state_dict(), build(chosen).state_dict()
    assert all(tensor.equal(second[key]) for key, tensor in first.items())


@every_case
def test_another_seed_builds_another_network(chosen: Chosen) -> None:
    torch.manual_seed(1)
    other = build_model(chosen, size_for(chosen), 3, 0.0).state_dict()
    assert any(not tensor.equal(other[key]) for key, tensor in built(chosen).state_dict().items())


@every_case
def test_saved_weights_say_the_same_in_a_network_of_another_seed(chosen: Chosen) -> None:
    torch.manual_seed(1)
    other = build_model(chosen, size_for(chosen), 3, 0.0).eval()
    other.load_state_dict(built(chosen).state_dict(), strict=True)
    with torch.no_grad():
        assert other(films(2, chosen)).equal(built(chosen).eval()(films(2, chosen)))


@every_case
def test_dropout_lies_before_the_last_linear_layer_and_nowhere_else(chosen: Chosen) -> None:
    """The share dropped within 4 sigma of the rate: a false alarm in 1 of 16,000 seeds."""
    model, seen = build(chosen, dropout=0.4), []
    last_layers(model)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model.eval()(films(8, chosen))
        in_training_but_for_norms(model)(films(8, chosen))
    whole, dropped = seen
    active, kept = whole != 0, dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.6)
    count = int(active.sum())
    assert abs(int((active & ~kept).sum()) - 0.4 * count) < 4 * (0.4 * 0.6 * count) ** 0.5


@every_family
def test_dropout_adds_no_weights(chosen: Chosen) -> None:
    with torch.device("meta"):
        dropping, plain = build(chosen, dropout=0.4).state_dict(), build(chosen).state_dict()
    assert {key: tensor.shape for key, tensor in dropping.items()} == {key: each.shape for key, each in plain.items()}


@every_case
def test_films_do_not_influence_each_other_in_evaluation(chosen: Chosen) -> None:
    model = built(chosen).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(films(3, chosen))[1:2], model(films(3, chosen)[1:2]), rtol=1e-4, atol=1e-5)
