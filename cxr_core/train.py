"""One training as a generator: it yields epochs, and the caller reports, saves or stops."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cxr_core.augmentations import augmentations
from cxr_core.batches import Batches
from cxr_core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cxr_core.config import TrainConfig
from cxr_core.data.films import TrainingData
from cxr_core.ema import WeightAverage
from cxr_core.evaluate import Scores, predict, score
from cxr_core.losses import build_loss
from cxr_core.models import build_model
from cxr_core.normalisations import normalisations
from cxr_core.optimizers import optimizers
from cxr_core.samplers import samplers
from cxr_core.schedules import build_schedule


class Diverged(Exception):
    """The loss or a metric is not finite: the training has ended, and repeating it would end the same way."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training films and the score on validation that followed it.

    index counts from 1; fraction is the share of the schedule done; train_loss in nats; seconds include the
    validation; peak_memory is the device's, in bytes (0 on the CPU).
    """

    index: int
    fraction: float
    train_loss: float
    validation: Scores
    films_per_second: float
    seconds: float
    peak_memory: int


class Training:
    """A training of one configuration, at an epoch's end: it can go on, be saved, and be resumed exactly.

    Every random draw of an epoch comes from (seed, epoch), so a training that is saved, stopped and resumed gives the
    same numbers (on the CPU: the same bits) as one that is not.
    """

    def __init__(self, config: TrainConfig, data: TrainingData, device: torch.device | str = "cpu"):
        """Raises Infeasible if the network cannot be built for the films, ValueError if the films are other ones."""
        if (config.task.labels, config.image_size) != (data.labels, data.image_size):
            raise ValueError(
                f"the configuration is for {', '.join(config.task.labels)} at {config.image_size} px, "
                f"the films for {', '.join(data.labels)} at {data.image_size} px"
            )
        self.config, self.data, self.device = config, data, torch.device(device)
        torch.manual_seed(_seed(config, 0))
        model = build_model(config.model, config.image_size, len(data.labels), config.dropout)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.model, config.ema) if config.ema else None
        self.optimizer = optimizers.call(config.optimizer, self.model, config.lr)
        self.schedule = build_schedule(config.schedule)
        self.loss = build_loss(config.loss, torch.from_numpy(data.counts).to(self.device))
        self.train_films = Batches(data.train, self.device)
        self.val_films = Batches(data.val, self.device)
        self.normalise = normalisations.call(config.normalize, data).to(self.device)
        self.epoch = 0
        self.val_losses: list[float] = []

    def epochs(self) -> Iterator[Epoch]:
        """Train to the end of the schedule, yielding after each epoch. Raises Diverged."""
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            self.epoch += 1
            batches = self._sample()
            train_loss = self._train_pass(batches)
            trained = time.perf_counter()
            validation = self._validate()
            yield Epoch(
                index=self.epoch,
                fraction=self.epoch / self.config.epochs,
                train_loss=train_loss,
                validation=validation,
                films_per_second=sum(map(len, batches)) / (trained - started),
                seconds=time.perf_counter() - started,
                peak_memory=torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
            )

    def _sample(self) -> list[np.ndarray]:
        rng = np.random.default_rng([self.config.seed, self.epoch])
        batches: list[np.ndarray] = samplers.call(
            self.config.sampler, self.data.train.targets, self.config.batch_size, rng
        )
        return batches

    def _train_pass(self, batches: list[np.ndarray]) -> float:
        self.model.train()
        torch.manual_seed(_seed(self.config, self.epoch))
        generator = torch.Generator(self.device).manual_seed(_seed(self.config, self.epoch))
        total = torch.zeros((), device=self.device)
        for step, index in enumerate(batches):
            self._set_learning_rate((self.epoch - 1 + (step + 0.5) / len(batches)) / self.config.epochs)
            films = augmentations.call(self.config.augment, self.train_films.films(index), generator)
            with self.train_films.autocast():
                logits = self.model(self.normalise(films))
            loss = self.loss(logits.float(), self.train_films.targets(index))
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            if self.average:
                self.average.update(self.model)
            total += loss.detach() * len(index)
        mean = float(total / sum(map(len, batches)))  # the pass's only wait for the device
        if not math.isfinite(mean):
            raise Diverged(f"the training loss became {mean} in epoch {self.epoch}")
        return mean

    def _set_learning_rate(self, progress: float) -> None:
        factor = self.schedule(progress, self.val_losses)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor * group.get("lr_scale", 1.0)

    def _validate(self) -> Scores:
        model = self.average.model if self.average else self.model
        probabilities = predict(model, self.val_films, self.normalise)
        if not np.isfinite(probabilities).all():
            raise Diverged(f"the network's outputs are not finite after epoch {self.epoch}")
        scores = score(self.data.val.targets, probabilities, self.data.labels)
        self.val_losses.append(scores.metrics["log_loss"])
        return scores

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all; once the schedule is done it holds no optimizer state."""
        weights = (self.average.model if self.average else self.model).state_dict()
        progress = {
            "epoch": self.epoch,
            "model": self.model.state_dict() if self.average else None,
            "updates": self.average.updates if self.average else 0,
            "optimizer": self.optimizer.state_dict(),
            "val_losses": self.val_losses,
        }
        done = self.epoch == self.config.epochs
        save_checkpoint(path, self.config, self.data.aspect, self.normalise, weights, None if done else progress)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration. Raises CheckpointError if it does not fit."""
        checkpoint = load_checkpoint(path)
        progress = checkpoint.progress_of(self.config)
        if checkpoint.aspect != self.data.aspect:
            raise CheckpointError(
                f"{path}: belongs to films made square by {checkpoint.aspect}, not {self.data.aspect}"
            )
        self.normalise = checkpoint.normalise.to(self.device)
        if self.average:
            self.average.model.load_state_dict(checkpoint.weights)
            self.average.updates = progress["updates"]
        self.model.load_state_dict(progress["model"] if self.average else checkpoint.weights)
        self.optimizer.load_state_dict(progress["optimizer"])
        self.epoch, self.val_losses = progress["epoch"], list(progress["val_losses"])


def train(
    config: TrainConfig, data: TrainingData, device: torch.device | str = "cpu", resume_from: Path | None = None
) -> Iterator[Epoch]:
    """Train a configuration to the end of its schedule, from a checkpoint if one is given. Raises Diverged."""
    training = Training(config, data, device)
    if resume_from:
        training.resume(resume_from)
    yield from training.epochs()


def _seed(config: TrainConfig, epoch: int) -> int:
    return int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0])
