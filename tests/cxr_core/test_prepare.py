"""`python -m cxr_core.prepare`: what it prints, what it leaves, how it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cxr_core.prepare import main

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxr_core.prepare", *arguments]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_json_tells_what_was_found_in_real_films(real_data: Path, tmp_path: Path, capsys) -> None:
    data = f"nih:{real_data / 'nih_mini'}"
    assert main(["--data", data, "--image-size", "32", "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"films", "patients", "splits", "labels", "views", "unreadable", "cache", "seconds"} <= set(told)
    assert (told["films"], told["patients"]) == (1000, 682)
    assert told["splits"]["test"]["films"] == 153
    assert sum(told["views"].values()) == 1000
    assert told["unreadable"] == []
    assert Path(told["cache"]).is_dir()
    assert told["labels"]["Pneumonia"]["train"]["prevalence"] > 0.3


def test_the_split_is_written_down_and_shown(nih_folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    arguments = ["--data", f"nih:{nih_folder}", "--image-size", "16", "--labels", "Mass", "--validation", "0.3"]
    assert main([*arguments, "--out", str(out)]) == 0
    films = pd.read_parquet(out / "films.parquet")
    assert set(films["split"]) == {"train", "val", "test"}
    assert len(films) == 16
    assert "<html" in (out / "data.html").read_text()
    printed = capsys.readouterr().out
    assert "16 films of 8 patients" in printed
    assert str(out / "data.html") in printed


def test_the_command_runs_without_torch_ray_or_mlflow(nih_folder: Path, tmp_path: Path) -> None:
    """It is the first thing that a new user tries: it starts at once."""
    code = (
        "import sys; from cxr_core.prepare import main; "
        f"given = '--data nih:{nih_folder} --image-size 16 --labels Mass --validation 0.3'; "
        "code = main(given.split()); "
        "sys.exit(code or len({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CXR_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "nihh:x", "--image-size", "16"], 3, "there is no data set kind 'nihh'; known: "),
        (["--data", "nih:nowhere", "--image-size", "16"], 3, "nowhere: no such folder"),
        (["--image-size", "16", "--validation", "0.6", "--test", "0.5"], 2, "shares of the patients"),
        (["--image-size", "16", "--folds", "5", "--fold", "5"], 2, "fold 5 does not exist"),
        (["--image-size", "0"], 2, "image size must lie in"),
        ([], 2, "--image-size"),
    ],
    ids=["kind", "folder", "shares", "fold", "size", "nothing"],
)
def test_a_mistake_ends_with_its_code_and_one_message(arguments, code, message, tmp_path: Path) -> None:
    ended = run(*arguments, cwd=tmp_path, CXR_CACHE=str(tmp_path / "cache"))
    assert ended.returncode == code
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_keeps_what_is_decoded_and_says_so(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CXR_CACHE": str(cache)}
    command = [sys.executable, "-m", "cxr_core.prepare", "--data", "phantom", "--image-size", "32"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    while not (partials := list(cache.glob("*.partial"))) or not (partials[0] / "images.npy").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "are kept" in err
    assert "Traceback" not in err
    assert not (tmp_path / "prepared").exists()
