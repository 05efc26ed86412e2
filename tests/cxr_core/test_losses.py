"""Every registered loss keeps the same rules; the known ones equal torch and their closed forms."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cxr_core.losses import Loss, bce, build_loss, losses, weighted_bce
from cxr_core.registry import Chosen

NAN = math.nan
every_loss = pytest.mark.parametrize("name", losses)


def entries(films: int = 24, findings: int = 3, unlabelled: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits in double precision, and targets with some NaN."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(films, findings, generator=generator, dtype=torch.float64)
    targets = (torch.rand(films, findings, generator=generator) < 0.3).double()
    targets[torch.rand(films, findings, generator=generator) < unlabelled] = NAN
    targets[:2] = torch.tensor([[0.0], [1.0]])  # each finding has a positive and a negative
    return logits, targets


def build(name: str, targets: Tensor) -> Loss:
    counts = torch.stack([targets.nansum(0), (1 - targets).nansum(0)])
    return build_loss(Chosen(name), counts)


# Rules of all losses


@every_loss
def test_a_loss_is_one_finite_number_that_is_not_negative(name: str) -> None:
    logits, targets = entries()
    value = build(name, targets)(logits, targets)
    assert value.shape == ()
    assert 0 <= value.item() < math.inf


@every_loss
def test_a_loss_and_its_gradient_stay_finite_on_extreme_logits(name: str) -> None:
    logits, targets = entries()
    extreme = (1e4 * logits.sign()).float().requires_grad_()
    value = build(name, targets)(extreme, targets.float())
    value.backward()
    assert value.isfinite()
    assert extreme.grad.isfinite().all()


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
