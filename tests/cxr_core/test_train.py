"""A training is a generator whose numbers depend on its configuration and data alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxr_core.augmentations import augmentations
from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint
from cxr_core.config import SEARCHABLE, Task, TrainConfig
from cxr_core.data import DataName, DataPolicy, TrainingData
from cxr_core.data.preparation import prepare
from cxr_core.evaluate import predict, score
from cxr_core.models import Infeasible
from cxr_core.registry import Chosen, Registry
from cxr_core.train import Diverged, Epoch, Training, train

Configure = Callable[..., TrainConfig]
EVERYTHING = {
    "dropout": 0.3,
    "ema": 0.9,
    "sampler": Chosen("oversample", {"threshold": 0.5}),
    "augment": Chosen(
        "standard",
        {
            "rotation_from": -9.0,
            "crop": 0.2,
            "horizontal_flip": True,
            "equalize": 0.5,
            "gamma": 0.2,
            "brightness": 0.1,
            "noise": 0.1,
            "erasing": 0.5,
        },
    ),
    "normalize": Chosen("mean_image"),
    "schedule": Chosen("cosine", {"warmup": 0.2}),
    "loss": Chosen("weighted_bce"),
}
SGD = {"optimizer": Chosen("sgd")}
SMALL_NETS = {
    "inception_resnet": Chosen("inception_resnet", {"width": 8}),
    "resnet18": Chosen("resnet18"),
}
COMPONENTS = [
    pytest.param({slot: Chosen(name)}, id=f"{slot}.{name}")
    for slot, kind in SEARCHABLE.items()
    if isinstance(kind, Registry) and slot != "model"  # the nets are slow: a few of them, in a test of their own
    for name in kind
]


def numbers(epochs: list[Epoch]) -> list[tuple]:
    """What of the epochs does not depend on the clock."""
    return [(e.index, e.fraction, e.train_loss, e.validation.metrics, e.validation.auroc) for e in epochs]


def weights(training: Training) -> dict[str, torch.Tensor]:
    averaged = training.average.model.state_dict() if training.average else {}
    return {**training.model.state_dict(), **{f"average.{key}": tensor for key, tensor in averaged.items()}}


def assert_equal_bit_by_bit(one: Training, other: Training) -> None:
    mine, others = weights(one), weights(other)
    assert mine.keys() == others.keys()
    assert not [key for key in mine if not mine[key].equal(others[key])]


# Exact resume


def assert_resumes_exactly(config: TrainConfig, data: TrainingData, path: Path, stop_after: int = 1) -> None:
    whole = Training(config, data)
    uninterrupted = list(whole.epochs())

    first = Training(config, data)
    before = list(islice(first.epochs(), stop_after))
    first.save(path)
    torch.manual_seed(99)  # another process would have other generators
    torch.rand(7)
    second = Training(config, data)
    second.resume(path)
    after = list(second.epochs())

    np.testing.assert_equal(numbers(before + after), numbers(uninterrupted))
    assert_equal_bit_by_bit(second, whole)


@pytest.mark.parametrize("changes", [EVERYTHING, EVERYTHING | SGD, {"ema": 0.9}, {"ema": 0.0}])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_training_gives_the_same_bits_with_and_without_an_interruption(
    changes: dict, stop_after: int, configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    assert_resumes_exactly(configure(epochs=4, **changes), data, tmp_path / "a.pt", stop_after)


@pytest.mark.parametrize("changes", COMPONENTS)
def test_every_component_resumes_exactly(
    changes: dict, configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    assert_resumes_exactly(configure(epochs=2, **changes), data, tmp_path / "a.pt")


@pytest.mark.parametrize("net", SMALL_NETS.values(), ids=SMALL_NETS)
def test_larger_nets_resume_exactly(net: Chosen, configure: Configure, data: TrainingData, tmp_path: Path) -> None:
    few = [replace(films, rows=films.rows[:12], targets=films.targets[:12]) for films in (data.train, data.val)]
    config = configure(epochs=2, batch_size=6, model=net, ema=0.9, dropout=0.2)
    assert_resumes_exactly(config, TrainingData(*few, data.labels), tmp_path / "a.pt")


def test_a_training_may_be_interrupted_many_times(configure: Configure, data: TrainingData, tmp_path: Path) -> None:
    config, path = configure(epochs=4, **EVERYTHING), tmp_path / "a.pt"
    legs: list[Epoch] = []
    for _ in range(4):
        training = Training(config, data)
        if legs:
            training.resume(path)
        legs.append(next(training.epochs()))
        training.save(path)
    np.testing.assert_equal(numbers(legs), numbers(list(train(config, data))))


def test_train_goes_on_from_a_checkpoint(configure: Configure, data: TrainingData, tmp_path: Path) -> None:
    config = configure(**EVERYTHING)
    training = Training(config, data)
    next(training.epochs())
    training.save(tmp_path / "a.pt")
    rest = list(train(config, data, resume_from=tmp_path / "a.pt"))
    np.testing.assert_equal(numbers(rest), numbers(list(train(config, data)))[1:])


# What the numbers depend on


def test_the_numbers_do_not_depend_on_what_ran_before_in_the_process(configure: Configure, data: TrainingData) -> None:
    config = configure(**EVERYTHING)
    torch.manual_seed(1)
    np.random.seed(1)
    first = numbers(list(train(config, data)))
    list(train(configure(seed=5), data))
    torch.rand(13)
    np.random.rand(13)
    np.testing.assert_equal(numbers(list(train(config, data))), first)


def test_two_trainings_by_turns_do_not_disturb_each_other(configure: Configure, data: TrainingData) -> None:
    configs = configure(**EVERYTHING), configure(**EVERYTHING, seed=5)
    by_turns = list(zip(*(train(config, data) for config in configs), strict=True))
    for turn, config in zip(zip(*by_turns, strict=True), configs, strict=True):
        np.testing.assert_equal(numbers(list(turn)), numbers(list(train(config, data))))


def test_another_seed_gives_other_numbers(configure: Configure, data: TrainingData) -> None:
    assert numbers(list(train(configure(seed=0), data))) != numbers(list(train(configure(seed=1), data)))


def test_a_seed_changes_both_the_first_weights_and_the_order_of_films(
    configure: Configure, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    monkeypatch.setattr(Batches, "targets", lambda self, index: orders.append(index.tolist()) or self._targets[index])
    trainings = [Training(configure(seed=seed, epochs=1), data) for seed in (0, 1)]
    assert not trainings[0].model[0].weight.equal(trainings[1].model[0].weight)
    for training in trainings:
        list(training.epochs())
    assert orders[:3] != orders[3:]


def test_each_epoch_has_an_order_of_its_own(
    configure: Configure, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    monkeypatch.setattr(Batches, "targets", lambda self, index: orders.append(index.tolist()) or self._targets[index])
    list(train(configure(epochs=2), data))
    assert sorted(chain(*orders[:3])) == sorted(chain(*orders[3:])) == list(range(90))
    assert orders[:3] != orders[3:]


# What an epoch says


def test_epochs_count_from_one_to_the_end_of_the_schedule(configure: Configure, data: TrainingData) -> None:
    epochs = list(train(configure(epochs=4), data))
    assert [(epoch.index, epoch.fraction) for epoch in epochs] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]


def test_the_train_loss_is_the_mean_over_the_epoch(configure: Configure, data: TrainingData) -> None:
    config = configure(epochs=1, lr=1e-8, augment=Chosen("none"), batch_size=90)
    before = Training(config, data)
    films = before.normalise(before.train_films.films(np.arange(90)))
    expected = before.loss(before.model.train()(films), before.train_films.targets(np.arange(90)))
    (epoch,) = Training(config, data).epochs()
    assert epoch.train_loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_train_loss_and_the_speed_count_the_films_that_were_drawn(
    configure: Configure, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a constant loss of 2 the mean is 2, however few films a balanced epoch has."""
    clock = count()
    monkeypatch.setattr("cxr_core.train.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    training = Training(configure(epochs=1, sampler=Chosen("balanced_batch")), data)
    training.loss = lambda logits, targets: 2 + 0 * logits.sum()
    (epoch,) = training.epochs()
    with_finding = int((data.train.targets == 1).any(axis=1).sum())
    without = int(((data.train.targets != 1).all(axis=1) & (data.train.targets == 0).any(axis=1)).sum())
    drawn = 2 * min(with_finding, without)
    assert drawn < len(data.train)
    assert epoch.train_loss == pytest.approx(2, rel=1e-6)
    assert epoch.films_per_second == drawn  # the clock goes on by a second between its readings


def test_the_metrics_are_those_of_the_checkpoints_network(
    configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    training = Training(configure(**EVERYTHING), data)
    *_, last = training.epochs()
    training.save(tmp_path / "a.pt")
    checkpoint = load_checkpoint(tmp_path / "a.pt")
    model = checkpoint.build().to(memory_format=torch.channels_last)  # rounds as in training
    probabilities = predict(model, Batches(data.val, torch.device("cpu")), checkpoint.normalise)
    np.testing.assert_equal(score(data.val.targets, probabilities, data.labels).metrics, last.validation.metrics)


def test_a_caller_may_stop_at_any_epoch(configure: Configure, data: TrainingData) -> None:
    training = Training(configure(epochs=1000), data)
    for epoch in training.epochs():
        if epoch.index == 2:
            break
    assert training.epoch == 2


# How it learns


def test_the_rate_follows_the_schedule_step_by_step(configure: Configure, data: TrainingData) -> None:
    config = configure(epochs=2, lr=0.01, optimizer=Chosen("sgd"), schedule=Chosen("cosine"))
    training, rates = Training(config, data), []
    step = training.optimizer.step
    training.optimizer.step = lambda: rates.append(training.optimizer.param_groups[0]["lr"]) or step()
    list(training.epochs())
    middles = (np.arange(6) + 0.5) / 6  # 3 batches an epoch; a step has the rate of its middle
    assert rates == pytest.approx(0.01 * (1 + np.cos(np.pi * middles)) / 2)


def test_the_gradient_is_clipped_to_its_norm(configure: Configure, data: TrainingData) -> None:
    plain = Chosen("sgd", {"momentum": 0.0, "weight_decay": 0.0})
    config = configure(
        epochs=1, batch_size=90, lr=1.0, clip=0.01, optimizer=plain, schedule=Chosen("constant"), loss=Chosen("bce")
    )
    before, training = Training(config, data), Training(config, data)
    list(training.epochs())
    moved = [new - old for new, old in zip(training.model.parameters(), before.model.parameters(), strict=True)]
    assert torch.cat([m.detach().flatten() for m in moved]).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_augmentation_is_for_training_films_only(
    configure: Configure, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(type(augmentations), "call", _recording(augmentations, seen))
    list(train(configure(epochs=1), data))
    assert sum(map(len, seen)) == len(data.train)


def test_films_are_augmented_in_0_to_1_and_normalised_after_that(
    configure: Configure, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, seen = [], []
    monkeypatch.setattr(type(augmentations), "call", _recording(augmentations, given))
    training = Training(configure(epochs=1, augment=Chosen("none"), batch_size=90), data)
    training.model.register_forward_pre_hook(lambda model, args: seen.append(args[0]) if model.training else None)
    list(training.epochs())
    assert 0 <= given[0].min() < 0.1 < 0.7 < given[0].max() <= 1
    assert seen[0].equal(training.normalise(given[0]))
    assert abs(seen[0].mean().item()) < 1e-5
    assert abs(seen[0].std(correction=0).item() - 1) < 1e-5


def _recording(registry: Registry, seen: list[torch.Tensor]) -> Callable:
    """`Registry.call` that also keeps what this registry's components are given first."""

    def call(self: Registry, chosen: Chosen, *args: object) -> object:
        if self is registry:
            seen.append(args[0])
        return self[chosen.name].function(*args, **chosen.params)

    return call


def test_a_small_net_learns_pneumonia_in_two_epochs(real_data: Path, configure: Configure) -> None:
    """0.95 of validation AUROC, on real films of 28 px; the saturated net reaches 0.996."""
    task = Task("binary", ("Pneumonia",))
    name = DataName("medmnist", str(real_data / "pneumoniamnist.npz"))
    prepared = prepare(name, DataPolicy(image_size=28, validation=0.1), task)
    films = TrainingData.open(prepared.cache, prepared.development, task.labels)
    config = configure(model=Chosen("small_cnn", {"width": 16}), epochs=2, batch_size=64)
    *_, last = train(replace(config, task=task), films)
    assert last.validation.auroc["Pneumonia"] > 0.95


# How it ends badly


def test_an_absurd_rate_diverges_with_the_epoch_in_the_message(configure: Configure, data: TrainingData) -> None:
    with pytest.raises(Diverged, match=r"^the training loss became (nan|inf) in epoch 1$"):
        list(train(configure(lr=1e38, optimizer=Chosen("sgd")), data))


def test_poisoned_data_diverge_in_the_epoch_that_meets_them(configure: Configure, data: TrainingData) -> None:
    epochs = train(configure(epochs=5), data)
    next(epochs)
    next(epochs)
    data.train.targets[5] = math.inf
    with pytest.raises(Diverged, match=r"^the training loss became -?(nan|inf) in epoch 3$"):
        next(epochs)


def test_weights_that_break_in_the_last_step_are_found_by_the_validation(
    configure: Configure, data: TrainingData
) -> None:
    one_step = configure(batch_size=90, lr=1e38, clip=1000.0, optimizer=Chosen("sgd"), schedule=Chosen("constant"))
    with pytest.raises(Diverged, match=r"^the network's outputs are not finite after epoch 1$"):
        list(train(one_step, data))


def test_a_network_that_cannot_work_is_infeasible_before_any_training(configure: Configure, data: TrainingData) -> None:
    tiny = [replace(films, images=films.images[:, :8, :8]) for films in (data.train, data.val)]
    config = replace(configure(), image_size=8)
    with pytest.raises(Infeasible, match="16 px or more, not 8"):
        Training(config, TrainingData(*tiny, data.labels))


@pytest.mark.parametrize(
    "changes",
    [{"task": Task("multilabel", ("Nodule", "Mass"))}, {"task": Task("binary", ("Mass",))}, {"image_size": 64}],
    ids=["order of labels", "labels", "image size"],
)
def test_a_configuration_of_other_films_is_refused(changes: dict, configure: Configure, data: TrainingData) -> None:
    """Its checkpoint would name the wrong findings, or the wrong preprocessing."""
    with pytest.raises(ValueError, match="configuration"):
        Training(replace(configure(), **changes), data)
