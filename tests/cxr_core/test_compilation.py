"""A training with torch.compile is the same training; where nothing can be compiled, it goes on without."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint
from cxr_core.config import TrainConfig
from cxr_core.data import TrainingData
from cxr_core.evaluate import predict
from cxr_core.train import Epoch, Training

Configure = Callable[..., TrainConfig]

# A compilation is half a minute of an idle core, or several of a busy one.
compiles = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    # PyTorch's own, of its parts among each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def numbers(epoch: Epoch) -> list[float]:
    return [epoch.train_loss, epoch.validation.metrics["log_loss"]]


class TestCompiled:
    pytestmark = compiles

    def test_it_gives_the_numbers_of_a_plain_training(self, configure: Configure, data: TrainingData) -> None:
        """To what float32 sums in another order leave."""
        plain, compiled = (list(Training(configure(compile=on, ema=0.9), data).epochs()) for on in (False, True))
        for mine, others in zip(compiled, plain, strict=True):
            assert numbers(mine) == pytest.approx(numbers(others), rel=1e-3)

    def test_a_resumed_training_ends_as_one_without_a_break(
        self, configure: Configure, data: TrainingData, tmp_path: Path
    ) -> None:
        config = configure(compile=True, dropout=0.3)
        training = Training(config, data)
        epochs = training.epochs()
        next(epochs)
        training.save(tmp_path / "a.pt")
        resumed = list(Training(config, data, resume_from=tmp_path / "a.pt").epochs())
        assert list(map(numbers, resumed)) == list(map(numbers, epochs))

    def test_its_checkpoint_predicts_where_nothing_is_compiled(
        self, configure: Configure, data: TrainingData, tmp_path: Path
    ) -> None:
        training = Training(configure(compile=True), data)
        list(training.epochs())
        training.save(tmp_path / "a.pt")
        checkpoint, films = load_checkpoint(tmp_path / "a.pt"), Batches(data.val, torch.device("cpu"))
        assert not any("_orig_mod" in name for name in checkpoint.weights)
        expected = predict(training.model, films, training.normalise)
        np.testing.assert_allclose(predict(checkpoint.build(), films, checkpoint.normalise), expected, rtol=1e-5)


def test_without_a_compiler_the_training_says_so_and_goes_on(tmp_path: Path) -> None:
    """In a process of its own: PyTorch looks for the compiler once, and keeps what it has compiled."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "name: tiny\ntask: {kind: binary, labels: [Effusion]}\ndata: {image_size: 16}\n"
        "objective: {metric: auroc_macro}\n"
        "space: {model: {small_cnn: {width: 4}}, epochs: 1, batch_size: 512, compile: true}\n"
    )
    command = [sys.executable, "-m", "cxr_core.train", str(recipe), "--out", str(tmp_path / "out"), "--device", "cpu"]
    nowhere = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compile: true has no effect") == 1
    assert (tmp_path / "out" / "metrics.json").is_file()
