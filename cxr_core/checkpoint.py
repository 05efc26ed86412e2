"""Checkpoints that can be used alone: weights with the configuration, labels and preprocessing they belong to."""

import io
import os
import platform
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cxr_core.config import Task, TrainConfig
from cxr_core.data.policy import Aspect
from cxr_core.normalisations import Normalisation

_FORMAT = 3


class CheckpointError(Exception):
    """A checkpoint cannot be read or does not fit; the message names the file and the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved training: weights to predict with, and what is needed to go on if it was not finished.

    aspect: how films became square. normalise: what the network is given, from films in [0, 1]. thresholds: by rule
    (see `train.THRESHOLDS`), the scores of each finding from which on it is called, fitted on validation.
    """

    path: Path
    config: TrainConfig
    aspect: Aspect
    normalise: Normalisation
    thresholds: dict[str, list[float]]
    weights: dict[str, Tensor]
    progress: dict[str, Any] | None
    versions: dict[str, str]

    def build(self) -> nn.Module:
        """The network with the saved weights, in evaluation mode."""
        model = self.config.network(pretrained=False)
        try:
            model.load_state_dict(self.weights, strict=True)
        except RuntimeError as fault:
            raise CheckpointError(f"{self.path}: does not fit its network ({' '.join(str(fault).split())})") from None
        return model.eval()

    def progress_of(self, config: TrainConfig) -> dict[str, Any]:
        """The state to go on from. Raises CheckpointError if the training was another one, or is finished."""
        differing = sorted(key for key, value in _identity(config).items() if value != _identity(self.config).get(key))
        if differing:
            raise CheckpointError(f"{self.path}: belongs to another configuration ({', '.join(differing)} differ)")
        if self.progress is None:
            raise CheckpointError(f"{self.path}: this training is finished; there is nothing to resume")
        return self.progress


def _identity(config: TrainConfig) -> dict[str, Any]:
    return {**config.flat, "task": config.task, "image_size": config.image_size, "seed": config.seed}


def save_checkpoint(
    path: Path,
    config: TrainConfig,
    aspect: str,
    normalise: Normalisation,
    thresholds: dict[str, list[float]],
    weights: dict[str, Tensor],
    progress: dict[str, Any] | None,
) -> None:
    """Write a checkpoint; the file appears whole or not at all. Raises OSError."""
    content = {
        "format": _FORMAT,
        "task": {"kind": config.task.kind, "labels": list(config.task.labels), "against": config.task.against},
        "preprocessing": {"image_size": config.image_size, "aspect": aspect, **normalise.state_dict()},
        "config": config.flat,
        "seed": config.seed,
        "thresholds": thresholds,
        "weights": weights,
        "progress": progress,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        # In memory first: PyTorch's writer would cover up a full disk, or Ctrl-C, with a fault of its own.
        whole = io.BytesIO()
        torch.save(content, whole)
        with partial.open("wb") as file:
            file.write(whole.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint to the CPU. Raises CheckpointError if the file is missing, damaged or of another format."""
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():  # torch.load compares no checksums
                raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except Exception as fault:  # a damaged pickle may raise anything, also without a message
        reason = next(iter(str(fault).splitlines()), type(fault).__name__)
        raise CheckpointError(f"{path}: the checkpoint is damaged ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program, or of another version of it")
    try:
        return _read(path, content)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise CheckpointError(f"{path}: the checkpoint is damaged ({fault} is missing or wrong)") from None


def _read(path: Path, content: dict[str, Any]) -> Checkpoint:
    told = content["task"]
    task = Task(told["kind"], tuple(told["labels"]), told["against"])
    prepared = content["preprocessing"]
    config = TrainConfig.from_flat(content["config"], task, prepared["image_size"], content["seed"])
    if prepared["aspect"] not in get_args(Aspect):
        raise ValueError("the aspect")
    normalise = Normalisation.from_state_dict(prepared, config.image_size)
    if any(len(scores) != len(task.labels) for scores in content["thresholds"].values()):
        raise ValueError("a threshold")
    saved = content["thresholds"], content["weights"], content["progress"], content["versions"]
    return Checkpoint(path, config, prepared["aspect"], normalise, *saved)
