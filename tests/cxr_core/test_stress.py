"""Stressed validation: each change against its formula or scipy's, and what a network reaches under all of them."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import log_loss, roc_auc_score

from cxr_core.batches import Batches
from cxr_core.data.films import TrainingData
from cxr_core.metrics import STRESSED
from cxr_core.normalisations import normalisations
from cxr_core.registry import Chosen
from cxr_core.stress import CHANGES, stressed_metrics
from cxr_core.train import Training
from cxr_core.views import Views

RAMP = torch.linspace(0, 1, 28).expand(1, 1, 28, 28)


@pytest.fixture
def films() -> torch.Tensor:
    return torch.rand((5, 1, 28, 28), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_mild_keeps_the_range_and_the_film_it_is_given(name: str, films: torch.Tensor) -> None:
    smooth = torch.nn.functional.avg_pool2d(films, 9, stride=1, padding=4, count_include_pad=False)
    before = smooth.clone()
    changed = CHANGES[name](smooth)
    assert changed.shape == smooth.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(smooth, before)
    assert 0.001 < (changed - smooth).abs().mean() < 0.15


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_the_same_each_time_and_whatever_films_are_beside_it(name: str, films: torch.Tensor) -> None:
    whole = CHANGES[name](films)
    assert torch.equal(CHANGES[name](films), whole)
    alone = torch.cat([CHANGES[name](film[None]) for film in films])
    assert torch.allclose(alone, whole, atol=1e-6)


def test_exposure_is_a_power_of_the_grey_level() -> None:
    half = torch.full((1, 1, 28, 28), 0.5)
    assert CHANGES["overexposed"](half)[0, 0, 0, 0] == pytest.approx(0.5**1.4)
    assert CHANGES["underexposed"](half)[0, 0, 0, 0] == pytest.approx(0.5**0.7)


def test_contrast_shrinks_about_the_films_mean(films: torch.Tensor) -> None:
    flat = CHANGES["flat"](films)
    assert flat.mean((1, 2, 3)) == pytest.approx(films.mean((1, 2, 3)))
    assert flat.std((1, 2, 3)) == pytest.approx(0.7 * films.std((1, 2, 3)))


def test_blur_is_scipys_gaussian(films: torch.Tensor) -> None:
    expected = np.stack([gaussian_filter(film[0].numpy(), 0.6, mode="nearest", truncate=3.4) for film in films])
    assert CHANGES["blurred"](films)[:, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_noise_has_the_deviation_that_is_stated_and_differs_between_films() -> None:
    grey = torch.full((2, 1, 128, 128), 0.5)
    grey[1, 0, 0, 0] = 0.51  # so little that only another pattern of noise tells them apart
    noise = CHANGES["noisy"](grey) - grey
    assert noise.std((1, 2, 3)) == pytest.approx([0.04, 0.04], rel=0.03)
    assert abs(np.corrcoef(noise.flatten(1).numpy())[0, 1]) < 0.05


def test_the_crop_enlarges_the_middle_and_the_shift_moves_by_a_twentieth_of_the_side() -> None:
    """On a ramp of 1/27 a pixel; inside, away from the border."""
    inside = slice(4, 24)
    slope = CHANGES["cropped"](RAMP)[0, 0, 5, inside].diff()
    assert slope == pytest.approx(torch.full((19,), 0.9 / 27), abs=1e-6)
    moved = CHANGES["shifted"](RAMP)[0, 0, 5, inside] - RAMP[0, 0, 5, inside]
    assert moved == pytest.approx(torch.full((20,), 0.05 * 28 / 27), abs=1e-6)


def test_stressed_metrics_are_means_over_the_changes_by_scikit_learns_count(data: TrainingData, configure) -> None:  # type: ignore[no-untyped-def]
    config = configure(epochs=1, ema=0.9)
    training = Training(config, data)
    list(training.epochs())
    told = training.stressed()
    targets, pixels = data.val.targets, torch.from_numpy(data.val.pixels(np.arange(len(data.val))))[:, None] / 255
    assert training.average
    aurocs, losses = [], []
    for change in CHANGES.values():
        with torch.inference_mode():
            scores = torch.sigmoid(training.average.model.eval()(training.normalise(change(pixels)))).numpy()
        known = [~np.isnan(targets[:, c]) for c in range(2)]
        aurocs.append(np.mean([roc_auc_score(targets[k, c], scores[k, c]) for c, k in enumerate(known)]))
        losses.append(np.mean([log_loss(targets[k, c], scores[k, c]) for c, k in enumerate(known)]))
    assert told["stressed_auroc_macro"] == pytest.approx(np.mean(aurocs), abs=1e-6)
    assert told["stressed_log_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert [told[f"auroc_macro_{name}"] for name in CHANGES] == pytest.approx(aurocs, abs=1e-6)
    assert set(STRESSED) < set(told)


def test_a_training_goes_on_after_stress_as_if_there_had_been_none(data: TrainingData, configure) -> None:  # type: ignore[no-untyped-def]
    losses = []
    for stress in (False, True):
        training = Training(configure(augment=Chosen("standard")), data)
        found = []
        for epoch in training.epochs():
            found.append(epoch.train_loss)
            if stress:
                training.stressed()
        losses.append(found)
    assert losses[0] == losses[1]


def test_a_metric_without_both_classes_is_undefined_under_stress_too(data: TrainingData, configure) -> None:  # type: ignore[no-untyped-def]
    model, films = configure().network(pretrained=False), Batches(data.val, torch.device("cpu"))
    nothing = np.zeros_like(data.val.targets)
    told = stressed_metrics(model, films, normalisations.call(Chosen("unit"), data), nothing, views=Views())
    assert np.isnan(told["stressed_auroc_macro"])
    assert np.isfinite(told["stressed_log_loss"])
