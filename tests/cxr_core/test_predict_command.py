"""`python -m cxr_core.predict`: what it prints, what it goes on after, and how it ends."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint, save_checkpoint
from cxr_core.data import DataName, DataPolicy, Films, prepare
from cxr_core.evaluate import predict
from cxr_core.labels import Task
from cxr_core.predict_command import main
from cxr_core.train_command import main as train
from tests.cxr_core.predicted_films import content, photograph, trained

pytestmark = pytest.mark.usefixtures("console_of_the_test")
REPOSITORY = Path(__file__).resolve().parents[2]
DISCLAIMER = "research only, not for clinical use"
RECIPE = """name: tiny
task: {kind: multilabel, labels: [Effusion, Infiltration, Mass]}
data: {image_size: 32, validation: 0.3}
objective: {metric: auroc_macro}
space: {model: {small_cnn: {width: 4}}, lr: 1e-2, batch_size: 4, epochs: 3}
"""


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    path.write_bytes(content("PNG"))
    return path


Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: its exit code, what it printed, and the lines of its messages."""

    def command(*arguments: object) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        code = main([*map(str, arguments), "--device", "cpu"])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return command


def objects(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


# From one command to the other


def test_a_network_that_the_train_command_made_says_of_a_film_what_its_evaluation_says(
    nih_folder: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    data = ("--data", f"nih:{nih_folder}", "--out", str(tmp_path / "out"), "--device", "cpu")
    assert train([str(tmp_path / "tiny.yaml"), *data]) == 0
    code, out, _ = run(tmp_path / "out" / "model.pt", nih_folder, "--json")
    assert code == 0
    told = {Path(film["image"]).name: film["findings"] for film in objects(out)}

    checkpoint, labels = load_checkpoint(tmp_path / "out" / "model.pt"), ("Effusion", "Infiltration", "Mass")
    task = Task("multilabel", labels)
    prepared = prepare(DataName("nih", str(nih_folder)), DataPolicy(image_size=32, validation=0.3), task)
    films = Films.open(prepared.cache, prepared.development, labels)
    cached = predict(checkpoint.build(), Batches(films, torch.device("cpu")), checkpoint.normalise)
    assert len(told) == 16
    for image, probabilities in zip(films.table["image"], cached, strict=True):
        assert list(told[image]) == list(labels)
        assert [finding["probability"] for finding in told[image].values()] == pytest.approx(probabilities, rel=1e-5)

    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {label: finding["threshold"] for label, finding in told[image].items()} == results["thresholds"]["youden"]


# What it prints


def test_json_is_an_object_a_film_on_a_line(model: Path, film_table: Path, run: Run) -> None:
    images = [str(path) for path in sorted(film_table.parent.glob("*.dcm"))]
    code, out, err = run(model, *images, "--json")
    assert (code, err) == (0, [DISCLAIMER])
    assert [film["image"] for film in objects(out)] == images
    for film in objects(out):
        assert (film["model"], film["threshold"]) == (str(model), "youden")
        assert list(film["findings"]) == ["Mass", "Nodule"]
        for finding in film["findings"].values():
            assert finding["above"] == (finding["probability"] >= finding["threshold"])


def test_the_table_has_a_row_a_finding_with_the_numbers_of_json(model: Path, film_table: Path, run: Run) -> None:
    images = [str(path) for path in sorted(film_table.parent.glob("0*"))]
    told = objects(run(model, *images, "--json", "--threshold", "f1")[1])
    code, out, err = run(model, *images, "--threshold", "f1")
    assert (code, err) == (0, [DISCLAIMER])
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["film", "finding", "probability", "threshold"]
    expected = [
        [
            *([film["image"]] if place == 0 else []),
            label,
            f"{finding['probability']:.4f}",
            f"{finding['threshold']:.4f}",
            *(["above"] if finding["above"] else []),
        ]
        for film in told
        for place, (label, finding) in enumerate(film["findings"].items())
    ]
    assert [line for line in lines[2:-2] if line] == expected
    assert {"above"} & {line[-1] for line in expected}
    assert f"{model}: small_cnn at 32 px" in out
    assert "threshold  f1, fitted on the validation films" in out


def test_a_name_as_long_as_a_path_may_be_is_printed_whole(model: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / ("a" * 200) / ("[b]" * 60)
    folder.mkdir(parents=True)
    (folder / "film.png").write_bytes(content("PNG"))
    (folder / "wrong.png").write_bytes(b"")
    code, out, err = run(model, folder)
    assert code == 2
    assert f"{folder / 'film.png'} " in out
    assert f"refused: {folder / 'wrong.png'}: the file is empty; give one chest film" in err[0]


@pytest.mark.parametrize(
    ("stored", "json_threshold", "above", "shown"),
    [
        (math.nan, None, None, ["none", "not", "known"]),
        (math.inf, None, False, ["inf"]),
        (0.0, 0.0, True, ["0.0000", "above"]),
    ],
)
def test_a_threshold_that_is_no_number_is_told_as_none(
    model: Path, film: Path, tmp_path: Path, run: Run, stored: float, json_threshold: object, above: object, shown: list
) -> None:
    saved = load_checkpoint(model)
    thresholds = {"youden": [stored, 0.5]}
    path = tmp_path / "other.pt"
    save_checkpoint(path, saved.config, saved.aspect, saved.normalise, thresholds, saved.weights, None)
    mass = objects(run(path, film, "--json")[1])[0]["findings"]["Mass"]
    assert (mass["threshold"], mass["above"]) == (json_threshold, above)
    (row,) = [line.split() for line in run(path, film)[1].splitlines() if " Mass " in line]
    assert row[3:] == shown


def test_the_thresholds_of_one_half_need_no_fitting(model: Path, film: Path, run: Run) -> None:
    (told,) = objects(run(model, film, "--json", "--threshold", "half")[1])
    assert {finding["threshold"] for finding in told["findings"].values()} == {0.5}
    assert "threshold  half, 0.5 for every finding" in run(model, film, "--threshold", "half")[1]


def test_an_unfinished_training_is_told(film_table: Path, film: Path, tmp_path: Path, run: Run) -> None:
    training, _ = trained(film_table)
    training.epoch = 2
    training.save(tmp_path / "model.pt")
    code, _, err = run(tmp_path / "model.pt", film)
    assert code == 0
    assert f"{tmp_path / 'model.pt'}: its training is not finished (2 of 3 epochs)" in err[0]


# Folders


def test_a_folder_stands_for_the_films_in_it_and_below(model: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "films"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("b.PNG", "a.jpeg", "below/c.tiff", ".hidden/d.png"):
        kind = {"PNG": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "png": "PNG"}[name.rpartition(".")[2]]
        (folder / name).write_bytes(content(kind))
    (folder / "labels.csv").write_text("image,Mass\n")
    code, out, err = run(model, folder, "--json")
    assert code == 0
    assert [film["image"] for film in objects(out)] == [
        str(folder / name) for name in ("a.jpeg", "b.PNG", "below/c.tiff")
    ]
    assert "3 films; files that are no pictures, left out: 1" in err[0]


def test_dicom_without_a_suffix_is_found_in_a_folder_and_its_index_is_not(
    model: Path, film_table: Path, tmp_path: Path, run: Run
) -> None:
    source = next(film_table.parent.glob("*.dcm")).read_bytes()
    for name in ("IM000001", "1.2.840.10008.7", "DICOMDIR"):
        (tmp_path / name).write_bytes(source)
    code, out, _ = run(model, tmp_path, "--json")
    assert code == 0
    assert [Path(film["image"]).name for film in objects(out)] == ["1.2.840.10008.7", "IM000001"]


def test_a_folder_without_films_is_refused_and_the_others_are_predicted(
    model: Path, film: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(model, tmp_path / "empty", film, "--json")
    assert code == 2
    assert len(objects(out)) == 1
    assert err == [
        f"refused: {tmp_path / 'empty'}: no film in this folder; its films must be named .png, .jpg, .dcm or alike",
        "1 of 2 refused",
        DISCLAIMER,
    ]


# Refusals


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_an_unreadable_film_does_not_lose_the_others(
    model: Path, film: Path, tmp_path: Path, run: Run, form: tuple
) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(photograph()).save(tmp_path / "photograph.png")
    last = tmp_path / "last.jpg"
    last.write_bytes(content("JPEG"))
    code, out, err = run(model, tmp_path / "empty.png", film, tmp_path / "photograph.png", "nowhere.png", last, *form)
    assert code == 2
    assert [str(path) in out for path in (film, last, tmp_path / "empty.png")] == [True, True, False]
    remedy = "give one chest film, exported again as PNG, JPEG or DICOM"
    assert err == [
        f"refused: {tmp_path / 'empty.png'}: the file is empty; {remedy}",
        f"refused: {tmp_path / 'photograph.png'}: a colour picture, no film: red, green and blue differ in 99% of its "
        f"pixels; {remedy}",
        "refused: nowhere.png: No such file or directory; name a file, or a folder of films, that you may read",
        "3 of 5 refused",
        DISCLAIMER,
    ]


def test_nothing_is_printed_if_every_film_was_refused(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    code, out, err = run(model, tmp_path / "empty.png")
    assert (code, out, err[1:]) == (2, "", ["1 of 1 refused", DISCLAIMER])


WRONG_MODELS = {
    "nothing": lambda path, model: None,
    "film": lambda path, model: path.write_bytes(content("PNG")),
    "empty": lambda path, model: path.write_bytes(b""),
    "text": lambda path, model: path.write_text("name: tiny\n"),
    "folder": lambda path, model: path.mkdir(),
    "cut": lambda path, model: path.write_bytes(model.read_bytes()[:-100]),
    "other program": lambda path, model: torch.save({"state_dict": {"weight": torch.zeros(2)}}, path),
    "other version": lambda path, model: torch.save({**torch.load(model), "format": 1}, path),
    "no aspect": lambda path, model: torch.save(without(torch.load(model), "preprocessing", "aspect"), path),
    "other weights": lambda path, model: torch.save({**torch.load(model), "weights": {}}, path),
}


def without(content: dict, part: str, key: str) -> dict:
    del content[part][key]
    return content


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_a_wrong_model_is_refused_by_name_before_a_film_is_read(
    model: Path, tmp_path: Path, run: Run, kind: str
) -> None:
    path = tmp_path / "wrong.pt"
    WRONG_MODELS[kind](path, model)
    code, out, err = run(path, "nowhere.png")
    assert (code, out) == (2, "")
    assert len(err) == 2
    assert err[0].startswith(f"{path}: ")
    assert err[0].endswith(
        "; MODEL is the model.pt of a training by python -m cxr_core.train, or the ensemble.json of a study"
    )
    assert err[1] == DISCLAIMER


def test_thresholds_that_the_model_lacks_are_refused_with_those_that_it_has(model: Path, film: Path, run: Run) -> None:
    code, out, err = run(model, film, "--threshold", "youdn")
    assert (code, out) == (2, "")
    assert err == [
        f"{model}: has no thresholds 'youdn'; it has f1, half, sensitivity_90, youden. Name one of them: --threshold",
        DISCLAIMER,
    ]


def test_a_gpu_that_is_not_there_is_refused(model: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), str(film), "--device", "cuda:99"]) == 3
    assert "--device cuda:99: PyTorch does not see this GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("model.pt",), "the following arguments are required: IMAGE"),
        (("model.pt", "a.png", "--device", "tpu"), "'tpu' is none of cpu, cuda"),
        (("model.pt", "a.png", "--thresh", "f1"), "unrecognized arguments"),
    ],
)
def test_a_bad_option_is_refused(arguments: tuple, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(list(arguments))
    assert refused.value.code == 2
    assert told in capsys.readouterr().err


# As a process of its own


def start(*arguments: object, **streams: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cxr_core.predict", *map(str, arguments), "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, **streams)


def test_a_reader_that_has_seen_enough_ends_it_without_a_fault(model: Path, film: Path) -> None:
    process = start(model, *[film] * 2000, "--json", stdout=subprocess.PIPE)
    first = json.loads(process.stdout.readline())
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert first["image"] == str(film)
    assert (process.wait(), err) == (0, f"{DISCLAIMER}\n")


def test_ctrl_c_ends_it_between_two_films(model: Path, film: Path) -> None:
    process = start(model, *[film] * 2000, "--json", stdout=subprocess.PIPE)  # more than a pipe takes
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    with process:
        out, err = first + process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert err.splitlines() == ["interrupted; the films told so far are complete", DISCLAIMER]
    assert {film["model"] for film in objects(out)} == {str(model)}  # no line is cut
    assert len(objects(out)) < 2000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_an_answer_that_cannot_be_printed_is_a_fault(model: Path, film: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start(model, film, stdout=full)
        _, err = process.communicate()
    assert process.returncode == 3
    assert err.splitlines() == ["the answer cannot be printed: No space left on device", DISCLAIMER]


def test_a_film_whose_name_is_no_text_is_predicted(model: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb") as file:
        file.write(content("PNG"))
    process = start(model, os.fsdecode(name), stdout=subprocess.PIPE)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, f"{DISCLAIMER}\n")
    assert "?.png" in out


# Real films


def test_real_films_are_predicted_as_published_and_as_reduced(real_data: Path, tmp_path: Path, run: Run) -> None:
    """The same films at 1024 and at 256 px, of which a network for 64 px sees nearly the same."""
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("image_size: 32", "image_size: 64"))
    out = tmp_path / "out"
    assert train([str(tmp_path / "tiny.yaml"), "--data", f"nih:{real_data / 'nih_1024'}", "--out", str(out)]) == 0
    code, published, _ = run(out / "model.pt", real_data / "nih_1024", "--json")
    assert code == 0
    large = {Path(film["image"]).name: film["findings"] for film in objects(published)}
    mini = [path for name in large if (path := real_data / "nih_mini" / "images" / name).exists()]
    assert len(mini) > 50
    code, reduced, _ = run(out / "model.pt", *mini, "--json")
    assert code == 0
    one = pd.DataFrame([{label: of["probability"] for label, of in large[path.name].items()} for path in mini])
    other = pd.DataFrame([{k: of["probability"] for k, of in film["findings"].items()} for film in objects(reduced)])
    for label in one:
        assert np.corrcoef(one[label], other[label])[0, 1] > 0.99
