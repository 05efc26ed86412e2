"""A checkpoint can be used alone, is whole or not there, and says why it does not fit."""

import math
import random
import re
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_core.batches import Batches
from cxr_core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cxr_core.config import Task, TrainConfig
from cxr_core.data.films import TrainingData
from cxr_core.evaluate import predict
from cxr_core.normalisations import normalisations
from cxr_core.registry import Chosen
from cxr_core.train import Training

Configure = Callable[..., TrainConfig]


@pytest.fixture
def training(configure: Configure, data: TrainingData) -> Training:
    """A training with one of three epochs done."""
    training = Training(configure(ema=0.9, dropout=0.2), data)
    next(training.epochs())
    return training


@pytest.fixture
def path(training: Training, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    training.save(path)
    return path


# Self-contained


def test_a_loaded_network_predicts_what_the_saved_one_did(path: Path, training: Training) -> None:
    checkpoint = load_checkpoint(path)
    batches = Batches(training.data.val, torch.device("cpu"))
    model = checkpoint.build().to(memory_format=torch.channels_last)  # rounds as in training
    expected = predict(training.average.model, training.val_films, training.normalise)
    np.testing.assert_array_equal(predict(model, batches, checkpoint.normalise), expected)


def test_a_checkpoint_knows_its_configuration_and_labels(path: Path, training: Training) -> None:
    config = load_checkpoint(path).config
    assert config.flat == training.config.flat
    assert (config.task, config.image_size, config.seed) == (training.config.task, 28, 0)


@pytest.mark.parametrize("name", normalisations)
def test_a_checkpoint_knows_how_its_films_were_normalised(
    name: str, configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    training = Training(configure(normalize=Chosen(name)), data)
    training.save(tmp_path / "a.pt")
    restored = load_checkpoint(tmp_path / "a.pt").normalise
    assert restored.offset.equal(training.normalise.offset)
    assert restored.scale == training.normalise.scale


def test_a_checkpoint_knows_how_its_films_became_square(
    configure: Configure, data: TrainingData, tmp_path: Path
) -> None:
    Training(configure(), replace(data, aspect="pad")).save(tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt").aspect == "pad"


def test_a_checkpoint_knows_the_versions_that_wrote_it(path: Path) -> None:
    assert load_checkpoint(path).versions["torch"] == torch.__version__


def test_a_loaded_network_is_ready_to_predict(path: Path) -> None:
    assert not load_checkpoint(path).build().training


class Intruder:
    """What it is pickled as makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_file_is_read_without_running_what_is_in_it(tmp_path: Path) -> None:
    torch.save({"format": 2, "weights": Intruder(tmp_path / "trace")}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "a.pt"))):
        load_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "trace").exists()


# Strict


def test_weights_that_do_not_fit_the_network_are_refused(path: Path, configure: Configure) -> None:
    checkpoint = load_checkpoint(path)
    others = {key: tensor for key, tensor in checkpoint.weights.items() if key != "0.weight"}
    save_checkpoint(path, checkpoint.config, checkpoint.aspect, checkpoint.normalise, {}, others, None)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .*0\.weight"):
        load_checkpoint(path).build()


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": torch.zeros(32, 32)},
        {"offset": torch.zeros(28)},
        {"offset": torch.zeros((), dtype=torch.long)},
        {"offset": torch.tensor(math.nan)},
        {"offset": 0.5},
        {"scale": 0.0},
        {"scale": math.inf},
        {"scale": "1"},
    ],
    ids=str,
)
def test_a_normalisation_that_does_not_fit_the_films_is_refused(path: Path, wrong: dict) -> None:
    content = torch.load(path)
    content["preprocessing"] |= wrong
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .*\(the normalisation is missing or wrong\)"):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["offset", "scale", "aspect", "image_size"])
def test_a_checkpoint_without_a_part_of_its_preprocessing_is_refused(path: Path, key: str) -> None:
    content = torch.load(path)
    del content["preprocessing"][key]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .*'{key}' is missing"):
        load_checkpoint(path)


def test_another_way_to_become_square_than_there_is_is_refused(path: Path) -> None:
    content = torch.load(path)
    content["preprocessing"]["aspect"] = "stretch"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: .*\(the aspect is missing or wrong\)"):
        load_checkpoint(path)


@pytest.mark.parametrize("wrong", [{"f1": [0.5]}, {"youden": [0.5, 0.5], "f1": [0.5, 0.5, 0.5]}, [0.5, 0.5]], ids=str)
def test_thresholds_of_another_number_of_findings_are_refused(path: Path, wrong: object) -> None:
    content = torch.load(path)
    content["thresholds"] = wrong
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: the checkpoint is damaged"):
        load_checkpoint(path)


# Resuming


def test_a_finished_training_has_no_optimizer_state(training: Training, path: Path) -> None:
    unfinished = path.stat().st_size
    list(training.epochs())
    training.save(path)
    assert load_checkpoint(path).progress is None
    assert path.stat().st_size < 0.5 * unfinished


def test_a_finished_training_cannot_be_resumed(training: Training, path: Path) -> None:
    list(training.epochs())
    training.save(path)
    with pytest.raises(CheckpointError, match=r"this training is finished; there is nothing to resume$"):
        Training(training.config, training.data).resume(path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.5}, ["lr"]),
        ({"seed": 3}, ["seed"]),
        ({"lr": 0.5, "ema": 0.0}, ["ema", "lr"]),
        ({"schedule": Chosen("step", {"gamma": 0.3})}, ["schedule", "schedule.step.gamma"]),
        ({"model": Chosen("small_cnn", {"width": 8})}, ["model.small_cnn.width"]),
    ],
)
def test_another_configuration_is_refused_and_the_difference_named(
    changes: dict, named: list[str], path: Path, configure: Configure, data: TrainingData
) -> None:
    other = configure(**{"ema": 0.9, "dropout": 0.2} | changes)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))}: belongs to another configuration") as refusal:
        Training(other, data).resume(path)
    assert all(re.search(rf"[( ]{re.escape(name)}[, ]", str(refusal.value)) for name in named)
    assert "dropout" not in str(refusal.value)


@pytest.mark.parametrize(
    "different", [{"task": Task("multilabel", ("Nodule", "Mass"))}, {"image_size": 32}], ids=["labels", "size"]
)
def test_other_labels_or_another_size_are_refused(different: dict, path: Path, configure: Configure) -> None:
    values = {"task": configure().task, "image_size": 28} | different
    other = TrainConfig.from_flat(load_checkpoint(path).config.flat, **values)
    with pytest.raises(CheckpointError, match=rf"\({next(iter(different))} differ"):
        load_checkpoint(path).progress_of(other)


def test_films_that_became_square_otherwise_are_refused(path: Path, training: Training) -> None:
    padded = replace(training.data, aspect="pad")
    with pytest.raises(CheckpointError, match=r"belongs to films made square by squash, not pad$"):
        Training(training.config, padded).resume(path)


def test_a_resumed_training_goes_on_with_the_normalisation_it_began_with(path: Path, training: Training) -> None:
    brighter = replace(training.data, train=replace(training.data.train, images=training.data.train.images + 9))
    resumed = Training(training.config, brighter)
    resumed.resume(path)
    assert resumed.normalise.offset.equal(training.normalise.offset)


# Whole or not at all


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """No file may grow beyond a size in bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_else(path: Path, training: Training) -> None:
    before = path.read_bytes()
    next(training.epochs())
    with no_room_beyond(len(before) // 2), pytest.raises((OSError, RuntimeError)):
        training.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_first_checkpoint_that_cannot_be_written_is_not_there(training: Training, tmp_path: Path) -> None:
    with no_room_beyond(5000), pytest.raises((OSError, RuntimeError)):
        training.save(tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_good_write_leaves_no_partial_file(path: Path) -> None:
    assert list(path.parent.iterdir()) == [path]


# Damage


def assert_refused_by_name(path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))}: "):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(tmp_path))}/a.pt: no such checkpoint$"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("left", [0, 1, 2, 3, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_by_name(path: Path, left: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    assert_refused_by_name(path)


@pytest.mark.parametrize(
    "content",
    [b"hello", b"PK\x03\x04", b"\x80\x02}q\x00.", b"name: multilabel\nepochs: 20\n", bytes(range(256)) * 40],
    ids=["text", "zip header", "pickle", "yaml", "bytes"],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    assert_refused_by_name(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [[1, 2], {"weights": {}}, {"format": 0}], ids=["list", "weights", "old format"])
def test_a_torch_file_of_another_program_or_version_is_refused_by_name(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert_refused_by_name(tmp_path / "a.pt")


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    assert_refused_by_name(tmp_path)


def test_one_flipped_bit_in_the_weights_is_found(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        tensors = [info for info in archive.infolist() if "/data/" in info.filename]
    tensor = max(tensors, key=lambda info: info.file_size)
    whole = bytearray(path.read_bytes())
    whole[tensor.header_offset + 200 + tensor.file_size // 2] ^= 4  # the header is shorter than 200 bytes
    path.write_bytes(whole)
    assert_refused_by_name(path)


def test_no_flipped_bit_ends_in_a_traceback(path: Path) -> None:
    """200 seeded places, each loaded or refused; what a damaged pickle raises is not known beforehand."""
    whole, rng, refusals = path.read_bytes(), random.Random(0), []
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path).build()
        except CheckpointError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 10
    assert all(refusal.startswith(f"{path}: ") for refusal in refusals)
