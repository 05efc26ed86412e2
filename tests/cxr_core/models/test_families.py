"""Every registered architecture family keeps the same rules."""

import copy
import re
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cxr_core.models import Infeasible, build_model, measure_model, models
from cxr_core.registry import Chosen

every_family = pytest.mark.parametrize("name", models)


def films(count: int, size: int = 28) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def build(name: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return build_model(Chosen(name), 28, 3, dropout)


@cache
def built(name: str) -> nn.Module:
    """The same network for all tests that leave its weights alone: large ones take a second to build."""
    return build(name)


@every_family
@pytest.mark.parametrize("size", [28, 64, 224])
def test_a_family_gives_a_logit_for_each_finding_at_usual_sizes(name: str, size: int) -> None:
    with torch.device("meta"):
        model = build_model(Chosen(name), size, 14, 0.0)
        assert model(torch.empty(2, 1, size, size)).shape == (2, 14)


@every_family
def test_a_family_is_built_on_the_meta_device_without_memory(name: str) -> None:
    with torch.device("meta"):
        model = build_model(Chosen(name), 28, 3, 0.5)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@every_family
def test_a_few_steps_lower_the_loss_of_a_fixed_batch(name: str) -> None:
    model = copy.deepcopy(built(name)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch, targets = films(4), (films(4)[:, 0, 0, :3] > 0).float()
    losses = []
    for _ in range(3):
        loss = binary_cross_entropy_with_logits(model(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


def refusal(name: str, size: int) -> str | None:
    try:
        measure_model(Chosen(name), size, 3, 0.0)
    except Infeasible as reason:
        return str(reason)
    return None


@every_family
@pytest.mark.parametrize("size", [1, 4, 8, 15])
def test_a_film_is_either_large_enough_or_refused_with_its_size(name: str, size: int) -> None:
    if reason := refusal(name, size):
        assert re.search(rf"^{name} .*\b{size}\b", reason)
    else:
        assert built(name).eval()(films(1, size)).shape == (1, 3)


@pytest.mark.parametrize("name", ["small_cnn", "inception_resnet", "densenet121"])
def test_films_below_16_px_are_refused_by_families_that_would_reduce_them_to_nothing(name: str) -> None:
    assert refusal(name, 15) == f"{name} needs films of 16 px or more, not 15"
    assert refusal(name, 16) is None


@every_family
def test_a_footprint_counts_the_parameters_of_a_real_network(name: str) -> None:
    real = sum(parameter.numel() for parameter in built(name).parameters())
    assert measure_model(Chosen(name), 28, 3, 0.0).parameters == real


@every_family
def test_the_same_seed_builds_the_same_network(name: str) -> None:
    first, second = built(name).state_dict(), build(name).state_dict()
    assert all(tensor.equal(second[key]) for key, tensor in first.items())


@every_family
def test_dropout_lies_before_the_last_linear_layer_and_nowhere_else(name: str) -> None:
    """The share dropped within 4 sigma of the rate: a false alarm in 1 of 16,000 seeds."""
    model, seen = build(name, dropout=0.4), []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model.eval()(films(8))
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # so that only dropout tells training from evaluation
                module.eval()
        model(films(8))
    whole, dropped = seen
    active, kept = whole != 0, dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.6)
    count = int(active.sum())
    assert abs(int((active & ~kept).sum()) - 0.4 * count) < 4 * (0.4 * 0.6 * count) ** 0.5


@every_family
def test_dropout_adds_no_weights(name: str) -> None:
    with torch.device("meta"):
        dropping = build(name, dropout=0.4).state_dict()
    assert {key: tensor.shape for key, tensor in dropping.items()} == {
        key: tensor.shape for key, tensor in built(name).state_dict().items()
    }


@every_family
def test_films_do_not_influence_each_other_in_evaluation(name: str) -> None:
    model = built(name).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(films(3))[1:2], model(films(3)[1:2]), rtol=1e-4, atol=1e-5)
