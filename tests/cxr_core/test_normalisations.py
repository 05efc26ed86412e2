"""Normalisations are fitted on the training films, and each gives the films the statistics it promises."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cxr_core.batches import Batches
from cxr_core.data.films import TrainingData
from cxr_core.normalisations import Normalisation, normalisations

every_normalisation = pytest.mark.parametrize("name", normalisations)


@pytest.fixture
def films(data: TrainingData) -> Tensor:
    """The training films, in [0, 1]."""
    return Batches(data.train, torch.device("cpu")).films(np.arange(len(data.train)))


def fitted(name: str, data: TrainingData) -> Normalisation:
    return normalisations[name].function(data)


# Rules of all normalisations


@every_normalisation
def test_films_keep_their_shape_and_type_and_are_left_alone(name: str, data: TrainingData, films: Tensor) -> None:
    before = films.clone()
    normalised = fitted(name, data)(films)
    assert (normalised.shape, normalised.dtype) == (films.shape, torch.float32)
    assert films.equal(before)


@every_normalisation
def test_a_film_is_normalised_whatever_films_are_beside_it(name: str, data: TrainingData, films: Tensor) -> None:
    normalise = fitted(name, data)
    assert normalise(films)[5:6].equal(normalise(films[5:6]))


@every_normalisation
def test_a_brighter_pixel_stays_brighter(name: str, data: TrainingData, films: Tensor) -> None:
    normalise = fitted(name, data)
    assert (normalise(films + 0.1) > normalise(films)).all()


@every_normalisation
def test_the_validation_films_have_no_part_in_it(name: str, data: TrainingData) -> None:
    before = fitted(name, data)
    data.val.images[:] = 255
    after = fitted(name, TrainingData(data.train, data.val, data.labels))
    assert after.offset.equal(before.offset)
    assert after.scale == before.scale


@every_normalisation
def test_a_normalisation_comes_back_from_its_state(name: str, data: TrainingData, films: Tensor) -> None:
    normalise = fitted(name, data)
    assert Normalisation.from_state_dict(normalise.state_dict(), 28)(films).equal(normalise(films))


# What each promises


def test_unit_leaves_films_as_they_are(data: TrainingData, films: Tensor) -> None:
    assert fitted("unit", data)(films).equal(films)


def test_zscore_gives_training_films_a_mean_of_0_and_a_deviation_of_1(data: TrainingData, films: Tensor) -> None:
    normalised = fitted("zscore", data)(films)
    assert abs(normalised.mean().item()) < 1e-5
    assert abs(normalised.std(correction=0).item() - 1) < 1e-5


def test_imagenet_is_the_mean_over_colours_of_what_torchvision_documents(data: TrainingData, films: Tensor) -> None:
    mean, std = np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])
    np.testing.assert_allclose(fitted("imagenet", data)(films), (films.numpy() - mean) / std, atol=1e-5)


def test_mean_image_gives_each_pixel_of_the_training_films_a_mean_of_0(data: TrainingData, films: Tensor) -> None:
    normalised = fitted("mean_image", data)(films)
    assert normalised.mean((0, 1)).abs().max() < 1e-5
    assert abs(normalised.std(correction=0).item() - 1) < 1e-5
