"""Predicting over films, and the scores of a split."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from cxr_core.batches import Batches
from cxr_core.data.films import Films, TrainingData
from cxr_core.evaluate import predict, score
from cxr_core.metrics import EPOCH_METRICS
from cxr_core.normalisations import Normalisation

AS_IS = Normalisation(torch.tensor(0.0), 1.0)


class Brightness(nn.Module):
    """The logit of a film is its mean pixel, so that each film's probability is known."""

    def forward(self, films: Tensor) -> Tensor:
        return films.mean((1, 2, 3))[:, None]


def test_probabilities_come_in_the_order_of_the_films() -> None:
    count = 1100  # more than two batches, the last one shorter
    grey = np.random.default_rng(0).integers(0, 256, (count, 1, 1), dtype=np.uint8)
    films = Films(grey.repeat(4, 1).repeat(4, 2), np.arange(count), np.zeros((count, 1), np.float32), None)
    probabilities = predict(Brightness(), Batches(films, torch.device("cpu")), Normalisation(torch.tensor(0.5), 0.1))
    expected = 1 / (1 + np.exp(-(grey[:, :, 0] / 255 - 0.5) / 0.1))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_prediction_is_made_in_evaluation_mode(data: TrainingData) -> None:
    model = nn.Sequential(Brightness(), nn.Dropout(0.9)).train()
    batches = Batches(data.val, torch.device("cpu"))
    np.testing.assert_array_equal(predict(model, batches, AS_IS), predict(model, batches, AS_IS))
    assert not model.training


def test_prediction_leaves_no_gradient(data: TrainingData) -> None:
    model = nn.Sequential(Brightness(), nn.Linear(1, 1))
    predict(model, Batches(data.val, torch.device("cpu")), AS_IS)
    assert model[1].weight.grad is None


def test_a_split_is_scored_by_every_objective() -> None:
    rng = np.random.default_rng(0)
    targets, probabilities = rng.integers(0, 2, (60, 2)).astype(np.float32), rng.random((60, 2), np.float32)
    scores = score(targets, probabilities, ("Mass", "Nodule"))
    assert set(scores.metrics) == set(EPOCH_METRICS)
    each = [roc_auc_score(targets[:, c], probabilities[:, c]) for c in range(2)]
    assert scores.auroc == pytest.approx({"Mass": each[0], "Nodule": each[1]}, abs=1e-12)
    assert scores.metrics["auroc_macro"] == pytest.approx(np.mean(each), abs=1e-12)


def test_a_finding_without_positives_has_no_auroc_and_no_part_in_the_mean() -> None:
    targets = np.array([[0, 1], [0, 0], [0, 1]], np.float32)
    scores = score(targets, np.array([[0.1, 0.9], [0.2, 0.1], [0.3, 0.8]], np.float32), ("Hernia", "Mass"))
    assert math.isnan(scores.auroc["Hernia"])
    assert scores.metrics["auroc_macro"] == scores.auroc["Mass"] == 1
