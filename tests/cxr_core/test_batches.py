import numpy as np
import torch

from cxr_core.batches import Batches
from cxr_core.data.films import TrainingData

CPU = torch.device("cpu")


def test_training_films_have_mean_0_and_standard_deviation_1(data: TrainingData) -> None:
    films = Batches(data.train, CPU, data.pixel_moments).films(np.arange(len(data.train)))
    assert abs(films.mean().item()) < 1e-5
    assert abs(films.std(correction=0).item() - 1) < 1e-5


def test_a_film_is_normalised_with_the_moments_given_and_not_its_own(data: TrainingData) -> None:
    film = Batches(data.val, CPU, (0.25, 0.5)).films(np.array([3]))
    expected = (data.val.images[3] / 255 - 0.25) / 0.5
    np.testing.assert_allclose(film[0, 0].numpy(), expected, atol=1e-6)


def test_films_and_targets_come_in_the_order_asked_for(data: TrainingData) -> None:
    batches, index = Batches(data.train, CPU, (0.0, 1 / 255)), np.array([7, 0, 7])
    np.testing.assert_allclose(batches.films(index)[:, 0].numpy(), data.train.images[index], atol=1e-4)
    np.testing.assert_array_equal(batches.targets(index).numpy(), data.train.targets[index])
