"""What a training may be asked for beyond its components: accumulation, crops, a head's bias, mirrors, auxiliaries."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint
from cxr_core.config import TrainConfig
from cxr_core.data import TrainingData
from cxr_core.evaluate import predict
from cxr_core.models import Infeasible, WithAuxiliary, last_layers
from cxr_core.registry import Chosen
from cxr_core.thresholds import fit_thresholds
from cxr_core.train import Training

Configure = Callable[..., TrainConfig]
NO_NORM = Chosen("small_cnn", {"width": 4, "norm": "none"})  # batch norm sees the part of a batch that is in memory


def one_step(training: Training, films: int = 24) -> tuple[float, list[Tensor]]:
    """Loss and gradients of the first films."""
    index = np.arange(films)
    loss = training._gradient(
        training.normalise(training.train_films.films(index)), training.train_films.targets(index)
    )
    return loss.item(), [parameter.grad.clone() for parameter in training.model.parameters()]


# Accumulation


@pytest.mark.parametrize("loss", ["bce", "weighted_bce", "focal", "asymmetric"])
@pytest.mark.parametrize("part", [2, 5, 8])
def test_accumulated_parts_give_the_whole_batchs_loss_and_gradient(
    loss: str, part: int, configure: Configure, data: TrainingData
) -> None:
    """Labels are missing unevenly, so the parts do not weigh the same."""
    whole, whole_gradients = one_step(Training(configure(model=NO_NORM, loss=Chosen(loss)), data))
    parts, gradients = one_step(Training(configure(model=NO_NORM, loss=Chosen(loss), micro_batch=part), data))
    assert parts == pytest.approx(whole, rel=1e-5)
    for mine, others in zip(gradients, whole_gradients, strict=True):
        torch.testing.assert_close(mine, others, rtol=1e-4, atol=1e-6)


def memory_for(films: int, model: nn.Module) -> None:
    """Let a network run out of memory as a device does, above a number of films."""

    def refuse(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training and len(inputs[0]) > films:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.register_forward_pre_hook(refuse)


def test_when_memory_runs_out_the_batch_is_halved_until_it_fits(configure: Configure, data: TrainingData) -> None:
    training = Training(configure(batch_size=32), data)
    memory_for(9, training.model)
    epochs = list(training.epochs())
    assert training.micro_batch == 8
    assert all(math.isfinite(epoch.train_loss) for epoch in epochs)


def test_a_training_that_is_resumed_remembers_how_much_fitted(
    configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    training = Training(configure(batch_size=32), data)
    memory_for(9, training.model)
    next(training.epochs())
    training.save(tmp_path / "a.pt")
    assert Training(configure(batch_size=32), data, resume_from=tmp_path / "a.pt").micro_batch == 8


def test_a_network_for_which_no_part_is_small_enough_is_infeasible(configure: Configure, data: TrainingData) -> None:
    training = Training(configure(), data)
    memory_for(0, training.model)
    with pytest.raises(Infeasible, match="out of memory even with one film at a time"):
        next(training.epochs())


# What the network is given


def test_a_central_crop_is_all_that_the_network_sees(configure: Configure, data: TrainingData) -> None:
    model = Training(configure(centre_crop=20), data).model.eval()
    films = torch.rand(3, 1, 28, 28)
    blinded = torch.zeros_like(films)
    blinded[..., 4:24, 4:24] = films[..., 4:24, 4:24]
    torch.testing.assert_close(model(films), model(blinded))
    blinded[..., 4, 4] += 10
    assert not torch.allclose(model(films), model(blinded))


def test_a_checkpoint_crops_as_its_training_did(configure: Configure, data: TrainingData, tmp_path: Path) -> None:
    training = Training(configure(centre_crop=20, ema=0.9), data)
    next(training.epochs())
    training.save(tmp_path / "a.pt")
    films = torch.rand(3, 1, 28, 28)
    expected = training.average.model.eval()(films)
    torch.testing.assert_close(load_checkpoint(tmp_path / "a.pt").build()(films), expected)


def test_a_crop_larger_than_the_film_is_infeasible_before_any_training(configure: Configure) -> None:
    with pytest.raises(Infeasible, match="a central crop of 32 px does not fit films of 28 px"):
        configure(centre_crop=32).footprint()


# The head's bias


def test_a_head_may_start_at_the_prevalences_of_training(configure: Configure, data: TrainingData) -> None:
    positives, negatives = data.counts
    (layer,) = last_layers(Training(configure(head_bias=True), data).model)
    expected = np.log((positives + 1) / (negatives + 1))
    np.testing.assert_allclose(layer.bias.detach(), expected, rtol=1e-6)


# Mirrored films


FLIPS = Chosen("standard", {"horizontal_flip": True})


def test_predictions_of_mirrored_films_are_averaged_where_training_mirrored(
    configure: Configure, data: TrainingData
) -> None:
    training = Training(configure(augment=FLIPS, flip_tta=True, epochs=1), data)
    (epoch,) = training.epochs()
    films = training.normalise(Batches(data.val, torch.device("cpu")).films(np.arange(len(data.val))))
    with torch.inference_mode():
        both = [torch.sigmoid(training.model.eval()(view)).numpy() for view in (films, films.flip(-1))]
    losses = -np.log(np.where(data.val.targets == 1, sum(both) / 2, 1 - sum(both) / 2))
    by_label = [losses[~np.isnan(data.val.targets[:, c]), c].mean() for c in range(2)]
    assert epoch.validation.metrics["log_loss"] == pytest.approx(np.mean(by_label), rel=1e-5)


@pytest.mark.parametrize("augment", [Chosen("none"), Chosen("standard")])
def test_films_are_not_mirrored_in_prediction_when_training_did_not(augment: Chosen, configure: Configure) -> None:
    assert not configure(augment=augment, flip_tta=True).mirrors
    assert configure(augment=FLIPS, flip_tta=True).mirrors
    assert not configure(augment=FLIPS).mirrors


# Auxiliary classifiers


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = (nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2)) for _ in "ab")

    def forward(self, films: Tensor) -> Tensor | WithAuxiliary:
        return WithAuxiliary(self.main(films), self.side(films), 0.25) if self.training else self.main(films)


def test_an_auxiliary_classifier_adds_its_weighted_loss(configure: Configure, data: TrainingData) -> None:
    training = Training(configure(), data)
    training.model = training.forward = TwoHeads()
    training.optimizer = torch.optim.SGD(training.model.parameters(), lr=0.1)
    films = training.normalise(training.train_films.films(np.arange(8)))
    targets = training.train_films.targets(np.arange(8))
    expected = training.loss(training.model.main(films), targets) + 0.25 * training.loss(
        training.model.side(films), targets
    )
    assert training._gradient(films, targets).item() == pytest.approx(expected.item(), rel=1e-6)
    assert training.model.side[1].weight.grad.abs().sum() > 0


# Thresholds


def test_a_checkpoint_holds_thresholds_fitted_on_validation(
    configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    training = Training(configure(), data)
    list(training.epochs())
    training.save(tmp_path / "a.pt")
    checkpoint = load_checkpoint(tmp_path / "a.pt")
    model = checkpoint.build().to(memory_format=torch.channels_last)
    probabilities = predict(model, Batches(data.val, torch.device("cpu")), checkpoint.normalise)
    for rule in ("youden", "f1"):
        np.testing.assert_array_equal(
            checkpoint.thresholds[rule], fit_thresholds(data.val.targets, probabilities, rule)
        )
    thresholds = np.array(checkpoint.thresholds["sensitivity_90"])
    positive = data.val.targets == 1
    least = np.ceil(0.9 * positive.sum(0))
    assert (((probabilities >= thresholds) & positive).sum(0) >= least).all()
    assert (((probabilities > thresholds) & positive).sum(0) < least).all()


# Weights trained elsewhere


def test_a_training_that_is_resumed_does_not_need_the_pretrained_file(
    configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    pretrained = Chosen("resnet18", {"pretrained": str(tmp_path / "weights.pth"), "freeze_until": "head"})
    config = configure(model=pretrained, epochs=2)
    training = Training(config, data)
    next(training.epochs())
    training.save(tmp_path / "a.pt")
    (tmp_path / "weights.pth").unlink()
    resumed = Training(config, data, resume_from=tmp_path / "a.pt")
    (last,) = resumed.epochs()
    (expected,) = training.epochs()
    assert last.train_loss == expected.train_loss
    assert load_checkpoint(tmp_path / "a.pt").build()
