"""Views of a film: what a network is shown of it, and that probabilities are the mean over what it is shown."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from cxr_core.batches import Batches
from cxr_core.config import TrainConfig
from cxr_core.data import TrainingData
from cxr_core.train import Training
from cxr_core.views import Views

Configure = Callable[..., TrainConfig]


def films(side: int) -> torch.Tensor:
    return torch.rand((3, 1, side, side), generator=torch.Generator().manual_seed(side))


def test_without_a_wish_a_film_is_shown_once_as_it_is() -> None:
    (only,) = Views().of(given := films(8))
    assert only is given
    assert Views().count == 1
    assert str(Views()) == ""


@pytest.mark.parametrize("side", [28, 33])
@pytest.mark.parametrize("zoom", [0.1, 0.3, 0.5])
def test_smaller_pictures_are_those_of_pytorchs_own_resampling_beyond_the_border(side: int, zoom: float) -> None:
    whole, half, full = Views(zoom=zoom).of(given := films(side))
    assert whole is given
    for view, by in ((half, 1 + zoom / 2), (full, 1 + zoom)):
        place = affine_grid(torch.eye(2, 3).expand(3, 2, 3) * by, list(given.shape), align_corners=False)
        expected = grid_sample(given, place, mode="bilinear", padding_mode="border", align_corners=False)
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)


def test_nothing_of_a_film_is_cut_off() -> None:
    """A frame one pixel wide, of which a larger picture would lose all, is in every view."""
    frame = torch.ones(1, 1, 20, 20)
    frame[..., 1:-1, 1:-1] = 0
    for view in Views(zoom=0.4).of(frame):
        assert view[..., 10, :].max() > 0.5
        assert view[..., :, 10].max() > 0.5


@pytest.mark.parametrize("views", [Views(), Views(mirror=True), Views(zoom=0.2), Views(mirror=True, zoom=0.2)])
def test_there_are_as_many_views_as_are_counted_and_half_are_mirror_images(views: Views) -> None:
    seen = views.of(films(16))
    assert len(seen) == views.count
    if views.mirror:
        for view, mirrored in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True):
            assert view.equal(mirrored.flip(-1))


@pytest.mark.parametrize(
    ("views", "told"),
    [
        (Views(mirror=True), "the film and its mirror image"),
        (Views(zoom=0.2), "the film and two pictures of it, its side divided by up to 1.2"),
        (
            Views(mirror=True, zoom=0.1),
            "the film, two pictures of it, its side divided by up to 1.1, and the mirror images of these",
        ),
    ],
)
def test_views_are_told_in_words(views: Views, told: str) -> None:
    assert str(views) == told


def test_validation_takes_the_mean_of_the_probabilities_over_all_views(
    configure: Configure, data: TrainingData
) -> None:
    training = Training(configure(zoom_tta=0.3, epochs=1), data)
    (epoch,) = training.epochs()
    given = Batches(data.val, torch.device("cpu")).films(np.arange(len(data.val)))
    with torch.inference_mode():
        seen = [torch.sigmoid(training.model.eval()(training.normalise(view))) for view in Views(zoom=0.3).of(given)]
    expected = torch.stack(seen).mean(0).numpy()
    np.testing.assert_allclose(training.probabilities, expected, rtol=1e-5)
    assert np.abs(expected - seen[0].numpy()).max() > 1e-3
    assert len(seen) == training.config.views.count == 3
    assert epoch.index == 1
