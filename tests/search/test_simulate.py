"""The command `python -m search.simulate`, and the policies that it takes by name."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from search.curve_table import Neighbours, read_table
from search.exit_codes import DONE, KILLED, USAGE
from search.policies import RANDOM, PolicyError, default_policy, read_policy
from search.simulate import main
from search.simulation import simulate
from search.space import AshaSection, SearcherSection
from search.trial import Outcome
from tests.search.conftest import SPACE, drawn, epoch_record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def few(real_data, tmp_path, monkeypatch):
    """Thirty of the real trainings, as a table in an empty folder, where commands are given."""
    lines = (real_data / "curves" / "alexnet_imagenet.jsonl").read_text().splitlines()
    short = [line for line in lines if json.loads(line)["epochs"] <= 30][:30]
    (tmp_path / "few.jsonl").write_text("\n".join(short) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "few.jsonl"


def test_a_policy_is_a_searcher_a_mode_and_settings():
    policy = read_policy("random+stop:eta=3,rungs=0.1/0.3,startup=5")
    assert policy.searcher == SearcherSection(name="random", startup=5)
    assert policy.asha == AshaSection(mode="stop", eta=3, rungs=(0.1, 0.3))
    assert policy.name == "random+stop:eta=3,rungs=0.1/0.3,startup=5"


def test_what_a_policy_does_not_say_is_as_in_a_space_file():
    assert read_policy("tpe+promote").asha == AshaSection(mode="promote")
    assert read_policy(default_policy().name) == default_policy()


def test_a_space_file_is_a_policy(tmp_path):
    (tmp_path / "mine.yaml").write_text(SPACE)
    policy = read_policy(str(tmp_path / "mine.yaml"))
    assert policy.asha == AshaSection(rungs=(0.1, 0.5), eta=3)


@pytest.mark.parametrize("setting", ["fidelity: image_size", "confidence: 0.9"])
def test_a_space_file_that_a_table_cannot_replay_is_refused(tmp_path, setting):
    (tmp_path / "mine.yaml").write_text(SPACE.replace("eta: 3", f"eta: 3, {setting}"))
    with pytest.raises(PolicyError, match=rf"mine\.yaml: asha\.{setting.partition(':')[0]}: .*replayed"):
        read_policy(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpee+promote", "there is no searcher 'tpee'; did you mean 'tpe'?"),
        ("tpe+promte", "there is no mode 'promte'; did you mean 'promote'?"),
        ("tpe", "write tpe+MODE, where MODE says who is pruned: promote, stop, hyperband, none"),
        ("tpe+stop:etta=3", "'etta=3' is no KEY=VALUE; did you mean 'eta'?"),
        ("tpe+stop:eta=x", "eta must be a whole number, not 'x'"),
        ("tpe+stop:eta=1", "eta: Input should be greater than or equal to 2"),
        ("tpe+stop:rungs=0.3/0.1", "rungs are rising fractions"),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
    ],
)
def test_a_policy_that_is_none_is_told_with_a_remedy(text, said):
    with pytest.raises(PolicyError) as wrong:
        read_policy(text)
    assert said in str(wrong.value)


def test_the_json_holds_every_policy_beside_both_references(few, capsys):
    assert main(["few.jsonl", "--policy", "random+stop", "--seeds", "6", "--processes", "2", "--json"]) == DONE
    told = json.loads(capsys.readouterr().out)
    assert list(told["policies"]) == ["random", "random, twice the workers", "random+stop"]
    assert told["policies"]["random"]["top1_speedup"] == 1.0
    for row in told["policies"].values():
        assert {"top1_speedup", "top2_speedup", "top1_missed", "top2_missed", "regret"} <= set(row)
        assert list(row["regret"]) == ["5", "10", "25"]
    with Image.open("simulation-few.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10  # lines and bands, not an empty sheet


def test_the_processes_find_what_one_search_finds(few, capsys):
    assert main(["few.jsonl", "--policy", "random+none", "--seeds", "3", "--processes", "2", "--json"]) == DONE
    rows = json.loads(capsys.readouterr().out)["policies"]
    assert list(rows) == ["random", "random, twice the workers"]  # random+none is the reference, and runs once
    table = read_table(few)
    target, until = table.best(0.01), 25 * table.mean_seconds
    found = [
        simulate(table, Neighbours(table), RANDOM, seed=seed, workers=4, until=until, target=target)
        for seed in range(3)
    ]
    by_five = [
        max(v for at, v in zip(one.seconds, one.values, strict=True) if at <= 5 * table.mean_seconds) for one in found
    ]
    assert rows["random"]["regret"]["5"] == pytest.approx(table.best(0) - sorted(by_five)[1])


def test_a_person_gets_a_table_a_sentence_and_the_place_of_the_picture(few, capsys, caplog):
    caplog.set_level("INFO")
    assert main(["few.jsonl", "--policy", "random+promote", "--seeds", "4", "--plot", "curves.html"]) == DONE
    said = capsys.readouterr().out
    assert "few: 4 searches a policy, 4 workers" in said
    assert "random, twice the workers" in said
    assert said.strip().endswith(".")
    assert str(few.parent / "curves.html") in caplog.text
    assert "30 trainings are few" in caplog.text
    assert "the best is found" in Path("curves.html").read_text()


def test_a_study_can_be_replayed_by_its_name(make_space, make_study, monkeypatch, capsys, caplog):
    caplog.set_level("INFO")
    space = make_space()
    study = make_study(space)
    for number in range(12):
        trial = drawn(study, space, seed=number)
        pruned = number % 4 == 3
        for epoch in range(1, 2 if pruned else 11):
            study.record(trial.number, epoch_record(epoch, 0.5 + 0.03 * number + 0.001 * epoch))
        study.finish(trial.number, Outcome.PRUNED if pruned else Outcome.FULL)
    (study.folder.parent / "studies").mkdir()
    study.folder.rename(study.folder.parent / "studies" / "mine")
    monkeypatch.chdir(study.folder.parent)
    assert main(["mine", "--seeds", "2", "--json"]) == DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["trainings"], told["cut_short"], told["metric"]) == (9, 3, "auroc_macro")
    assert "3 trials of the study were pruned" in caplog.text
    assert "--set asha.mode=none --set searcher.name=random" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such table, nor a study of that name in studies/"),
        (["few.jsonl", "--policy", "tpe+prmote"], "did you mean 'promote'?"),
        (["few.jsonl", "--metric", "top_2"], "few.jsonl:1: epoch 0 has no 'top_2'"),
        (["broken.jsonl"], "broken.jsonl:2: learning_curve: must be there"),
    ],
)
def test_a_mistake_ends_the_command_with_one_message(few, capsys, arguments, said):
    first = few.read_text().splitlines()[0]
    Path("broken.jsonl").write_text(f'{first}\n{{"epochs": 3}}\n')
    assert main(arguments) == USAGE
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
    assert not list(Path.cwd().glob("simulation-*"))


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--plot", "a.gif"], ["--plot", "none/a.png"]])
def test_a_mistyped_option_ends_the_command(few, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(["few.jsonl", *arguments])
    assert ended.value.code == USAGE
    assert arguments[0] in capsys.readouterr().err


def test_ctrl_c_ends_every_process_and_writes_nothing(real_data, tmp_path):
    table = str(real_data / "curves" / "alexnet_imagenet.jsonl")
    command = [sys.executable, "-m", "search.simulate", table, "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    family = []
    for _ in range(600):  # until both processes search
        family = psutil.Process(program.pid).children(recursive=True)
        if sum(child.cpu_times().user > 0.5 for child in family) >= 2:
            break
        time.sleep(0.2)
    assert len(family) >= 3
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert program.returncode == KILLED
    assert said.strip().endswith("interrupted: nothing was written")
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not list(tmp_path.iterdir())
