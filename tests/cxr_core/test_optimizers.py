"""Every registered optimizer keeps the same rules; the known ones take the first step of their papers."""

import pytest
import torch
from torch import nn, optim

from cxr_core.optimizers import adamw, optimizers, sgd
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
