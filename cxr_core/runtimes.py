"""A saved network for other runtimes, its preprocessing inside, and how far what they answer is from what it says."""

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxr_core.checkpoint import Checkpoint
from cxr_core.normalisations import Normalisation
from cxr_core.predict import DISCLAIMER, Predictor
from cxr_core.thresholds import in_json

TOLERANCE = 1e-4
"""Largest difference of a probability that is let pass: sums in float32 in another order differ by some 1e-6, a layer
that a runtime understands in another way by 1e-2 or more."""
INPUT, OUTPUT = "films", "probabilities"
_TOGETHER = 16
"""Films run at a time where agreement is measured; the traced batch is another size, so that a fixed one shows."""


class ExportError(Exception):
    """A network cannot be written for another runtime, or says something else there; the message says why."""


@dataclass(frozen=True)
class Agreement:
    """How far a runtime's probabilities are from the network's own.

    films: how many were run. largest, mean: of the absolute differences of all their probabilities.
    """

    films: int
    largest: float
    mean: float
    tolerance: float = TOLERANCE


class Deployed(nn.Module):
    """A saved network from the pixels of square films to probabilities: normalisation, sigmoid and views inside.

    Takes (N, 1, S, S) uint8, as `Predictor.square` gives films; float films of 0 to 255 do as well. Returns (N, C)
    float32.
    """

    offset: Tensor

    def __init__(self, checkpoint: Checkpoint):
        """Raises CheckpointError if the weights do not fit the network."""
        super().__init__()
        self.net = checkpoint.build()
        self.register_buffer("offset", checkpoint.normalise.offset)
        self._scale, self._views = checkpoint.normalise.scale, checkpoint.config.views

    def forward(self, films: Tensor) -> Tensor:
        normalise = Normalisation(self.offset, self._scale)
        views = [self.net(normalise(view)) for view in self._views.of(films.float() / 255)]
        return torch.stack([torch.sigmoid(logits) for logits in views]).mean(0)


def export(checkpoint: Checkpoint, path: Path, films: np.ndarray) -> Agreement:
    """Write a network to `path`: as ONNX if it ends in .onnx, as a program of torch.export if it ends in .pt2.

    films: (N, S, S) uint8 as `Predictor.square` gives them, at least one: on these the file is compared with the
    network, on the CPU. The file appears whole, and only if it agrees. It takes any number of films, as `INPUT`, gives
    `OUTPUT`, and holds `metadata` and the agreement.
    Raises ExportError, CheckpointError, OSError.
    """
    if path.suffix not in _FORMATS:
        raise ExportError(f"{path}: a network is written as {' or '.join(_FORMATS)}, by the end of the file's name")
    if not len(films):
        raise ExportError(f"{path}: without a film there is nothing to compare the file's answers on; give one")
    expected = Predictor(checkpoint).probabilities(films)
    told = metadata(checkpoint)
    with _replacing(path) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own, of their own code
        program = _FORMATS[path.suffix](checkpoint)
        program.save(partial, told)
        agreement = compare(expected, program.run(partial, films[:, None]))
        if not agreement.largest <= TOLERANCE:
            raise ExportError(
                f"{path}: not written, as it would say something else than {checkpoint.path}: a probability differs by "
                f"{agreement.largest:.2g} on {agreement.films} films, and {TOLERANCE:g} is let pass{program.remedy}"
            )
        program.save(partial, {**told, "agreement": asdict(agreement)})
    return agreement


def compare(expected: np.ndarray, answered: np.ndarray) -> Agreement:
    """The differences between two runtimes' probabilities of the same films, (N, C); NaN if one is not finite."""
    differences = np.abs(answered.astype(np.float64) - expected)
    return Agreement(len(expected), float(differences.max()), float(differences.mean()))


def metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a program must know to use an exported network; a threshold is None if none could be fitted."""
    config, size = checkpoint.config, checkpoint.config.image_size
    labels = list(config.task.labels)
    return {
        "labels": labels,
        "image_size": size,
        "aspect": checkpoint.aspect,
        "input": f"{INPUT}: (N, 1, {size}, {size}) uint8, black 0 to white 255. A film of any size is made so by "
        f"cxr_core.predict.Predictor.square ({checkpoint.aspect}, averaged by area where it shrinks), and nothing else",
        "output": f"{OUTPUT}: (N, {len(labels)}) float32, in the order of labels"
        + (f"; the mean over {config.views}" if config.views.count > 1 else ""),
        "thresholds": {
            rule: {label: in_json(value) for label, value in zip(labels, of_rule, strict=True)}
            for rule, of_rule in checkpoint.thresholds.items()
        },
        "model": config.model.name,
        "versions": checkpoint.versions,
        "disclaimer": DISCLAIMER,
    }


class _Program(ABC):
    """A network in another runtime's form. remedy: what to do where that form fails."""

    remedy = ""

    def __init__(self, checkpoint: Checkpoint):
        """Raises ExportError if the network cannot be brought into this form."""
        self._name = f"{checkpoint.path}: {checkpoint.config.model.params.get('name', checkpoint.config.model.name)}"
        size = checkpoint.config.image_size
        example = torch.zeros(2, 1, size, size, dtype=torch.uint8)
        try:
            with torch.no_grad():
                self.traced = torch.export.export(
                    Deployed(checkpoint).eval(), (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}}
                )
                self._translate()
        except Exception as fault:  # whatever a tracer or translator raises on an unforeseen network
            reason = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
            raise ExportError(f"{self._name} cannot be written in this form ({reason}){self.remedy}") from fault

    @abstractmethod
    def _translate(self) -> None:
        """From the traced network to the form."""

    @abstractmethod
    def save(self, path: Path, told: Mapping[str, Any]) -> None:
        """Write it to a file, with what is told of it."""

    @abstractmethod
    def run(self, path: Path, films: np.ndarray) -> np.ndarray:
        """Probabilities of films (N, 1, S, S), by the file and its own runtime."""


class _Onnx(_Program):
    """ONNX, run by onnxruntime."""

    remedy = "; name a file that ends in .pt2: PyTorch runs that, without this package"

    def _translate(self) -> None:
        program = torch.onnx.export(
            self.traced, input_names=[INPUT], output_names=[OUTPUT], external_data=False, verbose=False
        )
        assert program
        self._proto = program.model_proto
        for function in (self._proto.graph, *self._proto.functions):
            for node in function.node:
                del node.metadata_props[:]  # which line of which file of this machine it comes from

    def save(self, path: Path, told: Mapping[str, Any]) -> None:
        import onnx

        del self._proto.metadata_props[:]
        for key, value in told.items():
            entry = self._proto.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
        onnx.checker.check_model(self._proto)
        onnx.save(self._proto, str(path))

    def run(self, path: Path, films: np.ndarray) -> np.ndarray:
        import onnxruntime  # type: ignore[import-untyped]

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run([OUTPUT], {INPUT: some})[0] for some in _batches(films)])


class _TorchProgram(_Program):
    """What torch.export makes, run by PyTorch alone."""

    def _translate(self) -> None:
        pass

    def save(self, path: Path, told: Mapping[str, Any]) -> None:
        with path.open("wb") as file:
            torch.export.save(self.traced, file, extra_files={"metadata.json": json.dumps(told)})

    def run(self, path: Path, films: np.ndarray) -> np.ndarray:
        with path.open("rb") as file:
            network = torch.export.load(file).module()
        with torch.no_grad():
            return np.concatenate([network(torch.from_numpy(some)).numpy() for some in _batches(films)])


_FORMATS: dict[str, type[_Program]] = {".onnx": _Onnx, ".pt2": _TorchProgram}


def _batches(films: np.ndarray) -> Iterator[np.ndarray]:
    """A single film first: a batch of one is what a tracer may have left out."""
    for start in (0, *range(1, len(films), _TOGETHER)):
        yield films[start : start + (_TOGETHER if start else 1)]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file that takes a path's place if nothing is raised."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
