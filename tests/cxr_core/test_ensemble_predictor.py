"""An ensemble predicts as its networks do together."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxr_core.checkpoint import CheckpointError, load_checkpoint
from cxr_core.ensemble_predictor import EnsemblePredictor, load_predictor
from cxr_core.predict import Predictor
from cxr_core.predict_command import main
from tests.cxr_core.predicted_films import LABELS, SIZE, trained

pytestmark = pytest.mark.usefixtures("console_of_the_test")


@pytest.fixture(scope="module")
def study(film_table: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two networks of other seeds, and the file that names them."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "trials").mkdir()
    for seed in (0, 1):
        training, _ = trained(film_table, seed=seed)
        training.save(folder / "trials" / f"{seed}.pt")
    members = [{"trial": s, "weight": w, "checkpoint": f"trials/{s}.pt"} for s, w in ((0, 0.75), (1, 0.25))]
    thresholds = {"youden": [0.4, *[None] * (len(LABELS) - 1)]}
    (folder / "ensemble.json").write_text(json.dumps({"members": members, "thresholds": thresholds}))
    return folder


@pytest.fixture
def films() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)


def test_its_probabilities_are_the_weighted_mean_of_its_networks(study, films):
    ensemble = load_predictor(study / "ensemble.json")
    films = np.stack([ensemble.square(film) for film in films])
    one, other = (Predictor.load(study / "trials" / f"{seed}.pt").probabilities(films) for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(ensemble.probabilities(films), 0.75 * one + 0.25 * other, rtol=1e-6)


def test_its_thresholds_are_its_own_and_a_finding_without_one_is_not_judged(study):
    ensemble = load_predictor(study / "ensemble.json")
    assert set(ensemble.thresholds) == {"half", "youden"}
    assert ensemble.thresholds["youden"][0] == 0.4
    assert all(math.isnan(value) for value in ensemble.thresholds["youden"][1:])


def test_a_checkpoint_is_a_network_alone(study):
    assert not isinstance(load_predictor(study / "trials" / "0.pt"), EnsemblePredictor)


def test_networks_of_other_films_are_refused(study):
    one = load_checkpoint(study / "trials" / "0.pt")
    other = replace(one, aspect="pad" if one.aspect != "pad" else "crop")
    with pytest.raises(CheckpointError, match="takes other films"):
        EnsemblePredictor([one, other], [1, 1], {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "names no ensemble"),
        ("[]", "names no ensemble"),
        ('{"members": [{"weight": 1}], "thresholds": {}}', "names no ensemble"),
        ('{"members": [], "thresholds": {}}', "without networks"),
        ('{"members": [{"weight": 1, "checkpoint": "gone.pt"}], "thresholds": {}}', "gone.pt: no such checkpoint"),
    ],
)
def test_a_file_that_names_no_ensemble_is_refused_by_name(tmp_path, text, why):
    path = tmp_path / "ensemble.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=why) as refused:
        load_predictor(path)
    assert str(tmp_path) in str(refused.value)


def test_thresholds_of_other_findings_are_refused(study):
    path = study / "short.json"
    record = json.loads((study / "ensemble.json").read_text())
    path.write_text(json.dumps({**record, "thresholds": {"youden": [0.5] * (len(LABELS) + 1)}}))
    with pytest.raises(CheckpointError, match="thresholds are not of"):
        load_predictor(path)


def test_the_command_takes_an_ensemble_and_names_its_networks(study, film_table, capsys):
    film = next(path for path in sorted(film_table.parent.iterdir()) if path.suffix == ".png")
    assert main([str(study / "ensemble.json"), str(film)]) == 0
    shown = capsys.readouterr().out
    assert "ensemble of" in shown
    assert "0.pt" in shown
    assert "1.pt" in shown


def test_an_overlay_is_of_one_network(study, film_table, tmp_path, capsys):
    assert main([str(study / "ensemble.json"), "film.png", "--overlay", str(tmp_path)]) == 2
    assert "--overlay shows where one network looks" in capsys.readouterr().err
