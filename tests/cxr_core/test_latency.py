"""Latency of one film."""

import pytest
from torch import nn

from cxr_core.config import TrainConfig
from cxr_core.labels import Task
from cxr_core.latency import film_latency
from cxr_core.registry import Chosen


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_a_network_in_the_mode_that_it_had(training: bool) -> None:
    task = Task("binary", ("Pneumonia",))
    model = TrainConfig(task=task, image_size=28, model=Chosen("small_cnn")).network().train(training)
    assert film_latency(model, 28, "cpu") > 0
    assert model.training is training


def test_a_film_is_seen_alone_and_with_one_channel() -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, film):  # type: ignore[no-untyped-def]
            seen.append(tuple(film.shape))
            return film.mean((1, 2, 3))

    film_latency(Watching(), 40, "cpu")
    assert set(seen) == {(1, 1, 40, 40)}
