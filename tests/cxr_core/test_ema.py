"""The moving average of weights follows its closed form."""

import pytest
import torch
from torch import nn

from cxr_core.ema import WeightAverage


class Scalar(nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def follow(decay: float, values: list[float]) -> WeightAverage:
    """The average after the weight, 0 at first, took each of the values."""
    model = Scalar(0.0)
    average = WeightAverage(model, decay)
    for value in values:
        model.weight.data.fill_(value)
        average.update(model)
    return average


def test_the_average_of_a_few_values_is_as_computed_by_hand() -> None:
    # decays 1/10, 2/11 and, as 3/12 is above it, 0.2
    first = 0.9 * 5
    second = 2 / 11 * first + 9 / 11 * 7
    third = 0.2 * second + 0.8 * -3
    assert follow(0.2, [5, 7, -3]).model.weight.item() == pytest.approx(third, rel=1e-12)


def test_the_average_forgets_with_its_decay_in_the_long_run() -> None:
    long = follow(0.5, [1.0] * 50 + [0.0] * 10)
    assert long.model.weight.item() == pytest.approx(0.5**10, rel=1e-9)


def test_the_first_update_nearly_replaces_the_random_weights() -> None:
    assert follow(0.999, [1.0]).model.weight.item() == pytest.approx(0.9)


def test_the_average_of_a_constant_network_is_that_network() -> None:
    model = Scalar(3.0)
    average = WeightAverage(model, 0.99)
    for _ in range(20):
        average.update(model)
    assert average.model.weight.item() == pytest.approx(3, rel=1e-12)


def test_batch_norm_statistics_are_averaged_like_weights() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.9)
    model.running_mean.fill_(4.0)
    model.running_var.fill_(11.0)
    average.update(model)
    torch.testing.assert_close(average.model.running_mean, torch.full((2,), 0.9 * 4))
    torch.testing.assert_close(average.model.running_var, torch.full((2,), 0.1 * 1 + 0.9 * 11))


def test_the_network_itself_is_left_alone() -> None:
    model = Scalar(3.0)
    average = WeightAverage(model, 0.9)
    model.weight.data.fill_(8.0)
    average.update(model)
    assert model.weight.item() == 8
    assert model.weight.requires_grad


def test_the_average_is_not_trained() -> None:
    assert not any(parameter.requires_grad for parameter in follow(0.9, [1.0]).model.parameters())
