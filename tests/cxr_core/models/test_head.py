"""The end of a network: its last layers, and where it starts from."""

import math

import pytest
import torch
from torch import nn

from cxr_core.models import Infeasible, build_model, last_layers, logits_of_prevalence, models, set_head_bias
from cxr_core.registry import Chosen

PARAMS = {"timm": {"name": "test_resnet"}}


def test_the_logit_of_a_prevalence_is_its_log_odds_with_a_film_added_to_either_side() -> None:
    logits = logits_of_prevalence(torch.tensor([0, 24, 99]), torch.tensor([98, 98, 99]))
    torch.testing.assert_close(logits, torch.tensor([math.log(1 / 99), math.log(25 / 75), math.log(100 / 1)]))


@pytest.mark.parametrize("name", models)
def test_a_head_that_starts_at_prevalences_gives_them_for_features_of_nothing(name: str) -> None:
    model = build_model(Chosen(name, PARAMS.get(name, {})), 64, 3, 0.0).eval()
    prevalences = torch.tensor([0.002, 0.1, 0.9])
    set_head_bias(model, prevalences.logit())
    for layer in last_layers(model):
        features = torch.zeros(2, layer.weight.shape[1])
        torch.testing.assert_close(layer(features).sigmoid(), prevalences.expand(2, 3))


@pytest.mark.parametrize("name", models)
def test_the_last_layer_is_the_one_whose_output_are_the_logits(name: str) -> None:
    model, seen = build_model(Chosen(name, PARAMS.get(name, {})), 64, 3, 0.0).eval(), []
    last_layers(model)[0].register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 64, 64))
    assert seen[0].equal(logits)


def test_a_last_layer_that_is_a_convolution_takes_a_bias_too() -> None:
    model = build_model(Chosen("timm", {"name": "resnetv2_18"}), 64, 3, 0.0)
    set_head_bias(model, torch.tensor([-1.0, 0.0, 2.0]))
    (layer,) = last_layers(model)
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    assert layer.bias.tolist() == [-1.0, 0.0, 2.0]


@pytest.mark.parametrize("model", [nn.Linear(4, 3, bias=False), nn.Linear(4, 2), nn.Flatten()])
def test_a_network_without_a_bias_for_each_finding_is_refused(model: nn.Module) -> None:
    with pytest.raises(Infeasible, match="head_bias needs a last layer with a bias for each of 3 findings"):
        set_head_bias(model, torch.zeros(3))
