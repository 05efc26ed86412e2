"""One training as a generator: it yields epochs, and the caller reports, saves or stops."""

import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cxr_core.augmentations import augmentations
from cxr_core.batches import Batches
from cxr_core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cxr_core.compilation import Compiled
from cxr_core.config import TrainConfig
from cxr_core.data.films import TrainingData
from cxr_core.ema import WeightAverage
from cxr_core.evaluate import Scores, predict, score
from cxr_core.losses import build_loss
from cxr_core.memory import is_out_of_memory, release
from cxr_core.models import Infeasible, WithAuxiliary, logits_of_prevalence, set_head_bias
from cxr_core.normalisations import normalisations
from cxr_core.optimizers import optimizers
from cxr_core.samplers import samplers
from cxr_core.schedules import build_schedule
from cxr_core.stress import stressed_metrics
from cxr_core.thresholds import Rule, fit_thresholds

log = logging.getLogger(__name__)

THRESHOLDS: dict[str, tuple[Rule, float | None]] = {
    "youden": ("youden", None),
    "f1": ("f1", None),
    "sensitivity_90": ("sensitivity", 0.9),
}
"""Rules, with their level, by which a checkpoint's thresholds are fitted on validation."""
_BATCH_NORM = "Expected more than 1 value per channel"
"""What PyTorch says when a batch normalisation meets a single value."""


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

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        device: torch.device | str = "cpu",
        resume_from: Path | None = None,
    ):
        """Begin, or go on from a checkpoint of the same configuration.

        Raises Infeasible if the network cannot be built for the films, ValueError if the films are other ones,
        CheckpointError if the checkpoint does not fit.
        """
        if (config.task.labels, config.image_size) != (data.labels, data.image_size):
            raise ValueError(
                f"the configuration is for {', '.join(config.task.labels)} at {config.image_size} px, "
                f"the films for {', '.join(data.labels)} at {data.image_size} px"
            )
        self.config, self.data, self.device = config, data, torch.device(device)
        torch.manual_seed(_seed(config, 0))
        model = config.network(pretrained=resume_from is None)
        if config.head_bias:
            positives, negatives = torch.from_numpy(data.counts)
            set_head_bias(model, logits_of_prevalence(positives, positives + negatives))
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = Compiled(self.model) if config.compile else self.model
        self.average = WeightAverage(self.model, config.ema) if config.ema else None
        self.optimizer = optimizers.call(config.optimizer, self.model, config.lr)
        self.schedule = build_schedule(config.schedule)
        self.loss = build_loss(config.loss, torch.from_numpy(data.counts).to(self.device))
        self.train_films = Batches(data.train, self.device)
        self.val_films = Batches(data.val, self.device)
        self.normalise = normalisations.call(config.normalize, data).to(self.device)
        self.epoch = 0
        self.micro_batch = min(config.micro_batch or config.batch_size, config.batch_size)
        self.val_losses: list[float] = []
        self.thresholds: dict[str, list[float]] = {}
        self.probabilities: np.ndarray | None = None  # of the validation films, (N, C), after the last epoch
        if resume_from:
            self.resume(resume_from)

    def epochs(self) -> Iterator[Epoch]:
        """Train to the end of the schedule, yielding after each epoch. Raises Diverged, and Infeasible for memory."""
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
            loss = self._gradient(self.normalise(films), self.train_films.targets(index))
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            if self.average:
                self.average.update(self.model)
            total += loss * len(index)
        mean = float(total / sum(map(len, batches)))  # the pass's only wait for the device
        if not math.isfinite(mean):
            raise Diverged(f"the training loss became {mean} in epoch {self.epoch}")
        return mean

    def _gradient(self, films: Tensor, targets: Tensor) -> Tensor:
        """Leave the batch's gradient in the parameters and give its loss; in smaller parts if memory runs out."""
        halved = False
        while True:
            try:
                return self._accumulate(films, targets)
            except (RuntimeError, MemoryError, ValueError) as fault:
                if halved and self.micro_batch == 1 and _BATCH_NORM in str(fault):
                    raise Infeasible(
                        "out of memory even with two films at a time, and its batch normalisation needs two"
                    ) from None
                if not is_out_of_memory(fault):
                    raise
                if self.micro_batch == 1:
                    raise Infeasible("out of memory even with one film at a time") from None
                self.micro_batch, halved = self.micro_batch // 2, True
                log.warning("out of memory; going on with %d films at a time", self.micro_batch)
            release(self.device)  # outside the handler, whose fault holds on to the tensors of the failed pass

    def _accumulate(self, films: Tensor, targets: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        parts = math.ceil(len(films) / self.micro_batch)
        labelled = (~targets.isnan()).sum().clamp(min=1)
        total = torch.zeros((), device=self.device)
        for some_films, some_targets in zip(films.tensor_split(parts), targets.tensor_split(parts), strict=True):
            # A loss is a mean over labelled entries: so weighted, the parts add up to the batch's own.
            share = (~some_targets.isnan()).sum() / labelled
            loss = self._loss(some_films, some_targets) * share
            loss.backward()
            total += loss.detach()
        return total

    def _loss(self, films: Tensor, targets: Tensor) -> Tensor:
        with self.train_films.autocast():
            output = self.forward(films)
        if not isinstance(output, WithAuxiliary):
            return self.loss(output.float(), targets)
        main, auxiliary = self.loss(output.logits.float(), targets), self.loss(output.auxiliary.float(), targets)
        return main + output.weight * auxiliary

    def _set_learning_rate(self, progress: float) -> None:
        factor = self.schedule(progress, self.val_losses)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor * group.get("lr_scale", 1.0)

    def stressed(self) -> dict[str, float]:
        """Metrics on the validation films under declared changes, of the network as it is now (see `stress`)."""
        targets, views = self.data.val.targets, self.config.views
        return stressed_metrics(self._judged, self.val_films, self.normalise, targets, views=views)

    @property
    def _judged(self) -> nn.Module:
        return self.average.model if self.average else self.model

    def _validate(self) -> Scores:
        probabilities = predict(self._judged, self.val_films, self.normalise, views=self.config.views)
        if not np.isfinite(probabilities).all():
            raise Diverged(f"the network's outputs are not finite after epoch {self.epoch}")
        targets, self.probabilities = self.data.val.targets, probabilities
        self.thresholds = {
            name: fit_thresholds(targets, probabilities, *rule).tolist() for name, rule in THRESHOLDS.items()
        }
        scores = score(targets, probabilities, self.data.labels)
        self.val_losses.append(scores.metrics["log_loss"])
        return scores

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all; once the schedule is done it holds no optimizer state."""
        weights = self._judged.state_dict()
        progress = {
            "epoch": self.epoch,
            "model": self.model.state_dict() if self.average else None,
            "updates": self.average.updates if self.average else 0,
            "optimizer": self.optimizer.state_dict(),
            "val_losses": self.val_losses,
            "micro_batch": self.micro_batch,
        }
        done = self.epoch == self.config.epochs
        preprocessing = self.data.aspect, self.normalise, self.thresholds
        save_checkpoint(path, self.config, *preprocessing, weights, None if done else progress)

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
        self.epoch, self.micro_batch = progress["epoch"], progress["micro_batch"]
        self.val_losses, self.thresholds = list(progress["val_losses"]), checkpoint.thresholds


def train(
    config: TrainConfig, data: TrainingData, device: torch.device | str = "cpu", resume_from: Path | None = None
) -> Iterator[Epoch]:
    """Train a configuration to the end of its schedule, from a checkpoint if one is given. Raises Diverged."""
    yield from Training(config, data, device, resume_from).epochs()


def _seed(config: TrainConfig, epoch: int) -> int:
    return int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0])


if __name__ == "__main__":
    from cxr_core.train_command import main

    sys.exit(main())
