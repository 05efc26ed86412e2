"""Every registered loss keeps the same rules; the known ones equal torch and their closed forms."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from cxr_core.losses import (
    Loss,
    asymmetric,
    auc_margin,
    batch_weighted_bce,
    bce,
    build_loss,
    focal,
    losses,
    weighted_bce,
)
from cxr_core.registry import Chosen, Component

NAN = math.nan
every_loss = pytest.mark.parametrize("name", losses)


def corners(component: Component) -> list[Chosen]:
    """The component with each combination of the ends of its ranges."""
    ends = [(p.range.low, p.range.high) for p in component.parameters.values()]
    return [
        Chosen(component.name, dict(zip(component.parameters, corner, strict=True)))
        for corner in itertools.product(*ends)
    ]


every_corner = pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(chosen, id=f"{chosen.name}{tuple(chosen.params.values())}")
        for component in losses.values()
        for chosen in corners(component)
    ],
)


def entries(films: int = 24, findings: int = 3, unlabelled: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits in double precision, and targets with some NaN."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(films, findings, generator=generator, dtype=torch.float64)
    targets = (torch.rand(films, findings, generator=generator) < 0.3).double()
    targets[torch.rand(films, findings, generator=generator) < unlabelled] = NAN
    targets[:2] = torch.tensor([[0.0], [1.0]])  # each finding has a positive and a negative
    return logits, targets


def build(chosen: str | Chosen, targets: Tensor) -> Loss:
    counts = torch.stack([targets.nansum(0), (1 - targets).nansum(0)])
    return build_loss(Chosen(chosen) if isinstance(chosen, str) else chosen, counts)


# Rules of all losses


@every_loss
def test_a_loss_is_one_finite_number_that_is_not_negative(name: str) -> None:
    logits, targets = entries()
    value = build(name, targets)(logits, targets)
    assert value.shape == ()
    assert 0 <= value.item() < math.inf


@every_corner
@pytest.mark.parametrize("size", [0.0, 100.0, 1e4])
@pytest.mark.parametrize("towards", ["the label", "its opposite"])
def test_a_loss_and_its_gradient_stay_finite_on_extreme_logits(chosen: Chosen, size: float, towards: str) -> None:
    _, targets = entries()
    right = torch.where(targets == 1, size, -size).float()
    logits = (right if towards == "the label" else -right).requires_grad_()
    value = build(chosen, targets)(logits, targets.float())
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_corner
def test_the_gradient_of_a_loss_is_the_slope_of_its_value(chosen: Chosen) -> None:
    logits, targets = entries()
    assert torch.autograd.gradcheck(lambda x: build(chosen, targets)(x, targets), logits.requires_grad_())


@every_loss
def test_what_is_not_labelled_has_no_gradient(name: str) -> None:
    logits, targets = entries()
    logits.requires_grad_()
    build(name, targets)(logits, targets).backward()
    assert targets.isnan().any()
    assert (logits.grad[targets.isnan()] == 0).all()
    assert (logits.grad[~targets.isnan()] != 0).any()


@every_loss
def test_a_batch_without_labels_costs_nothing(name: str) -> None:
    logits, targets = entries()
    logits.requires_grad_()
    value = build(name, targets)(logits, torch.full_like(targets, NAN))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@every_loss
def test_a_film_without_labels_does_not_change_the_mean(name: str) -> None:
    logits, targets = entries()
    loss = build(name, targets)
    longer = torch.cat([targets, torch.full((5, 3), NAN)])
    assert loss(torch.cat([logits, logits[:5]]), longer).item() == pytest.approx(loss(logits, targets).item(), rel=1e-9)


@every_loss
def test_a_batch_given_twice_has_the_same_mean(name: str) -> None:
    logits, targets = entries()
    loss = build(name, targets)
    twice = loss(logits.repeat(2, 1), targets.repeat(2, 1))
    assert twice.item() == pytest.approx(loss(logits, targets).item(), rel=1e-9)


@every_loss
def test_the_order_of_films_and_of_findings_does_not_matter(name: str) -> None:
    logits, targets = entries()
    films, findings = torch.randperm(24, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1])
    moved_logits, moved_targets = logits[films][:, findings], targets[films][:, findings]
    moved = build(name, moved_targets)(moved_logits, moved_targets)
    assert moved.item() == pytest.approx(build(name, targets)(logits, targets).item(), rel=1e-9)


@every_loss
def test_a_loss_falls_towards_the_label(name: str) -> None:
    logits, targets = entries(unlabelled=0)
    logits.requires_grad_()
    build(name, targets)(logits, targets).backward()
    assert (logits.grad[targets == 1] <= 0).all()
    assert (logits.grad[targets == 0] >= 0).all()


@every_loss
def test_a_right_answer_costs_less_than_none_and_a_wrong_one_more(name: str) -> None:
    _, targets = entries()
    loss = build(name, targets)
    right, undecided = torch.where(targets == 1, 3.0, -3.0).double(), torch.zeros_like(targets)
    assert loss(right, targets) < loss(undecided, targets) < loss(-right, targets)


@every_loss
def test_a_loss_of_single_precision_is_that_of_double_precision(name: str) -> None:
    logits, targets = entries()
    loss = build(name, targets)
    assert loss(logits.float(), targets.float()).item() == pytest.approx(loss(logits, targets).item(), rel=1e-5)


@every_loss
@pytest.mark.parametrize("only", [0.0, 1.0])
def test_a_loss_and_its_gradient_survive_a_batch_of_one_class(name: str, only: float) -> None:
    logits, targets = entries()
    logits.requires_grad_()
    value = build(name, targets)(logits, 0 * targets + only)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_a_loss_survives_a_finding_without_positives(name: str) -> None:
    logits, targets = entries()
    targets[:, 1] = torch.where(targets[:, 1].isnan(), NAN, 0.0)
    assert build(name, targets)(logits, targets).isfinite()


# Closed forms


def test_bce_equals_torchs_on_the_labelled_entries() -> None:
    logits, targets = entries()
    labelled = ~targets.isnan()
    expected = binary_cross_entropy_with_logits(logits[labelled], targets[labelled])
    assert bce(logits, targets).item() == pytest.approx(expected.item(), rel=1e-12)


def test_bce_of_an_undecided_network_is_ln_2() -> None:
    _, targets = entries()
    assert bce(torch.zeros_like(targets), targets).item() == pytest.approx(math.log(2), rel=1e-12)


def test_weighted_bce_weighs_positives_with_negatives_per_positive() -> None:
    logits, targets = torch.tensor([[0.3, -1.0], [0.8, 0.4]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    counts = torch.tensor([[10.0, 25.0], [90.0, 75.0]])  # weights 9 and 3
    softplus = [math.log1p(math.exp(x)) for x in (-0.3, -1.0, 0.8, -0.4)]
    expected = (9 * softplus[0] + softplus[1] + softplus[2] + 3 * softplus[3]) / 4
    assert weighted_bce(logits, targets, counts).item() == pytest.approx(expected, rel=1e-6)


def test_weighted_bce_caps_its_weights() -> None:
    logits, targets = torch.tensor([[0.3]]), torch.tensor([[1.0]])
    weight = weighted_bce(logits, targets, torch.tensor([[1.0], [500.0]]), cap=50) / bce(logits, targets)
    assert weight.item() == pytest.approx(50, rel=1e-6)


def test_weighted_bce_of_a_balanced_finding_is_bce() -> None:
    logits, targets = entries()
    assert weighted_bce(logits, targets, torch.full((2, 3), 40.0)).equal(bce(logits, targets))


def test_weighted_bce_is_built_with_the_counts_of_the_training_split() -> None:
    logits, targets = torch.tensor([[0.3]]), torch.tensor([[1.0]])
    loss = build_loss(Chosen("weighted_bce", {"cap": 20.0}), torch.tensor([[10.0], [70.0]]))
    assert (loss(logits, targets) / bce(logits, targets)).item() == pytest.approx(7, rel=1e-6)


def test_smoothed_targets_lie_half_the_smoothing_from_the_label() -> None:
    logits, targets = torch.tensor([[0.7], [-0.2]]), torch.tensor([[1.0], [0.0]])
    expected = binary_cross_entropy_with_logits(logits, torch.tensor([[0.95], [0.05]]))
    assert bce(logits, targets, smoothing=0.1).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["bce", "weighted_bce", "batch_weighted_bce"])
def test_smoothing_draws_each_probability_to_the_smoothed_label_under_any_class_weight(name: str) -> None:
    _, targets = entries()
    probabilities = targets * 0.8 + 0.1
    logits = torch.logit(probabilities.nan_to_num(0.5)).requires_grad_()
    build(Chosen(name, {"smoothing": 0.2}), targets)(logits, targets).backward()
    assert logits.grad.abs().max() < 1e-15


def test_batch_weighted_bce_has_the_weights_of_chestxray14_by_its_counts() -> None:
    targets = torch.zeros(1_211_336, 1, dtype=torch.float64)  # the official train_val split, all findings pooled
    targets[:53_970] = 1
    logits = torch.zeros_like(targets).requires_grad_()
    batch_weighted_bce(logits, targets).backward()
    beta_p, beta_n = 2 * len(targets) * logits.grad.abs()[[0, -1], 0]  # an undecided entry has the slope 1/2
    assert beta_p.item() == pytest.approx(22.4, abs=0.05)
    assert beta_n.item() == pytest.approx(1.047, abs=0.0005)


def test_batch_weighted_bce_is_the_mean_of_positives_plus_the_mean_of_negatives() -> None:
    logits, targets = entries()
    sides = [binary_cross_entropy_with_logits(logits[targets == y], targets[targets == y]) for y in (0, 1)]
    assert batch_weighted_bce(logits, targets).item() == pytest.approx(sum(sides).item(), rel=1e-12)


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_batch_weighted_bce_of_a_batch_of_one_class_is_bce(only: float) -> None:
    logits, targets = entries()
    targets = 0 * targets + only
    assert batch_weighted_bce(logits, targets).equal(bce(logits, targets))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
def test_focal_equals_torchvisions_on_the_labelled_entries(gamma: float, alpha: float | None) -> None:
    logits, targets = entries()
    labelled = ~targets.isnan()
    expected = sigmoid_focal_loss(
        logits[labelled], targets[labelled], alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean"
    )
    assert focal(logits, targets, gamma=gamma, alpha=alpha).item() == pytest.approx(expected.item(), rel=1e-9)


def test_focal_without_focus_is_bce() -> None:
    logits, targets = entries()
    assert focal(logits, targets, gamma=0.0).item() == pytest.approx(bce(logits, targets).item(), rel=1e-12)


def test_focal_makes_an_entry_of_probability_0_9_a_hundred_times_lighter() -> None:  # Lin et al. 2017, sec. 3.2
    logits, targets = torch.logit(torch.tensor([[0.9]], dtype=torch.float64)), torch.ones(1, 1, dtype=torch.float64)
    assert (bce(logits, targets) / focal(logits, targets, gamma=2.0)).item() == pytest.approx(100, rel=1e-9)


@pytest.mark.parametrize(("target", "probability"), [(1.0, 0.3), (1.0, 0.9), (0.0, 0.3), (0.0, 0.9)])
def test_asymmetric_equals_its_formula(target: float, probability: float) -> None:
    value = asymmetric(
        torch.logit(torch.tensor([[probability]], dtype=torch.float64)),
        torch.tensor([[target]], dtype=torch.float64),
        gamma_pos=1.5,
        gamma_neg=3.0,
        margin=0.1,
    )
    shifted = probability - 0.1
    expected = -((1 - probability) ** 1.5) * math.log(probability) if target else -(shifted**3) * math.log(1 - shifted)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_asymmetric_without_margin_and_with_equal_gammas_is_focal() -> None:
    logits, targets = entries()
    value = asymmetric(logits, targets, gamma_pos=2.5, gamma_neg=2.5, margin=0.0)
    assert value.item() == pytest.approx(focal(logits, targets, gamma=2.5).item(), rel=1e-12)


def test_asymmetric_spends_nothing_on_negatives_below_its_margin() -> None:
    logits = torch.logit(torch.tensor([[0.001], [0.09]])).requires_grad_()
    value = asymmetric(logits, torch.zeros(2, 1), gamma_neg=1.0, margin=0.1)
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("gamma", [0.001, 0.5])
def test_asymmetric_with_a_gamma_below_1_has_a_finite_slope_at_vanishing_probabilities(gamma: float) -> None:
    logits = torch.tensor([[-90.0], [-100.0], [-110.0]]).requires_grad_()
    asymmetric(logits, torch.zeros(3, 1), gamma_neg=gamma, margin=0.0).backward()
    assert logits.grad.isfinite().all()


def probabilities_of_one_finding() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(20, 1, generator=generator, dtype=torch.float64)
    targets = (torch.rand(20, 1, generator=generator) < 0.3).double()
    return scores, targets


@pytest.mark.parametrize("margin", [0.05, 0.3, 1.0])
def test_auc_margin_is_the_saddle_point_of_the_published_loss(margin: float) -> None:
    scores, targets = probabilities_of_one_finding()
    positive, negative = scores[targets == 1], scores[targets == 0]
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    variances = sum(((side[:, None] - grid) ** 2).mean(0).min() for side in (positive, negative))
    alpha = 2 * grid
    dual = (2 * alpha * (margin - positive.mean() + negative.mean()) - alpha**2).max()
    value = auc_margin(torch.logit(scores), targets, margin=margin)
    assert value.item() == pytest.approx((variances + dual).item(), abs=1e-6)


def test_auc_margin_at_1_is_the_mean_square_over_all_pairs() -> None:
    scores, targets = probabilities_of_one_finding()
    gaps = scores[targets == 1][:, None] - scores[targets == 0]
    expected = ((1 - gaps) ** 2).mean()
    assert auc_margin(torch.logit(scores), targets).item() == pytest.approx(expected.item(), rel=1e-9)


def test_auc_margin_leaves_out_findings_without_both_classes() -> None:
    logits, targets = entries()
    targets = torch.cat([targets, 0 * targets], 1)
    targets[:, 0] = NAN
    targets[:, 2] = 0 * targets[:, 2] + 1
    logits = logits.repeat(1, 2).requires_grad_()
    value = auc_margin(logits, targets)
    value.backward()
    assert value.item() == pytest.approx(auc_margin(logits[:, 1:2], targets[:, 1:2]).item(), rel=1e-12)
    assert (logits.grad[:, [0, 2, 3, 4, 5]] == 0).all()


def test_auc_margin_asks_for_no_more_distance_than_its_margin() -> None:
    targets = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    logits = torch.logit(0.3 + 0.4 * targets).requires_grad_()
    value = auc_margin(logits, targets, margin=0.3)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max() < 1e-7
