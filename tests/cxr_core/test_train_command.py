"""`python -m cxr_core.train`: what it leaves, how it goes on after an end of any kind, and what it refuses."""

import json
import logging
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock
from sklearn.metrics import roc_auc_score

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint
from cxr_core.data import DataName, DataPolicy, Films, prepare
from cxr_core.evaluate import predict
from cxr_core.labels import Task
from cxr_core.train_command import main

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = """name: tiny
task: {kind: binary, labels: [Mass]}
data: {image_size: 16, validation: 0.3}
objective: {metric: auroc_macro}
space:
  model: {small_cnn: {width: 4}}
  augment: {standard: {shift: 0.05}}
  lr: 1e-2
  batch_size: 4
  ema: 0.9
  epochs: 5
"""
FILES = {".lock", "recipe.yaml", "films.parquet", "data.html", "metrics.csv", "metrics.json", "curves.png", "model.pt"}
CLOCK = ("films_per_second", "seconds")

Train = Callable[..., int]


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    """The command sends the core's messages to the console: not beyond the test."""
    core = logging.getLogger("cxr_core")
    handlers, level = list(core.handlers), core.level
    yield
    core.handlers, core.level = handlers, level


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def train(recipe: Path, nih_folder: Path) -> Train:
    """Run the command in this process, on a few films."""

    def run(out: Path, *options: str, config: Path = recipe) -> int:
        return main([str(config), "--data", f"nih:{nih_folder}", "--out", str(out), "--device", "cpu", *options])

    return run


@pytest.fixture
def after_epoch() -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Do something, once, when an epoch is saved and told."""
    listeners: list[logging.Handler] = []
    log = logging.getLogger("cxr_core.epoch_bar")

    def arrange(epoch: int, act: Callable[[], None]) -> None:
        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith(f"epoch {epoch}/"):
                    log.removeHandler(self)
                    act()

        listeners.append(Listener())
        log.addHandler(listeners[-1])

    yield arrange
    for listener in listeners:
        log.removeHandler(listener)


def results(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def judged(out: Path) -> tuple[list[dict], dict]:
    """Everything about the epochs and the network that does not depend on the clock."""
    table = pd.read_csv(out / "metrics.csv", dtype=str, keep_default_na=False)
    return table.drop(columns=list(CLOCK)).to_dict("records"), results(out)["validation"]


# What it leaves


def test_the_folder_holds_all_that_came_of_it(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "out", "--json") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert json.loads(capsys.readouterr().out) == results(tmp_path / "out")


def test_the_results_are_those_of_the_last_epoch(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "out")
    table, told = pd.read_csv(tmp_path / "out" / "metrics.csv"), results(tmp_path / "out")
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5]
    last = table.iloc[-1]
    macro = told["validation"]["macro"]
    undefined = {name for name in macro if math.isnan(last[name])}
    assert {name for name, value in macro.items() if value is None} == undefined
    assert [macro[name] for name in macro.keys() - undefined] == pytest.approx(
        [last[name] for name in macro.keys() - undefined]
    )
    assert told["best"]["auroc_macro"] == table["auroc_macro"].max()
    assert told["seconds"] == pytest.approx(table["seconds"].sum(), abs=1e-3)


def test_the_learning_rate_of_the_table_is_the_schedules(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "out", "--set", "space.schedule={step: {gamma: 0.1, at: 0.5}}")
    rates = pd.read_csv(tmp_path / "out" / "metrics.csv")["learning_rate"].tolist()
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-3])  # half of 5 epochs is within the third


def test_the_recipe_it_writes_trains_the_same_again(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "one", "--set", "space.dropout=0.3")
    train(tmp_path / "two", config=tmp_path / "one" / "recipe.yaml")
    assert judged(tmp_path / "one") == judged(tmp_path / "two")


def test_without_json_the_main_figures_are_printed(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "out", "--test")
    printed, told = capsys.readouterr().out, results(tmp_path / "out")
    for split in ("validation", "test"):
        assert f"auroc_macro {told[split]['macro']['auroc_macro']:.4f} ({told[split]['films']} films)" in printed
    assert str(tmp_path / "out" / "model.pt") in printed


def test_a_phantom_that_nobody_asked_for_is_told(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXR_DATA", raising=False)
    assert main([str(recipe), "--out", str(tmp_path / "out"), "--set", "task.labels=[Gout]"]) == 3  # and no film drawn
    told = capsys.readouterr().err
    assert "no --data given: training on the built-in phantom" in told
    assert "--data phantom: the label 'Gout' is not in this data set" in told


# The test split


def test_the_test_split_is_opened_only_when_asked_for(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "out")
    assert results(tmp_path / "out")["test"] is None


def test_test_figures_are_of_the_saved_network_on_the_test_films(
    train: Train, nih_folder: Path, tmp_path: Path
) -> None:
    train(tmp_path / "out", "--test")
    told, checkpoint = results(tmp_path / "out")["test"], load_checkpoint(tmp_path / "out" / "model.pt")
    task = Task("binary", ("Mass",))
    prepared = prepare(DataName("nih", str(nih_folder)), DataPolicy(image_size=16, validation=0.3), task)
    films = Films.open(prepared.test_cache, prepared.films[prepared.films["split"] == "test"], task.labels)
    scores = predict(checkpoint.build(), Batches(films, torch.device("cpu")), checkpoint.normalise)
    assert told["opened"].startswith("20")
    assert told["films"] == len(films) == 4
    assert told["macro"]["auroc_macro"] == pytest.approx(roc_auc_score(films.targets[:, 0], scores[:, 0]))
    (threshold,) = checkpoint.thresholds["youden"]
    called = scores[films.targets[:, 0] == 1, 0] >= threshold
    assert told["at_thresholds"]["youden"]["macro"]["sensitivity"] == pytest.approx(called.mean())


def test_a_finished_training_may_open_its_test_split_later_but_once(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "out")
    before, network = results(tmp_path / "out"), (tmp_path / "out" / "model.pt").read_bytes()
    assert train(tmp_path / "out", "--test") == 0
    after = results(tmp_path / "out")
    assert {**after, "test": None} == before
    assert after["test"]["films"] == 4
    assert (tmp_path / "out" / "model.pt").read_bytes() == network
    assert train(tmp_path / "out", "--test") == 2
    assert "this training is finished" in capsys.readouterr().err


def test_a_data_set_without_a_test_split_cannot_open_it(
    train: Train, nih_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--test", "--set", "data.split=random", "--set", "data.test=0")
    assert train(tmp_path / "out", *options) == 3
    assert "has no test split; leave out --test" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.pt").exists()


# Ended early, and gone on with


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(
    train: Train, tmp_path: Path, after_epoch: Callable, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    after_epoch(2, lambda: os.kill(os.getpid(), number))
    assert train(tmp_path / "out") == code
    told = capsys.readouterr().err
    assert "To go on: python -m cxr_core.train" in told
    assert str(tmp_path / "out") in told
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert train(tmp_path / "out") == 0
    assert "going on after epoch 2 of 5" in capsys.readouterr().err
    train(tmp_path / "whole")
    assert judged(tmp_path / "out") == judged(tmp_path / "whole")


def test_a_training_that_was_killed_goes_on_to_the_same_numbers(
    train: Train, recipe: Path, nih_folder: Path, tmp_path: Path
) -> None:
    long = ("--set", "space.epochs=40")
    command = [sys.executable, "-m", "cxr_core.train", recipe, "--data", f"nih:{nih_folder}", "--out", tmp_path / "out"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([*command, "--device", "cpu", *long], env=env, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "model.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    saved = load_checkpoint(tmp_path / "out" / "model.pt").progress["epoch"]
    assert saved < 40
    assert train(tmp_path / "out", *long) == 0
    train(tmp_path / "whole", *long)
    assert judged(tmp_path / "out") == judged(tmp_path / "whole")


def test_a_full_disk_keeps_the_epochs_done_and_says_how_to_go_on(
    train: Train, tmp_path: Path, after_epoch: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """The history still fits, the network does not: the epoch between the two is not counted twice."""
    out, (soft, hard) = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((out / "model.pt").stat().st_size // 2, hard))

    after_epoch(2, fill)
    try:
        assert train(out) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = capsys.readouterr().err
    assert "File too large; the epochs done are kept. Free some space, then: python -m cxr_core.train" in told
    assert len(pd.read_csv(out / "metrics.csv")) == 3
    assert load_checkpoint(out / "model.pt").progress["epoch"] == 2
    assert train(out) == 0
    train(tmp_path / "whole")
    assert judged(out) == judged(tmp_path / "whole")


def test_results_that_were_not_written_are_made_up_for_without_training(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "out")
    before, network = judged(tmp_path / "out"), (tmp_path / "out" / "model.pt").read_bytes()
    (tmp_path / "out" / "metrics.json").unlink()
    assert train(tmp_path / "out") == 0
    assert judged(tmp_path / "out") == before
    assert (tmp_path / "out" / "model.pt").read_bytes() == network


def test_a_training_that_diverges_ends_with_its_reason_and_curves(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each step multiplies the weights by 1 - 10 x 1.
    absurd = ("optimizer={adamw: {weight_decay: 1.0}}", "lr=10", "schedule=constant", "ema=0", "epochs=100")
    changes = (f"--set=space.{change}" for change in ("model={small_cnn: {width: 4, norm: none}}", *absurd))
    assert train(tmp_path / "out", *changes) == 4
    assert re.search(r"diverged: .+ epoch \d+\. It would again: lower lr or clip", capsys.readouterr().err)
    assert (tmp_path / "out" / "curves.png").exists()
    assert not (tmp_path / "out" / "metrics.json").exists()


# Refused


def test_a_finished_training_is_not_trained_over(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "out")
    before = (tmp_path / "out" / "metrics.json").read_text()
    assert train(tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "this training is finished" in told
    assert "name another folder with --out, or delete this one" in told
    assert (tmp_path / "out" / "metrics.json").read_text() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--set", "space.lr=0.1"), "space.lr: 0.01 there, 0.1 now"),
        (("--seed", "1"), "seed: 0 there, 1 now"),
        (("--set", "data.uncertain=ones"), "data.uncertain: ignore there, ones now"),
        (("--set", "task.labels=[Effusion]"), "task.labels: ('Mass',) there, ('Effusion',) now"),
    ],
)
def test_another_training_in_the_folder_is_refused_with_what_differs(
    train: Train, tmp_path: Path, after_epoch: Callable, capsys: pytest.CaptureFixture[str], options: tuple, told: str
) -> None:
    after_epoch(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tmp_path / "out")
    network = (tmp_path / "out" / "model.pt").read_bytes()
    assert train(tmp_path / "out", *options) == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / "out" / "model.pt").read_bytes() == network


def test_a_training_on_other_films_is_refused(
    train: Train, nih_folder: Path, tmp_path: Path, after_epoch: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    after_epoch(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tmp_path / "out")
    for table in ("Data_Entry_2017_v2020.csv", "test_list.txt"):
        lines = (nih_folder / table).read_text().splitlines()
        (nih_folder / table).write_text("\n".join(lines[:-1]) + "\n")
    assert train(tmp_path / "out") == 2
    assert "on other films than" in capsys.readouterr().err


def test_a_folder_in_which_another_process_trains_is_refused(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert train(tmp_path / "out") == 2
    assert "another process trains in this folder" in capsys.readouterr().err


def test_a_damaged_network_is_refused_with_the_remedy(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "out")
    content = (tmp_path / "out" / "model.pt").read_bytes()
    (tmp_path / "out" / "model.pt").write_bytes(content[: len(content) // 2])
    assert train(tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "the checkpoint is damaged" in told
    assert "or delete this one" in told


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--set", "space.lr=100"), 2, "space.lr: must lie in [1e-08, 10], not be 100"),
        (("--set", "space.lr={float: [0.1, 1.0]}"), 2, "space: lr left open: a recipe leaves nothing to search"),
        (("--set", "space.centre_crop=64"), 2, "tiny.yaml: infeasible: a central crop of 64 px does not fit"),
        (("--set", "task.labels=[Gout]"), 3, "the label 'Gout' is not in this data set"),
        (("--data", "nih:nowhere"), 3, "nowhere: no such folder"),
        (("--data", "xray:x"), 3, "there is no data set kind 'xray'"),
        (("--device", "cuda:99"), 3, "--device cuda:99: PyTorch does not see this GPU"),
    ],
)
def test_a_mistake_ends_with_its_code_and_one_message(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple, code: int, told: str
) -> None:
    assert train(tmp_path / "out", *options) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--threads", "0"), "--threads must be 1 or more, not 0"),
        (("--seed", "-1"), "--seed must be 0 or more, not -1"),
        (("--device", "tpu"), "'tpu' is none of cpu, cuda"),
        (("--out", __file__), "is no folder"),
        (("--epochs", "3"), "unrecognized arguments"),
    ],
)
def test_a_bad_option_is_refused(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple, told: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        train(tmp_path / "out", *options)
    assert refused.value.code == 2
    assert told in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_refused_with_the_nearest_name(
    train: Train, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "out", config=recipe.with_name("tinny.yaml")) == 2
    assert "tinny.yaml: no such file; did you mean" in capsys.readouterr().err
