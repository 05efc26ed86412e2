"""Batches are the cache's films and targets, in [0, 1], in the order asked for."""

import numpy as np
import pytest
import torch

from cxr_core.batches import Batches
from cxr_core.data.films import TrainingData

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")


def test_films_are_their_pixels_between_0_and_1(data: TrainingData) -> None:
    films = Batches(data.train, CPU).films(np.arange(90))
    assert (films.shape, films.dtype) == ((90, 1, 28, 28), torch.float32)
    np.testing.assert_array_equal(films[:, 0].numpy(), data.train.images / np.float32(255))


def test_films_and_targets_come_in_the_order_asked_for(data: TrainingData) -> None:
    batches, index = Batches(data.train, CPU), np.array([7, 0, 7])
    np.testing.assert_array_equal((batches.films(index)[:, 0] * 255).round().numpy(), data.train.images[index])
    np.testing.assert_array_equal(batches.targets(index).numpy(), data.train.targets[index])


def test_what_is_done_to_a_batch_does_not_reach_the_next(data: TrainingData) -> None:
    batches, index = Batches(data.train, CPU), np.array([3, 4])
    first = batches.films(index)
    kept = first.clone()
    first.zero_()
    assert batches.films(index).equal(kept)


@needs_cuda
@pytest.mark.parametrize("share", [0.5, 0.0], ids=["on the accelerator", "in the mmap"])
def test_an_accelerator_gets_the_same_films_and_targets(
    share: float, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxr_core.batches._DEVICE_SHARE", share)
    monkeypatch.setattr("cxr_core.batches._MOVED_TOGETHER", 32)
    there, here = Batches(data.train, torch.device("cuda")), Batches(data.train, CPU)
    for start in range(0, 90, 7):
        index = np.arange(start, start + 20) % 90
        assert there.films(index).cpu().equal(here.films(index))
        torch.testing.assert_close(there.targets(index).cpu(), here.targets(index), rtol=0, atol=0, equal_nan=True)


@needs_cuda
@pytest.mark.parametrize("share", [0.5, 0.0], ids=["on the accelerator", "in the mmap"])
def test_a_batch_does_not_wait_for_the_accelerator(
    share: float, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxr_core.batches._DEVICE_SHARE", share)
    batches = Batches(data.train, torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            batches.films(np.arange(20))
            batches.targets(np.arange(20))
    finally:
        torch.cuda.set_sync_debug_mode("default")
