"""Every registered optimizer keeps the same rules; the known ones take the first step of their papers."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn, optim

from cxr_core.models import build_model
from cxr_core.optimizers import adam, adamw, optimizers, sgd
from cxr_core.registry import Chosen

every_optimizer = pytest.mark.parametrize("name", optimizers)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(4 * 36), nn.Linear(4 * 36, 2)
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def step(optimizer: optim.Optimizer, model: nn.Module, gradient: float) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()


@every_optimizer
def test_weight_decay_shrinks_weights_but_no_norms_and_no_biases(name: str) -> None:
    model, before = network(), network()
    optimizer = optimizers.call(Chosen(name, {"weight_decay": 0.5}), model, 0.1)
    step(optimizer, model, gradient=0.0)
    for (key, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert (new < old).all() if key in ("0.weight", "4.weight") else new.equal(old), key


@every_optimizer
def test_an_optimizer_has_all_trainable_parameters_once(name: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = optimizers.call(Chosen(name), model, 0.1)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def scales(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, float]:
    """Factor of the learning rate of each trainable parameter, by name."""
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    return {name: scale[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@every_optimizer
def test_layer_decay_makes_the_rate_smaller_from_the_last_layer_down(name: str) -> None:
    model = network()
    assert scales(optimizers.call(Chosen(name, {"layer_decay": 0.5}), model, 0.1), model) == {
        "0.weight": 0.5,
        "0.bias": 0.5,
        "1.weight": 0.5,  # a norm belongs to its convolution
        "1.bias": 0.5,
        "3.weight": 0.5,
        "3.bias": 0.5,
        "4.weight": 1.0,
        "4.bias": 1.0,
    }


@every_optimizer
def test_the_rate_of_a_group_is_the_rate_asked_for_times_its_scale(name: str) -> None:
    optimizer = optimizers.call(Chosen(name, {"layer_decay": 0.5}), network(), 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1 * g["lr_scale"] for g in optimizer.param_groups]


@every_optimizer
def test_scales_outlive_a_checkpoint(name: str) -> None:
    model = network()
    optimizer = optimizers.call(Chosen(name, {"layer_decay": 0.5}), model, 0.1)
    resumed = optimizers.call(Chosen(name, {"layer_decay": 0.5}), model, 0.1)
    resumed.load_state_dict(optimizer.state_dict())
    assert scales(resumed, model) == scales(optimizer, model)


@every_optimizer
@pytest.mark.parametrize("layer_decay", [0.1, 1.0])
def test_weight_decay_falls_on_the_same_parameters_with_and_without_layer_decay(name: str, layer_decay: float) -> None:
    model = network()
    params = {"weight_decay": 0.5, "layer_decay": layer_decay}
    groups = optimizers.call(Chosen(name, params), model, 0.1).param_groups
    decays = {id(p) for group in groups if group["weight_decay"] == 0.5 for p in group["params"]}
    assert decays == {id(model[0].weight), id(model[4].weight)}


@every_optimizer
def test_all_groups_start_at_the_rate_asked_for(name: str) -> None:
    assert {group["lr"] for group in optimizers.call(Chosen(name), network(), 0.025).param_groups} == {0.025}


@every_optimizer
def test_a_step_goes_against_the_gradient(name: str) -> None:
    model, before = network(), network()
    step(optimizers.call(Chosen(name, {"weight_decay": 0.0}), model, 0.01), model, gradient=1.0)
    assert all((new < old).all() for new, old in zip(model.parameters(), before.parameters(), strict=True))


def test_the_first_step_of_adamw_is_the_rate_and_its_decay() -> None:
    model, before = network(), network()
    step(adamw(model, 0.01, weight_decay=0.3), model, gradient=7.0)
    torch.testing.assert_close(model[4].weight, before[4].weight * (1 - 0.01 * 0.3) - 0.01)
    torch.testing.assert_close(model[4].bias, before[4].bias - 0.01)


def test_the_first_step_of_sgd_is_nesterovs() -> None:
    model, before = network(), network()
    step(sgd(model, 0.1, momentum=0.9, weight_decay=0.01), model, gradient=2.0)
    torch.testing.assert_close(model[4].weight, before[4].weight - 0.1 * 1.9 * (2 + 0.01 * before[4].weight))
    torch.testing.assert_close(model[4].bias, before[4].bias - 0.1 * 1.9 * 2)


def test_sgd_without_momentum_is_plain_descent() -> None:
    model, before = network(), network()
    step(sgd(model, 0.1, momentum=0.0, weight_decay=0.0), model, gradient=2.0)
    torch.testing.assert_close(model[0].weight, before[0].weight - 0.2)


def test_plain_momentum_is_that_of_torch() -> None:
    model, before = network(), network()
    optimizer = sgd(model, 0.1, momentum=0.9, nesterov=False, weight_decay=0.0)
    for _ in range(2):
        step(optimizer, model, gradient=2.0)
    torch.testing.assert_close(model[0].weight, before[0].weight - 0.1 * (2 + 1.9 * 2))


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient() -> None:
    model, before = network(), network()
    step(adam(model, 0.01), model, gradient=-300.0)
    torch.testing.assert_close(model[4].weight, before[4].weight + 0.01)


def test_adam_takes_weight_decay_for_a_gradient() -> None:
    model, before = network(), network()
    step(adam(model, 0.01, weight_decay=0.3), model, gradient=0.0)
    torch.testing.assert_close(model[4].weight, before[4].weight - 0.01)  # decoupled, it would be 0.01 * 0.3 of it


def test_adam_leaves_out_weight_decay_if_nothing_else_is_said() -> None:
    assert {group["weight_decay"] for group in adam(network(), 0.01).param_groups} == {0.0}


def test_the_layers_of_a_nested_network_are_those_within() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
        nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.Sequential(nn.Conv2d(2, 2, 3))),
        nn.Linear(2, 2),
    )
    found = scales(adamw(model, 0.1, layer_decay=0.5), model)
    assert {name: found[f"{name}.weight"] for name in ("0.0", "0.1", "1.0", "1.1", "1.2.0", "2")} == {
        "0.0": 0.125,
        "0.1": 0.125,
        "1.0": 0.25,
        "1.1": 0.25,
        "1.2.0": 0.5,
        "2": 1.0,
    }


def test_a_frozen_layer_still_counts_as_one() -> None:
    model = network()
    model[0].requires_grad_(False)
    assert scales(adamw(model, 0.1, layer_decay=0.5), model)["1.weight"] == 0.5


@pytest.mark.parametrize("name", ["small_cnn", "inception_resnet"])
def test_the_stem_of_an_own_family_has_the_smallest_rate_and_its_head_the_full_one(name: str) -> None:
    model = build_model(Chosen(name), 28, 3, 0.0)
    found = list(scales(adamw(model, 0.1, layer_decay=0.5), model).values())
    assert found == sorted(found)
    assert found[0] <= 0.5**3
    assert found[-1] == 1.0


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "convnext_atto", "vit_tiny_patch16_224", "inception_v3"])
def test_groups_of_a_timm_network_are_those_of_timm(name: str, wrapped: bool) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    expected = param_groups_layer_decay(
        model, weight_decay=0.05, layer_decay=0.7, no_weight_decay_list=getattr(model, "no_weight_decay", set)()
    )
    optimizer = adamw(nn.Sequential(model) if wrapped else model, 0.1, weight_decay=0.05, layer_decay=0.7)

    def choices(groups: list[dict]) -> dict[int, tuple[float, float]]:
        return {id(p): (group["weight_decay"], group["lr_scale"]) for group in groups for p in group["params"]}

    assert choices(optimizer.param_groups) == choices(expected)
