"""`python -m cxr_core.explain`: what it writes, which films it opens, and what it refuses."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_core.explain_command import main
from cxr_core.predict import Prediction, Predictor

REPOSITORY = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("console_of_the_test")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_command: Run) -> Run:
    return partial(run_command, main)


@pytest.fixture(scope="module")
def explained(trained: Path, boxed_films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explanation of the validation films."""
    out = tmp_path_factory.mktemp("explained") / "out"
    words = [str(trained), "--data", f"nih:{boxed_films}", "--out", str(out), "--json", "--device", "cpu"]
    assert main(words) == 0
    return out


def record(out: Path) -> dict:
    return json.loads((out / "explanation.json").read_text())


# What it writes


def test_every_picture_that_is_named_is_there_and_nothing_else(explained: Path) -> None:
    told = record(explained)
    named = [of["picture"] for of in told["labels"].values()]
    named += [told["insides"]["feature_maps"]["picture"], told["insides"]["first_filters"]["picture"]]
    assert sorted(path.name for path in explained.iterdir()) == sorted(["explanation.json", *named])
    for name in named:
        with Image.open(explained / name) as picture:
            assert min(picture.size) > 90
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_films_are_those_that_the_training_validated_on(explained: Path, trained: Path) -> None:
    table = pd.read_parquet(trained.parent / "films.parquet")
    validation = set(table.loc[table["split"] == "val", "image"])
    told = record(explained)
    shown = {one["image"] for of in told["labels"].values() for kind in of["shown"].values() for one in kind}
    assert told["split"] == "val"
    assert told["films"] == len(validation)
    assert shown <= validation
    assert {one["image"] for one in told["localisation"]["pairs"]} <= validation


def test_films_shown_and_counts_are_what_predictions_and_labels_say(
    explained: Path, trained: Path, boxed_films: Path
) -> None:
    """Against `cxr_core.predict` on the files."""
    table = pd.read_parquet(trained.parent / "films.parquet").query("split == 'val'").set_index("image")
    said = Predictor.load(trained)([str(boxed_films / "images" / image) for image in table.index])
    predictions = {Path(one.image).name: one.findings for one in said if isinstance(one, Prediction)}
    panels = record(explained)["labels"]
    assert all(sum(of[kind] for of in panels.values()) for kind in ("false positives", "false negatives"))
    for label, of in panels.items():
        truth = {image: (table.at[image, label] == 1, finding[label].above) for image, finding in predictions.items()}
        for kind, wanted in (("true positives", (True, True)), ("false positives", (False, True))):
            assert of[kind] == sum(both == wanted for both in truth.values())
            assert all(truth[one["image"]] == wanted for one in of["shown"][kind])
        assert of["false negatives"] == sum(both == (True, False) for both in truth.values())
        for one in [one for kind in of["shown"].values() for one in kind]:
            assert one["probability"] == pytest.approx(predictions[one["image"]][label].probability, rel=1e-4)
        sure = max(
            (findings[label].probability for image, findings in predictions.items() if truth[image] == (True, True))
        )
        assert of["shown"]["true positives"][0]["probability"] == pytest.approx(sure, rel=1e-4)


def test_maps_of_a_network_that_sees_squares_point_at_them_more_often_than_chance(explained: Path) -> None:
    found = record(explained)["localisation"]
    assert found["films_taken"] == found["films_with_boxes"] == found["overall"]["pairs"]
    assert found["overall"]["pointing"]["chance"] == pytest.approx((16 / 64) ** 2, rel=0.01)
    assert found["overall"]["pointing"]["low"] > found["overall"]["pointing"]["chance"]
    assert "the maps do better than both" in found["sentence"]


def test_maps_are_compared_with_those_of_random_weights(explained: Path) -> None:
    checked = record(explained)["randomised"]
    assert checked["steps"][-1]["random"] == 1
    assert abs(checked["steps"][-1]["spearman"]) <= 1
    assert checked["sentence"].startswith("The maps")


def test_a_person_is_told_the_layer_the_boxes_and_the_check(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run
) -> None:
    code, out, err = run(trained, "--data", f"nih:{boxed_films}", "--out", tmp_path / "out", "--label", "Mass")
    assert code == 0
    told = record(tmp_path / "out")
    assert list(told["labels"]) == ["Mass"]
    for said in (told["about_layers"], told["localisation"]["sentence"], told["randomised"]["sentence"]):
        assert said in out
    assert "research only, not for clinical use" in err


def test_the_same_command_again_replaces_its_explanation_by_the_same(
    explained: Path, trained: Path, boxed_films: Path, tmp_path: Path, run: Run
) -> None:
    shutil.copytree(explained, tmp_path / "out")
    (tmp_path / "out" / "panel-09-Left-over.png").touch()
    assert run(trained, "--data", f"nih:{boxed_films}", "--out", tmp_path / "out")[0] == 0
    assert record(tmp_path / "out") == record(explained)
    assert not (tmp_path / "out" / "panel-09-Left-over.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Which films


def test_the_test_split_is_opened_only_when_it_is_asked_for_and_that_is_written_down(
    trained: Path, boxed_films: Path, explained: Path, tmp_path: Path, run: Run
) -> None:
    assert "test_opened" not in record(explained)
    words = (trained, "--data", f"nih:{boxed_films}", "--out", tmp_path / "out", "--split", "test", "--boxed", 3)
    code, _, err = run(*words)
    assert code == 0
    assert "opening the test split: 24 films" in err
    told = record(tmp_path / "out")
    assert told["test_opened"].startswith("20")
    assert (told["localisation"]["films_taken"], told["localisation"]["films_with_boxes"]) == (3, 12)
    assert all(int(one["image"][:8]) >= 28 for one in told["localisation"]["pairs"])


def test_the_sealed_test_split_of_a_study_stays_closed(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run
) -> None:
    study = tmp_path / "studies" / "one"
    (study / "trials" / "00003").mkdir(parents=True)
    shutil.copy(trained, study / "trials" / "00003" / "epoch-0008.pt")
    films = pd.read_parquet(trained.parent / "films.parquet")
    films[films["split"] != "test"].to_parquet(study / "films.parquet")
    model, data = study / "trials" / "00003" / "epoch-0008.pt", f"nih:{boxed_films}"
    code, _, err = run(model, "--data", data, "--out", tmp_path / "out", "--split", "test")
    assert code == 3
    assert "sealed until python -m search.finalize opens it" in err
    assert not (tmp_path / "out").exists()
    (study / "test").mkdir()
    films[films["split"] == "test"].to_parquet(study / "test" / "films.parquet")
    assert run(model, "--data", data, "--out", tmp_path / "out", "--split", "test", "--label", "Mass")[0] == 0


def test_the_network_that_a_study_hands_over_is_explained_on_the_studys_films(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run
) -> None:
    model, films = tmp_path / "one" / "model" / "model.pt", pd.read_parquet(trained.parent / "films.parquet")
    model.parent.mkdir(parents=True)
    shutil.copy(trained, model)
    halved = films["split"].eq("val") & (films["patient"].rank(method="dense") % 2).eq(0)
    assert 0 < halved.sum() < films["split"].eq("val").sum()
    films.assign(split=films["split"].mask(halved, "train")).to_parquet(tmp_path / "one" / "films.parquet")
    code, _, err = run(model, "--data", f"nih:{boxed_films}", "--out", tmp_path / "out", "--label", "Mass")
    assert code == 0, err
    assert "it may have been trained" not in err
    shown = record(tmp_path / "out")["films"]
    assert shown == (films["split"].eq("val") & ~halved).sum()


def test_a_network_without_its_training_is_explained_on_the_data_sets_own_split_with_a_warning(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run
) -> None:
    shutil.copy(trained, tmp_path / "alone.pt")
    code, _, err = run(tmp_path / "alone.pt", "--data", f"nih:{boxed_films}", "--out", tmp_path / "out")
    assert code == 0
    assert "it may have been trained on films that count as validation films here" in err


@pytest.mark.parametrize("official", [True, False])
def test_so_is_it_on_test_films_unless_the_data_set_says_which_they_are(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run, official: bool
) -> None:
    shutil.copy(trained, tmp_path / "alone.pt")
    copy = shutil.copytree(boxed_films, tmp_path / "films")
    if not official:
        (copy / "train_val_list.txt").unlink()
        (copy / "test_list.txt").unlink()
    words = (tmp_path / "alone.pt", "--data", f"nih:{copy}", "--out", tmp_path / "out", "--split", "test")
    code, _, err = run(*words, "--label", "Mass")
    assert code == 0
    assert ("it may have been trained on films that count as test films here" in err) == (not official)


def test_films_without_boxes_are_explained_and_that_is_said(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(boxed_films, copy)
    (copy / "BBox_List_2017.csv").unlink()
    code, out, _ = run(trained, "--data", f"nih:{copy}", "--out", tmp_path / "out", "--label", "Mass")
    assert code == 0
    assert record(tmp_path / "out")["localisation"] is None
    assert "nobody can say whether the maps point at the right place" in out


# What it refuses


def test_a_folder_with_other_files_is_left_alone(trained: Path, boxed_films: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    code, _, err = run(trained, "--data", f"nih:{boxed_films}", "--out", tmp_path / "out")
    assert code == 2
    assert "holds other files than an explanation; name another folder" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--label", "Hernia"], 2, "the network does not know this finding; it knows Mass, Effusion"),
        (["--data", "phantom"], 3, "are not in this data set"),
        (["--data", "nih:/nowhere"], 3, "no such folder"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(
    trained: Path, boxed_films: Path, tmp_path: Path, run: Run, words: list[str], code: int, said: str
) -> None:
    result, out, err = run(trained, "--data", f"nih:{boxed_films}", "--out", tmp_path / "out", *words)
    assert (result, out) == (code, "")
    assert said in err
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_refused(boxed_films: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(tmp_path / "model.pt", "--data", f"nih:{boxed_films}", "--out", tmp_path / "out")
    assert code == 2
    assert "no such checkpoint" in err


def test_a_folder_that_cannot_be_written_is_told(trained: Path, boxed_films: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    code, _, err = run(trained, "--data", f"nih:{boxed_films}", "--out", tmp_path / "file" / "out")
    assert code == 3
    assert "nothing was written" in err


def test_help_is_told_without_what_takes_long_to_import() -> None:
    script = (
        "import sys; from cxr_core.explain_command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'captum', 'matplotlib', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--split {val,test}" in said.stdout
    assert said.stderr.strip() == "set()"
