"""A network written for another runtime says what it said, takes what it is told to take, or is not written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cxr_core import runtimes
from cxr_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cxr_core.config import Task, TrainConfig
from cxr_core.data.film_files import films_in, read_film
from cxr_core.models import models
from cxr_core.normalisations import Normalisation
from cxr_core.predict import Prediction, Predictor
from cxr_core.registry import Chosen, Scalar
from cxr_core.runtimes import TOLERANCE, Deployed, ExportError, compare, export
from tests.cxr_core.models.test_families import LARGE, SMALL

LABELS = ("Mass", "Nodule", "Hernia")
FLIP = Chosen("standard", {"horizontal_flip": True})


def films(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)


def checkpoint_of(
    folder: Path, chosen: Chosen, size: int = 32, normalise: Normalisation | None = None, **config: object
) -> Checkpoint:
    """An untrained network whose batch norms have seen films, as a training leaves it."""
    torch.manual_seed(0)
    config = TrainConfig(task=Task("multilabel", LABELS), image_size=size, model=chosen, **config)
    network = config.network(pretrained=False).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 1, size, size))
    thresholds = {"youden": [0.25, float("nan"), float("inf")]}
    normalise = normalise or Normalisation(torch.tensor(0.4), 0.2)
    save_checkpoint(folder / "model.pt", config, "pad", normalise, thresholds, network.state_dict(), None)
    return load_checkpoint(folder / "model.pt")


@pytest.fixture
def small(tmp_path: Path) -> Checkpoint:
    return checkpoint_of(tmp_path, Chosen("small_cnn", {"width": 4}))


def run(path: Path, some: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"films": some[:, None]})[0]


# All networks

TIMM: list[dict[str, Scalar]] = [
    {"name": "test_vit"},
    {"name": "test_convnext"},
    {"name": "test_efficientnet", "channels": 3},
    {"name": "vit_tiny_patch16_224"},
]


@pytest.mark.parametrize(
    "chosen",
    [
        *(pytest.param(Chosen(name, SMALL.get(name, {})), id=name) for name in models if name not in {"timm", *LARGE}),
        # These share all code but timm's own with resnet18 and densenet121.
        *(pytest.param(Chosen(name), id=name, marks=pytest.mark.slow) for name in sorted(LARGE)),
        *(pytest.param(Chosen("timm", each), id=str(each["name"])) for each in TIMM),
    ],
)
def test_every_family_says_the_same_in_onnx_for_any_number_of_films(chosen: Chosen, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, chosen, 64)
    agreement = export(checkpoint, tmp_path / "model.onnx", films(4, 64))
    assert agreement.films == 4
    assert 0 <= agreement.mean <= agreement.largest <= TOLERANCE
    for count in (1, 3, 6):
        some = films(count, 64)
        answered = run(tmp_path / "model.onnx", some)
        assert answered.shape == (count, 3)
        np.testing.assert_allclose(answered, Predictor(checkpoint).probabilities(some), atol=TOLERANCE)


# Preprocessing


@pytest.mark.parametrize(
    "config",
    [
        {"normalise": Normalisation(torch.rand(32, 32), 0.3)},
        {"augment": FLIP, "flip_tta": True},
        {"zoom_tta": 0.3},
        {"centre_crop": 24},
    ],
    ids=["mean film", "mirrored", "reduced", "centre"],
)
@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_normalisation_views_and_cropping_are_inside(config: dict, name: str, tmp_path: Path) -> None:
    some = films(20, 32)
    checkpoint = checkpoint_of(tmp_path, Chosen("small_cnn", {"width": 4}), **config)
    assert export(checkpoint, tmp_path / name, some).largest <= 1e-5
    plain = checkpoint_of(tmp_path, Chosen("small_cnn", {"width": 4}))
    with_it, without = (Predictor(each).probabilities(some) for each in (checkpoint, plain))
    assert np.abs(with_it - without).max() > 10 * TOLERANCE  # it matters


def test_pixels_as_floats_of_the_same_values_say_the_same(small: Checkpoint) -> None:
    pixels = torch.from_numpy(films(3, 32)[:, None])
    with torch.no_grad():
        network = Deployed(small).eval()
        assert network(pixels).equal(network(pixels.float()))


def test_films_in_files_say_in_onnx_what_the_predict_command_says(
    model: Path, film_table: Path, tmp_path: Path
) -> None:
    predictor = Predictor.load(model)
    paths, _ = films_in(str(film_table.parent))
    squares = np.stack([predictor.square(read_film(path, strict=True)) for path in paths])
    export(predictor.checkpoint, tmp_path / "model.onnx", squares)
    told = [outcome for outcome in predictor(paths) if isinstance(outcome, Prediction)]
    expected = [[finding.probability for finding in outcome.findings.values()] for outcome in told]
    np.testing.assert_allclose(run(tmp_path / "model.onnx", squares), expected, atol=1e-5)


# What is told


def test_an_onnx_file_says_what_it_takes_and_gives(small: Checkpoint, tmp_path: Path) -> None:
    agreement = export(small, tmp_path / "model.onnx", films(2, 32))
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["labels"]) == list(LABELS)
    assert (told["image_size"], told["aspect"]) == ("32", "pad")
    assert json.loads(told["thresholds"]) == {"youden": {"Mass": 0.25, "Nodule": None, "Hernia": 2.0}}
    assert told["disclaimer"] == "research only, not for clinical use"
    assert json.loads(told["agreement"])["largest"] == agreement.largest
    (given,), (answered,) = model.graph.input, model.graph.output
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_value for side in given.type.tensor_type.shape.dim][1:] == [1, 32, 32]
    assert given.type.tensor_type.shape.dim[0].dim_param  # any number of films
    assert answered.type.tensor_type.shape.dim[1].dim_value == 3


def test_a_program_of_torch_export_says_it_as_well(small: Checkpoint, tmp_path: Path) -> None:
    export(small, tmp_path / "model.pt2", films(2, 32))
    files = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files)
    assert json.loads(files["metadata.json"])["labels"] == list(LABELS)
    answered = program.module()(torch.from_numpy(films(5, 32)[:, None])).detach().numpy()
    np.testing.assert_allclose(answered, Predictor(small).probabilities(films(5, 32)), atol=1e-5)


def test_differences_are_counted_over_all_probabilities() -> None:
    agreement = compare(np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[0.1, 0.25], [0.3, 0.4]]))
    assert agreement == runtimes.Agreement(2, pytest.approx(0.05), pytest.approx(0.0125))


# What is refused


class Wrong(torch.nn.Module):
    """Answers half a thousandth more where it is traced: an exporter that translates a layer in another way."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        return self.net(films) + (0.01 if torch.compiler.is_exporting() else 0.0)


class Fickle(torch.nn.Module):
    """Its way depends on the pixels, which no tracer can follow."""

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        return films[:, 0, 0, :3] * (1 if films.sum().item() > 0 else 2)


def with_network(checkpoint: Checkpoint, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(Checkpoint, "build", lambda self: network)
    return checkpoint


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_file_that_says_something_else_is_not_written(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wrong = with_network(small, Wrong(small.build()).eval(), monkeypatch)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ExportError, match=r"differs by 0\.00.* on 4 films, and 0\.0001 is let pass"):
        export(wrong, tmp_path / name, films(4, 32))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_network_that_cannot_be_traced_is_refused_with_its_name_and_the_reason(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match=r"model\.pt: small_cnn cannot be written in this form \(.*\.pt2"):
        export(with_network(small, Fickle(), monkeypatch), tmp_path / "model.onnx", films(4, 32))


def test_a_file_of_another_kind_and_an_export_without_films_are_refused(small: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"as \.onnx or \.pt2"):
        export(small, tmp_path / "model.tflite", films(1, 32))
    with pytest.raises(ExportError, match="give one"):
        export(small, tmp_path / "model.onnx", films(0, 32))


def test_an_earlier_file_stays_where_a_new_one_fails(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_text("earlier")
    with pytest.raises(ExportError):
        export(with_network(small, Fickle(), monkeypatch), tmp_path / "model.onnx", films(4, 32))
    assert (tmp_path / "model.onnx").read_text() == "earlier"


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    from cxr_core.export import main

    monkeypatch.setattr("cxr_core.export.show_log", lambda *packages: None)  # a handler would outlive this test

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def test_the_command_writes_the_file_and_states_the_agreement(
    model: Path, film_table: Path, tmp_path: Path, command: Command
) -> None:
    code, out, err = command(model, "--out", tmp_path / "net.onnx", "--films", film_table.parent, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["file"] == str(tmp_path / "net.onnx")
    assert told["agreement"]["films"] == 32
    assert told["agreement"]["largest"] < told["agreement"]["tolerance"] == TOLERANCE
    assert run(tmp_path / "net.onnx", films(1, 32)).shape == (1, 2)


def test_the_command_names_what_it_cannot_use(model: Path, film_table: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "no_film.png").write_bytes(b"nothing")
    nothing = tmp_path / "no_film.png"
    for words, code, why in (
        ((tmp_path / "none.pt", "--out", tmp_path / "a.onnx", "--films", film_table.parent), 2, "no such checkpoint"),
        ((model, "--out", tmp_path / "a.txt", "--films", film_table.parent), 2, ".onnx or .pt2"),
        ((model, "--out", tmp_path / "a.onnx", "--films", nothing), 2, "no film among them"),
        ((model, "--out", tmp_path / "a.onnx", "--films", tmp_path / "absent.png"), 3, "absent.png: No such file"),
    ):
        told = command(*words)
        assert told[0] == code, told
        assert why in told[2]
    assert not (tmp_path / "a.onnx").exists()
