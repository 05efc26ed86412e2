"""Measuring a network before a worker is used, and the reasons why one cannot work."""

from collections.abc import Iterator

import pytest
from torch import nn

from cxr_core.models import Footprint, Infeasible, measure_model, models
from cxr_core.registry import Chosen, Registry


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry of families, which forgets afterwards what a test has registered."""
    monkeypatch.setattr(models, "_components", dict(models._components))
    return models


def test_the_footprint_of_a_known_network_is_as_computed_by_hand() -> None:
    width, outputs = 8, 5
    weights = 9 * (width + 2 * width * width + 8 * width * width)
    norms = 2 * (width + 2 * width + 4 * width)
    linear = 4 * width * outputs
    convolved = 9 * (28**2 * width + 14**2 * 2 * width**2 + 7**2 * 8 * width**2)
    footprint = measure_model(Chosen("small_cnn", {"width": width}), 28, outputs, 0.0)
    assert footprint == Footprint(weights + norms + linear + outputs, 2 * (convolved + linear))


def test_a_footprint_leaves_frozen_parameters_out(families: Registry) -> None:
    @families.register("half_frozen")
    def half_frozen(image_size: int, outputs: int, dropout: float) -> nn.Module:
        frozen = nn.Linear(image_size**2, 3).requires_grad_(False)
        return nn.Sequential(nn.Flatten(), frozen, nn.Linear(3, outputs))

    assert measure_model(Chosen("half_frozen"), 16, 2, 0.0).parameters == 3 * 2 + 2


def test_a_network_that_does_not_fit_its_films_is_infeasible_with_torchs_reason(families: Registry) -> None:
    @families.register("for_32_px")
    def for_32_px(image_size: int, outputs: int, dropout: float) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, outputs))

    assert measure_model(Chosen("for_32_px"), 32, 2, 0.0).parameters == 1024 * 2 + 2
    with pytest.raises(Infeasible, match=r"^for_32_px does not fit 28 px films: .*1024"):
        measure_model(Chosen("for_32_px"), 28, 2, 0.0)


def test_a_network_with_another_number_of_outputs_is_infeasible(families: Registry) -> None:
    @families.register("stubborn")
    def stubborn(image_size: int, outputs: int, dropout: float) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, 1000))

    with pytest.raises(Infeasible, match=r"^stubborn gives \(1000,\) values a film instead of 14$"):
        measure_model(Chosen("stubborn"), 28, 14, 0.0)
