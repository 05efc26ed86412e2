"""A film alone is given the probabilities that it has in its data set; what is no film is refused, with the remedy."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint, save_checkpoint
from cxr_core.config import Task, TrainConfig
from cxr_core.data import DataName, DataPolicy, Films, TrainingData, prepare
from cxr_core.evaluate import predict
from cxr_core.normalisations import Normalisation
from cxr_core.predict import Prediction, Predictor, Refusal, ThresholdError
from cxr_core.registry import Chosen
from cxr_core.train import Training
from tests.cxr_core.predicted_films import (
    KINDS,
    LABELS,
    SIZE,
    content,
    dicom,
    photograph,
    picture,
    trained,
)

REMEDIES = (
    "; give one chest film, exported again as PNG, JPEG or DICOM",
    "; name a file, or a folder of films, that you may read",
)
FLIP = Chosen("standard", {"horizontal_flip": True})


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor.load(model)


def told(outcomes: list[Prediction | Refusal]) -> np.ndarray:
    """Probabilities of predictions, (N, C)."""
    return np.array([[finding.probability for finding in outcome.findings.values()] for outcome in outcomes])


def save(folder: Path, film: Image.Image | np.ndarray, name: str = "film.png", **options: object) -> str:
    (film if isinstance(film, Image.Image) else Image.fromarray(film)).save(folder / name, **options)
    return str(folder / name)


# The same as in a data set


@pytest.mark.parametrize(
    ("aspect", "config"),
    [
        ("squash", {}),
        ("pad", {"normalize": Chosen("mean_image")}),
        ("crop", {"normalize": Chosen("unit"), "ema": 0.5}),
        ("squash", {"augment": FLIP, "flip_tta": True}),
        ("squash", {"zoom_tta": 0.2}),
        ("pad", {"centre_crop": 24, "augment": FLIP}),
    ],
    ids=["squash", "pad, mean film", "crop, average", "mirrored", "reduced", "centre"],
)
def test_every_kind_of_file_has_the_probabilities_that_its_cached_film_has(
    film_table: Path, tmp_path: Path, aspect: str, config: dict
) -> None:
    training, prepared = trained(film_table, aspect, **config)
    training.save(tmp_path / "model.pt")
    network = training.average.model if training.average else training.model
    predictor = Predictor.load(tmp_path / "model.pt")
    seen = set()
    for cache, is_part in (
        (prepared.cache, prepared.films["split"] != "test"),
        (prepared.test_cache, prepared.films["split"] == "test"),
    ):
        films = Films.open(cache, prepared.films[is_part], LABELS)
        batches = Batches(films, torch.device("cpu"))
        cached = predict(network, batches, training.normalise, views=training.config.views)
        alone = told(list(predictor([str(film_table.parent / image) for image in films.table["image"]])))
        np.testing.assert_allclose(alone, cached, rtol=1e-5)
        assert np.ptp(cached, axis=0).min() > 100 * 1e-5  # other pixels have other probabilities
        seen |= {image.partition("_")[2] for image in films.table["image"]}
    assert seen == set(KINDS)


def test_a_film_as_published_has_the_probabilities_that_its_cached_film_has(real_data: Path, tmp_path: Path) -> None:
    task = Task("binary", ("Pneumonia",))
    prepared = prepare(DataName("nih", str(real_data / "nih_1024")), DataPolicy(image_size=64), task)
    config = TrainConfig(task=task, image_size=64, model=Chosen("small_cnn", {"width": 8}), epochs=1, batch_size=16)
    training = Training(config, TrainingData.open(prepared.cache, prepared.development, task.labels))
    list(training.epochs())
    training.save(tmp_path / "model.pt")
    paths = {path.name: str(path) for path in (real_data / "nih_1024").rglob("*.png")}
    alone = told(
        list(Predictor.load(tmp_path / "model.pt")([paths[name] for name in training.data.val.table["image"]]))
    )
    np.testing.assert_allclose(alone, training.probabilities, rtol=1e-5)


def test_a_batch_says_of_each_film_what_it_says_of_the_film_alone(predictor: Predictor, tmp_path: Path) -> None:
    """More films than are read together, with refused ones among them."""
    paths = []
    for number in range(150):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content("PNG", number) if number % 10 else b"")
        paths.append(str(path))
    outcomes = list(predictor(paths))
    assert [outcome.image for outcome in outcomes] == paths
    assert [isinstance(outcome, Refusal) for outcome in outcomes] == [number % 10 == 0 for number in range(150)]
    for number in (1, 63, 64, 65, 129, 149):
        np.testing.assert_allclose(told([outcomes[number]]), told(list(predictor([paths[number]]))), rtol=1e-5)


def test_a_film_whose_white_is_zero_is_seen_as_a_viewer_shows_it(predictor: Predictor, tmp_path: Path) -> None:
    film = picture(3)
    film[0, :2] = 0, 255  # the whole range, so that nothing is stretched
    dicom(film, tmp_path / "2.dcm")
    dicom(255 - film, tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1")
    dicom(255 - film, tmp_path / "negative.dcm")
    paths = [save(tmp_path, film), *(str(tmp_path / name) for name in ("2.dcm", "1.dcm", "negative.dcm"))]
    png, plain, inverted, negative = told(list(predictor(paths)))
    np.testing.assert_allclose([plain, inverted], [png, png], rtol=1e-4)
    assert np.abs(negative / png - 1).max() > 0.01


def test_the_way_in_which_films_became_square_is_the_trainings(predictor: Predictor, tmp_path: Path) -> None:
    path = save(tmp_path, picture(3))
    (squashed,) = told(list(predictor([path])))
    for aspect in ("pad", "crop"):
        (other,) = told(list(Predictor(replace(predictor.checkpoint, aspect=aspect))([path])))
        assert np.abs(other / squashed - 1).max() > 1e-3


def test_mirror_images_are_alike_only_to_a_network_that_was_trained_and_predicts_with_both(
    film_table: Path, tmp_path: Path
) -> None:
    film = np.ascontiguousarray(picture(1))
    paths = [save(tmp_path, film, "a.png"), save(tmp_path, np.ascontiguousarray(film[:, ::-1]), "b.png")]
    alike = {}
    for mirrored, changes in {
        "both": {"augment": FLIP, "flip_tta": True},
        "trained": {"augment": FLIP},
        "predicted": {"flip_tta": True},
    }.items():
        trained(film_table, **changes)[0].save(tmp_path / "model.pt")
        one, other = told(list(Predictor.load(tmp_path / "model.pt")(paths)))
        alike[mirrored] = np.abs(one / other - 1).max() < 1e-4
    assert alike == {"both": True, "trained": False, "predicted": False}


def test_films_that_are_decoded_already_can_be_predicted(predictor: Predictor, tmp_path: Path) -> None:
    square = predictor.square(picture(3))
    assert (square.shape, square.dtype) == ((SIZE, SIZE), np.uint8)
    expected = told(list(predictor([save(tmp_path, picture(3))])))
    np.testing.assert_allclose(predictor.probabilities(square[None]), expected, rtol=1e-5)


# Thresholds


def test_a_finding_is_above_from_its_threshold_on(predictor: Predictor, tmp_path: Path) -> None:
    path = save(tmp_path, picture(3))
    ((mass, nodule),) = told(list(predictor([path])))
    fitted = {"youden": [float(mass), float(np.nextafter(nodule, 1))]}
    (outcome,) = Predictor(replace(predictor.checkpoint, thresholds=fitted))([path])
    assert [(finding.threshold, finding.above) for finding in outcome.findings.values()] == [
        (fitted["youden"][0], True),
        (fitted["youden"][1], False),
    ]


@pytest.mark.parametrize("rule", ["youden", "f1", "sensitivity_90", "half"])
def test_each_kind_of_thresholds_can_be_chosen(predictor: Predictor, tmp_path: Path, rule: str) -> None:
    (outcome,) = predictor([save(tmp_path, picture(3))], rule)
    expected = [0.5, 0.5] if rule == "half" else load_checkpoint(predictor.checkpoint.path).thresholds[rule]
    assert [finding.threshold for finding in outcome.findings.values()] == expected


def test_youdens_thresholds_are_used_unless_others_are_asked_for(predictor: Predictor, tmp_path: Path) -> None:
    path = save(tmp_path, picture(3))
    assert list(predictor([path])) == list(predictor([path], "youden"))
    assert list(predictor([path])) != list(predictor([path], "half"))


def test_without_a_threshold_it_is_not_known_whether_a_finding_is_above(predictor: Predictor, tmp_path: Path) -> None:
    checkpoint = replace(predictor.checkpoint, thresholds={"youden": [math.nan, math.inf]})
    (outcome,) = Predictor(checkpoint)([save(tmp_path, picture(3))])
    assert [finding.above for finding in outcome.findings.values()] == [None, False]


def test_thresholds_that_the_model_lacks_are_refused_before_a_film_is_read(predictor: Predictor) -> None:
    with pytest.raises(ThresholdError, match=r"no thresholds 'median'; it has f1, half, sensitivity_90, youden$"):
        predictor(["nowhere.png"], "median")


# What is refused


def colour_dicom(folder: Path) -> str:
    dicom(photograph(), folder / "film.dcm")
    return str(folder / "film.dcm")


def several_frames(folder: Path) -> str:
    dicom(np.stack([picture(1), picture(2), picture(3)]), folder / "film.dcm", NumberOfFrames=3)
    return str(folder / "film.dcm")


def tomogram(folder: Path) -> str:
    dicom(picture(3), folder / "film.dcm", Modality="CT")
    return str(folder / "film.dcm")


def several_pictures(kind: str) -> Callable[[Path], str]:
    pages = [Image.fromarray(picture(number)) for number in (1, 2)]
    return lambda folder: save(folder, pages[0], f"film.{kind}", save_all=True, append_images=pages[1:])


def cut(kind: str, suffix: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        if kind == "DICOM":
            dicom(picture(3), folder / "film.dcm")
        else:
            (folder / f"film.{suffix}").write_bytes(content(kind))
        path = folder / f"film.{suffix}"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return str(path)

    return write


def raw(content: bytes, name: str = "film.png") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return write


REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "colour png": (lambda folder: save(folder, photograph()), r"a colour picture, no film: .* in \d\d% of its pixels"),
    "colour jpeg": (lambda folder: save(folder, np.full((60, 60, 3), (200, 90, 20), np.uint8), "a.jpg"), "a colour"),
    "colour palette": (lambda folder: save(folder, Image.fromarray(photograph()).quantize(16)), "a colour picture"),
    "colour dicom": (colour_dicom, "a colour picture, no film"),
    "several frames": (several_frames, "3 frames: not a film but a series"),
    "tomogram": (tomogram, "its modality is CT, not radiography"),
    "animation": (several_pictures("gif"), "2 pictures in one file"),
    "pages": (several_pictures("tiff"), "2 pictures in one file"),
    "tiny": (lambda folder: save(folder, picture(3)[:31, :31]), "31 x 31 px is too small: .* 32 px or more"),
    "oblong": (lambda folder: save(folder, np.tile(picture(3), (1, 3))), "210 x 50 px is too oblong .* at most 1 to 4"),
    "blank": (lambda folder: save(folder, np.full((60, 60), 7, np.uint8)), "blank: every pixel is 7"),
    "empty": (raw(b""), "the file is empty"),
    "text": (raw(b"patient,finding\n"), "neither PNG, JPEG, .* nor DICOM"),
    "empty dicom": (raw(b"\0" * 128 + b"DICM", "film.dcm"), "DICOM"),
    "cut png": (cut("PNG", "png"), "truncated|broken"),
    "cut jpeg": (cut("JPEG", "jpg"), "truncated"),
    "cut dicom": (cut("DICOM", "dcm"), "bytes of pixel data is less than expected"),
    "nothing": (lambda folder: str(folder / "nowhere.png"), "No such file or directory; name a file"),
    "folder": (lambda folder: str(folder), "Is a directory; name a file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_film_is_refused_with_the_remedy_and_the_others_are_predicted(
    predictor: Predictor, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "wrong").mkdir()
    write, reason = REFUSED[kind]
    film, wrong = save(tmp_path, picture(3)), write(tmp_path / "wrong")
    before, refusal, after = predictor([film, wrong, film])
    assert isinstance(refusal, Refusal)
    assert refusal.image == wrong
    assert re.search(reason, refusal.reason)
    assert refusal.reason.endswith(REMEDIES)
    np.testing.assert_allclose(told([before, after]), told(list(predictor([film, film]))), rtol=1e-5)


def test_a_coloured_mark_on_a_film_does_not_make_it_a_photograph(predictor: Predictor, tmp_path: Path) -> None:
    film = np.stack([picture(3)] * 3, axis=-1)
    film[:5, :5] = 255, 0, 0  # 0.7 % of the film
    (outcome,) = predictor([save(tmp_path, film)])
    assert isinstance(outcome, Prediction)


@pytest.mark.parametrize(("size", "least"), [(28, 28), (64, 32), (128, 32), (256, 64), (512, 128)])
def test_the_smallest_film_follows_the_networks_size(tmp_path: Path, size: int, least: int) -> None:
    config = TrainConfig(task=Task("binary", ("Mass",)), image_size=size, model=Chosen("small_cnn", {"width": 4}))
    normalise = Normalisation(torch.tensor(0.0), 1.0)
    weights = config.network().state_dict()
    save_checkpoint(tmp_path / "model.pt", config, "squash", normalise, {"youden": [0.5]}, weights, None)
    predictor = Predictor.load(tmp_path / "model.pt")
    film = np.tile(np.arange(least, dtype=np.uint8), (least, 1))
    assert predictor.square(film).shape == (size, size)
    for smaller in (film[1:], film[:, 1:]):
        with pytest.raises(ValueError, match=f"each side of a film must have {least} px or more"):
            predictor.square(smaller)


@pytest.mark.parametrize("side", [160, 161])
def test_a_film_may_be_four_times_as_long_as_wide_and_no_longer(predictor: Predictor, side: int) -> None:
    film = np.zeros((side, 40), np.uint8)
    if side == 160:
        assert predictor.square(film).shape == (SIZE, SIZE)
    else:
        with pytest.raises(ValueError, match="40 x 161 px is too oblong"):
            predictor.square(film)


def test_outputs_that_are_not_finite_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    weights = {key: value * math.nan for key, value in predictor.checkpoint.weights.items()}
    (outcome,) = Predictor(replace(predictor.checkpoint, weights=weights))([save(tmp_path, picture(3))])
    assert isinstance(outcome, Refusal)
    assert "outputs for it are not finite; take another model" in outcome.reason
