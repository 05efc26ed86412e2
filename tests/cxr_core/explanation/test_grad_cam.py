"""Heat maps of every kind of network that can be trained here."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxr_core.explanation import GradCam, NoFeatureMap, find_feature_maps
from cxr_core.explanation.feature_maps import stages
from cxr_core.models import build_model, models
from cxr_core.registry import Chosen, Scalar
from tests.cxr_core.models.test_families import SMALL

SIZE, SQUARE = 64, 16  # pixels
TIMM = (
    "resnet10t",
    "densenet121",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "test_vit3",  # without a class token
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_050",
)


def case(name: str, params: dict[str, Scalar]) -> Any:
    return pytest.param(Chosen(name, params), id="-".join([name, *map(str, params.values())]))


FAMILIES = [case(name, SMALL.get(name, {})) for name in models if name != "timm"]
CASES = [
    *FAMILIES,
    case("small_cnn", {"pool": "flatten"}),
    case("small_cnn", {"pool": "max"}),
    *(case("timm", {"name": name}) for name in TIMM),
]
every_case = pytest.mark.parametrize("chosen", CASES)


@cache
def _built(name: str, params: tuple[tuple[str, Scalar], ...]) -> nn.Module:
    torch.manual_seed(0)
    return build_model(Chosen(name, dict(params)), SIZE, 3, 0.0).eval()


def built(chosen: Chosen) -> nn.Module:
    return _built(chosen.name, tuple(chosen.params.items()))


def films(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# Every network


@every_case
def test_a_map_has_the_films_size_and_finite_values_that_differ(chosen: Chosen) -> None:
    model, given = built(chosen), films()
    maps = GradCam(model, given)(given, [0, 0], signed=True)
    assert maps.shape == (2, SIZE, SIZE)
    assert np.isfinite(maps).all()
    assert (maps.std((1, 2)) > 0).all()


@every_case
def test_a_map_depends_on_the_finding_that_is_asked_for(chosen: Chosen) -> None:
    model, given = built(chosen), films(1)
    first, second = GradCam(model, given)(given.expand(2, -1, -1, -1), [0, 1], signed=True)
    assert np.abs(first - second).max() > 0.01 * np.abs(first).max()


@every_case
def test_cells_of_a_map_lie_where_their_part_of_the_film_does(chosen: Chosen) -> None:
    """Another picture in one corner of a film changes the layer's output there most, whatever the weights."""
    model, plain = built(chosen), torch.zeros(1, 1, SIZE, SIZE)
    marked = plain.repeat(4, 1, 1, 1)
    for corner, film in enumerate(marked):
        top, left = SIZE // 8 + SIZE // 2 * (corner // 2), SIZE // 8 + SIZE // 2 * (corner % 2)
        film[..., top : top + SQUARE, left : left + SQUARE] = films(1)[0, :, :SQUARE, :SQUARE]
    for found in find_feature_maps(model, films()):
        before, after = (found.to_map(output_of(model, found.name, given)) for given in (plain, marked))
        change = (after - before).abs().sum(1)
        assert change.shape == (4, found.grid, found.grid)
        half = found.grid // 2
        parts = [change[:, rows, columns].sum((1, 2)) for rows in _halves(half) for columns in _halves(half)]
        quarters = torch.stack(parts, 1)  # (the corner that was marked, the quarter of the map)
        # Some quarters change more than others wherever the mark is: each is held against itself.
        assert (quarters / quarters.mean(0)).argmax(1).tolist() == [0, 1, 2, 3]


def _halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(-half, None)


def output_of(model: nn.Module, layer: str, given: Tensor) -> Tensor:
    outputs: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, _, output: outputs.append(output))
    with hook, torch.no_grad():
        model(given)
    return outputs[0]


@every_case
def test_an_explained_network_says_what_it_said_before(chosen: Chosen) -> None:
    model, given = built(chosen), films()
    with torch.no_grad():
        before = model(given)
        GradCam(model, given)(given, [0, 1])
        assert model(given).equal(before)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


# The truth, known beforehand


def brightness(outputs: int = 1) -> nn.Module:
    """A network whose only logit that matters is the mean brightness: its evidence is the film itself."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(SIZE**2, outputs))
    nn.init.ones_(model[0].weight), nn.init.zeros_(model[0].bias)
    nn.init.constant_(model[2].weight, 1 / SIZE**2)
    return model


def test_evidence_of_a_network_that_measures_brightness_is_the_brightness() -> None:
    model, given = brightness(), films()
    (cell,) = find_feature_maps(model, given)
    assert (cell.name, cell.grid) == ("0", SIZE)
    signed, unsigned = (GradCam(model, given)(given, [0, 0], signed=kind) for kind in (True, False))
    np.testing.assert_allclose(signed, given[:, 0] / SIZE**2, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(unsigned, given[:, 0].clamp(min=0) / SIZE**2, rtol=1e-5, atol=1e-9)


def test_a_map_is_zero_where_everything_speaks_against_the_finding() -> None:
    model, given = brightness(), -films().abs()
    assert not GradCam(model, given)(given, [0, 0]).any()


def test_evidence_of_several_scales_adds_up_by_area() -> None:
    model, given = built(Chosen("multiscale_gap", SMALL["multiscale_gap"])), films()
    scales = find_feature_maps(model, given)
    each = [GradCam(model, given, maps=[scale])(given, [1, 1], signed=True) * scale.grid**2 for scale in scales]
    np.testing.assert_allclose(GradCam(model, given)(given, [1, 1], signed=True), sum(each), rtol=1e-4, atol=1e-6)


def squares(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Noise, and on every other film a bright square at a random place; targets (N, 1); the squares' places."""
    pixels = rng.normal(0, 0.3, (count, 1, SIZE, SIZE)).astype(np.float32)
    places = [tuple(map(int, rng.integers(0, SIZE - SQUARE, 2))) for _ in range(count)]
    targets = (np.arange(count) % 2).astype(np.float32)
    for film, (top, left), shown in zip(pixels, places, targets, strict=True):
        film[:, top : top + SQUARE, left : left + SQUARE] += 2 * shown
    return torch.from_numpy(pixels), torch.from_numpy(targets)[:, None], places


@pytest.mark.parametrize(
    "chosen",
    [
        case("small_cnn", {"width": 8}),
        case("multiscale_gap", {"width": 8, "hidden": 16}),
        case("timm", {"name": "test_resnet"}),
        case("timm", {"name": "test_vit3"}),
    ],
)
def test_the_brightest_point_follows_the_square_that_a_network_has_learnt_to_see(chosen: Chosen) -> None:
    torch.manual_seed(0)
    model, rng = build_model(chosen, SIZE, 1, 0.0), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(25):
        given, targets, _ = squares(16, rng)
        loss = nn.functional.binary_cross_entropy_with_logits(model.train()(given), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    given, _, places = squares(40, rng)
    shown, there = given[1::2], places[1::2]
    maps = GradCam(model, shown)(shown, [0] * len(shown))
    cell = SIZE // find_feature_maps(model, shown)[0].grid
    hits = 0
    for heat, (top, left) in zip(maps, there, strict=True):
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        hits += top - cell <= row < top + SQUARE + cell and left - cell <= column < left + SQUARE + cell
    # A point at random hits a square with a margin of a cell in less than half of the films.
    assert hits >= 16


def test_a_map_of_a_network_that_cuts_out_the_centre_lies_in_the_centre() -> None:
    torch.manual_seed(0)
    model = build_model(Chosen("small_cnn"), SIZE, 1, 0.0, crop=32)
    maps = GradCam(model, films(), crop=32)(films(), [0, 0], signed=True)
    assert maps.shape == (2, SIZE, SIZE)
    assert maps[:, 16:48, 16:48].std() > 0
    maps[:, 16:48, 16:48] = 0
    assert not maps.any()


def test_where_probabilities_are_means_of_mirror_images_so_are_maps() -> None:
    model, given = built(Chosen("small_cnn")), films()
    plain, mirrored = GradCam(model, given), GradCam(model, given, mirror=True)
    expected = (plain(given, [0, 0], signed=True) + plain(given.flip(-1), [0, 0], signed=True)[..., ::-1]) / 2
    np.testing.assert_allclose(mirrored(given, [0, 0], signed=True), expected, rtol=1e-5, atol=1e-8)


def test_many_films_at_once_have_the_maps_that_each_has_alone() -> None:
    model, given = built(Chosen("small_cnn")), films(11)
    cam, findings = GradCam(model, given), [0, 1, 2] * 3 + [0, 1]
    together = cam(given, findings)
    for row, finding in enumerate(findings):
        np.testing.assert_allclose(together[row], cam(given[row : row + 1], [finding])[0], rtol=1e-4, atol=1e-7)


# The layer


@pytest.mark.parametrize(
    ("chosen", "size", "layer", "grid"),
    [
        (Chosen("timm", {"name": "resnet18"}), 224, "net.layer4", 7),
        (Chosen("timm", {"name": "densenet121"}), 224, "net.features", 7),
        (Chosen("timm", {"name": "resnet18"}), 64, "net.layer3", 4),  # layer4 has 2 x 2 cells
        (Chosen("small_cnn"), 64, "10", 16),  # the last ReLU, not the pool behind it
        (Chosen("vgg_like", {"width": 8, "hidden": 16}), 64, "13", 4),
        (
            Chosen("timm", {"name": "vit_tiny_patch16_224"}),
            64,
            "net.blocks.10",
            4,
        ),  # the last attention takes from here
        (Chosen("timm", {"name": "swin_tiny_patch4_window7_224"}), 224, "net.norm", 7),
    ],
    ids=str,
)
def test_the_layer_is_the_last_one_that_keeps_places(chosen: Chosen, size: int, layer: str, grid: int) -> None:
    torch.manual_seed(0)
    model = build_model(chosen, size, 3, 0.0)
    (found,) = find_feature_maps(model, torch.randn(1, 1, size, size))
    assert (found.name, found.grid) == (layer, grid)


@pytest.mark.parametrize("name", ["multiscale_gap", "multiscale_flatten"])
def test_of_several_scales_that_the_head_reads_each_is_explained(name: str) -> None:
    found = find_feature_maps(built(Chosen(name, SMALL.get(name, {}))), films())
    grids = [each.grid for each in found]
    assert len(grids) == 3
    assert grids == sorted(grids, reverse=True)


def test_tokens_that_belong_to_no_place_are_left_out() -> None:
    (found,) = find_feature_maps(built(Chosen("timm", {"name": "deit_tiny_distilled_patch16_224"})), films())
    assert (found.layout, found.unplaced, found.grid) == ("tokens", 2, 4)


def test_a_map_put_back_is_the_output_that_it_came_from() -> None:
    for name in ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "test_convnext"):
        model = built(Chosen("timm", {"name": name}))
        (found,) = find_feature_maps(model, films())
        output = output_of(model, found.name, films())
        assert found.from_map(found.to_map(output), output).equal(output)


class Bypassed(nn.Module):
    """A branch that holds only a part of what the network knows, after the layer that holds all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.branch(x)).mean((2, 3)))


class SharedReLU(nn.Module):
    """One activation for several layers, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize(("network", "layer"), [(Bypassed, "stem"), (SharedReLU, "second")])
def test_everything_that_a_network_knows_passes_through_its_layer(network: Callable[[], nn.Module], layer: str) -> None:
    torch.manual_seed(0)
    model, given = network(), films()
    assert [each.name for each in find_feature_maps(model, given)] == [layer]
    assert np.isfinite(GradCam(model, given)(given, [0, 1])).all()


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.AvgPool2d(SIZE), nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(4, 2)),
    ],
    ids=["no convolution", "pooled at once"],
)
def test_a_network_that_keeps_no_places_is_refused(model: nn.Module) -> None:
    with pytest.raises(NoFeatureMap, match="no layer of this network gives a map over the film"):
        GradCam(model, films())


def test_stages_are_the_last_maps_of_each_grid_from_fine_to_coarse() -> None:
    found = stages(built(Chosen("small_cnn")), films(1))
    assert [tuple(maps.shape) for _, maps in found] == [(32, 64, 64), (64, 32, 32), (128, 16, 16)]
