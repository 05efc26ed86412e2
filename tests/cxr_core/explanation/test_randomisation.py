"""The check that heat maps depend on what a network has learnt."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from cxr_core.explanation import GradCam
from cxr_core.explanation.randomisation import randomised, sanity_check, spearman, ssim
from cxr_core.models import build_model
from cxr_core.registry import Chosen

SIZE = 32


def network(seed: int, name: str = "small_cnn") -> nn.Module:
    torch.manual_seed(seed)
    return build_model(Chosen(name, {"name": "test_vit"} if name == "timm" else {}), SIZE, 2, 0.0).eval()


def films(count: int = 6) -> Tensor:
    return torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def equal_layers(first: nn.Module, second: nn.Module) -> set[str]:
    other = second.state_dict()
    return {key for key, value in first.state_dict().items() if value.is_floating_point() and value.equal(other[key])}


@pytest.mark.parametrize("name", ["small_cnn", "timm"])
def test_layers_become_random_from_the_logits_down_until_all_are(name: str) -> None:
    trained, fresh = network(0, name), network(1, name)
    with torch.no_grad():
        for weight in trained.parameters():
            weight += 0.1 * torch.randn_like(weight)  # a norm's weights start alike, whatever the seed
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    shares, taken = [], []
    for share, model in randomised(trained, fresh):
        shares.append(share)
        taken.append(equal_layers(model, fresh) - equal_layers(trained, fresh))
    last = {"small_cnn": {"15.weight", "15.bias"}, "timm": {"net.head.weight"}}[name]
    assert last <= taken[0]
    assert all(less < more for less, more in pairwise(taken))
    assert taken[-1] == equal_layers(fresh, fresh) - equal_layers(trained, fresh)
    assert shares[-1] == 1.0
    assert all(value.equal(before[key]) for key, value in trained.state_dict().items())


def test_maps_of_a_network_that_learnt_are_said_to_depend_on_its_weights() -> None:
    trained, given = network(0), films()
    told = sanity_check(GradCam(trained, given), [network(1), network(2), network(3)], given, [0, 1] * 3)
    last = told["steps"][-1]
    assert -1 <= last["low"] < last["spearman"] < last["high"] <= 1
    assert last["spearman"] < 0.5
    assert told["sentence"].startswith("The maps depend on the trained weights")
    assert (told["films"], told["networks"]) == (6, 3)


class Edges(nn.Module):
    """Shows the film, whatever its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.head = nn.Identity(), nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head.weight.abs().T * self.look(2 * x).mean((2, 3))


def test_maps_that_do_not_depend_on_the_weights_are_found_out() -> None:
    given = films()
    told = sanity_check(GradCam(Edges(), given), [Edges(), Edges()], given, [0, 1] * 3)
    assert told["steps"][-1]["spearman"] == pytest.approx(1, abs=1e-6)
    assert told["steps"][-1]["ssim"] == pytest.approx(1, abs=1e-4)
    assert told["sentence"].startswith("The maps hardly depend on the trained weights")


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, (2, 12, 12)).astype(float)
    assert spearman(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert spearman(first, first**3) == pytest.approx(1)
    assert np.isnan(spearman(first, np.ones((12, 12))))


def test_structural_similarity_is_1_for_the_same_and_below_0_for_a_negative_of_fine_grain() -> None:
    grain = np.indices((40, 40)).sum(0) % 2 * 2.0 - 1
    assert ssim(grain, grain) == pytest.approx(1)
    assert ssim(grain, 5 * grain) == pytest.approx(1)  # of their own scale
    assert ssim(grain, -grain) < -0.9


def test_structural_similarity_of_two_grey_levels_is_that_of_their_means() -> None:
    """Without any structure SSIM is (2 a b + c1) / (a² + b² + c1): here of 1 and -1."""
    c1 = (0.01 * 2) ** 2
    assert ssim(np.full((20, 20), 3.0), np.full((20, 20), -2.0)) == pytest.approx((c1 - 2) / (c1 + 2))
