"""`python -m cxr_core.prepare`: what it prints, what it leaves, how it refuses."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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


def test_a_label_may_be_told_from_healthy_films_alone(real_data: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--data", f"nih:{real_data / 'nih_mini'}", "--image-size", "32", "--labels", "Infiltration"]
    assert main([*arguments, "--against", "no_finding", "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    films = pd.read_parquet(tmp_path / "out" / "films.parquet")
    assert told["films"] == ((films["Infiltration"] == 1) | (films["No Finding"] == 1)).sum() < 1000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "nihh:x", "--image-size", "16"], 3, "there is no data set kind 'nihh'; known: "),
        (["--data", "nih:nowhere", "--image-size", "16"], 3, "nowhere: no such folder"),
        (["--image-size", "16", "--validation", "0.6", "--test", "0.5"], 2, "shares of the patients"),
        (["--image-size", "16", "--folds", "5", "--fold", "5"], 2, "fold 5 does not exist"),
        (["--image-size", "0"], 2, "image size must lie in"),
        (["--image-size", "16", "--seed", "-1"], 2, "--seed must be 0 or more, not -1"),
        (["--image-size", "16", "--labels", "Mass", "Edema", "Mass"], 2, "--labels names 'Mass' twice"),
        ([], 2, "--image-size"),
    ],
    ids=["kind", "folder", "shares", "fold", "size", "seed", "labels", "nothing"],
)
def test_a_mistake_ends_with_its_code_and_one_message(arguments, code, message, tmp_path: Path) -> None:
    ended = run(*arguments, cwd=tmp_path, CXR_CACHE=str(tmp_path / "cache"))
    assert ended.returncode == code
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def bracketed(tmp_path: Path) -> tuple[str, ...]:
    """Arguments that prepare 12 films, listed under names that a terminal library takes for markup."""
    folder = tmp_path / "films [ap]"
    folder.mkdir()
    rows = ["image,patient,[/b]Mass,:x:"]
    for film in range(12):
        pixels = np.random.default_rng(film).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{film}.png")
        rows.append(f"{film}.png,p{film},{film // 2 % 2},{film // 2 % 2}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return ("--data", f"csv:{folder / 'films.csv'}", "--image-size", "16", "--validation", "0.4", "--test", "0.2")


def test_names_are_printed_as_they_are(bracketed: tuple[str, ...], tmp_path: Path) -> None:
    ended = run(*bracketed, cwd=tmp_path, CXR_CACHE=str(tmp_path / "cache"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"csv:{tmp_path}/films [ap]/films.csv: 12 films of 12 patients")
    assert "\n [/b]Mass " in ended.stdout
    assert "\n :x: " in ended.stdout


def test_a_folder_that_cannot_be_made_is_named_with_the_option(bracketed: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(*bracketed, "--out", "file", cwd=tmp_path, CXR_CACHE=str(tmp_path / "cache"))
    assert ended.returncode == 3
    assert ended.stderr.startswith("file: ")
    assert "--out" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(
    ("reader", "code", "told"), [("| true", 0, ""), (">&-", 0, ""), ("> /dev/full", 3, "No space left on device")]
)
def test_an_answer_that_nobody_reads_is_no_crash(bracketed, tmp_path: Path, form, reader, code, told) -> None:
    command = shlex.join([sys.executable, "-m", "cxr_core.prepare", *bracketed, *form])
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CXR_CACHE": str(tmp_path / "cache")}
    shell = ["bash", "-o", "pipefail", "-c", f"{command} {reader}"]
    ended = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == code
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


def test_ctrl_c_while_libraries_are_imported_is_no_crash(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONVERBOSE": "1", "CXR_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "cxr_core.prepare", "--data", "phantom", "--image-size", "32"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    while not (line := process.stderr.readline()).startswith("import 'pandas"):  # told as each module is imported
        assert line, "ended before pandas was imported"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; " in err
    assert "Traceback" not in err


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
