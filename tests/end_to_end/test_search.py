"""The whole path from the command to the winner, and what becomes of a search that is disturbed."""

import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from itertools import pairwise

import pandas as pd
import psutil
import pytest
import torch
from mlflow import MlflowClient
from sklearn.metrics import roc_auc_score

from cxr_core.batches import Batches
from cxr_core.checkpoint import load_checkpoint
from cxr_core.data import TrainingData, open_cache
from cxr_core.evaluate import predict
from search.trial import Outcome
from tests.end_to_end.conftest import REPOSITORY, finish
from tests.end_to_end.mlflow_server import MlflowServer


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_films):
    """One undisturbed search that several tests look at."""
    from tests.end_to_end.conftest import Search

    search = Search(tmp_path_factory.mktemp("finished"), few_films)
    return search, search.run("--json")


def test_a_search_ends_with_a_winner_a_report_and_an_mlflow_experiment(finished, result):
    search, (code, out, err) = finished
    assert code == 0, err
    told = result(out)
    assert set(told) == {"study", "winner", "trials", "seconds", "report", "mlflow", "finals"}
    assert told["finals"] is None  # its reserve is 0
    assert told["trials"]["full"] >= 1
    assert told["trials"]["full"] + told["trials"]["pruned"] == 8
    assert told["winner"]["value"] > 0.8
    assert told["winner"]["params"]["model"] in ("small_cnn", "inception_resnet")
    assert "winner" in (search.folder / told["report"]).read_text().lower()
    assert MlflowClient(told["mlflow"]).get_experiment_by_name("quick")


def test_the_winners_checkpoint_gives_the_winners_value(finished):
    """The reported number comes from the weights that are handed over, by scikit-learn's count."""
    search, _ = finished
    study = search.study
    winner = study.winner()
    checkpoint = load_checkpoint(study.folder / winner.epochs[-1].checkpoint)
    data = TrainingData.open(development_cache(search), pd.read_parquet(study.folder / "films.parquet"), ("Pneumonia",))
    scores = predict(checkpoint.build(), Batches(data.val, torch.device("cpu")), checkpoint.normalise)
    assert roc_auc_score(data.val.targets[:, 0], scores[:, 0]) == pytest.approx(winner.value, abs=1e-6)


def development_cache(search):
    """The only cache that trials are given, as the study's own films say."""
    wanted = set(pd.read_parquet(search.study.folder / "films.parquet")["image"])
    caches = (search.folder / "cache").glob("medmnist-28px-*")
    (cache,) = (path for path in caches if path.is_dir() and wanted <= set(open_cache(path)[1]["image"]))
    return cache


def test_no_trial_can_read_the_test_split(finished):
    search, _ = finished
    images = open_cache(development_cache(search))[1]["image"]
    films = pd.read_parquet(search.study.folder / "films.parquet")
    assert not images.str.startswith("test/").any()
    assert not films["image"].str.startswith("test/").any()
    assert set(films["split"]) == {"train", "val"}


def test_two_legs_run_at_the_same_time(finished):
    search, _ = finished
    spans = sorted((e.at - e.seconds, e.at, t.number) for t in search.study.trials() for e in t.epochs)
    overlapping = [(a, b) for a, b in pairwise(spans) if b[0] < a[1] - 0.02 and a[2] != b[2]]
    assert len(overlapping) >= len(spans) / 4


def test_mlflow_has_a_run_for_each_trial_with_every_epoch_once(finished, result):
    search, (_, out, _) = finished
    assert_mlflow_agrees(search, result(out)["mlflow"])


def test_the_shipped_multilabel_space_searches_real_nih_films(search, real_data, result):
    space = str(REPOSITORY / "spaces" / "multilabel.yaml")
    small = ["data.image_size=32", "space.epochs=2", "space.model.choice={small_cnn: {}, resnet18: {}}", "baselines=[]"]
    command = [sys.executable, "-m", "search.run", "--space", space, "--data", f"nih:{real_data / 'nih_mini'}"]
    command += ["--study", "quick", "--trials", "3", "--json", *(word for key in small for word in ("--set", key))]
    code, out, err = finish(search.python(command))
    assert code == 0, err
    assert result(out)["trials"]["full"] >= 1
    assert {"train", "val", "test"} == set(search.study.facts["films"])
    assert sum(search.study.facts["films"].values()) == 1000
    assert search.study.facts["films"]["test"] == 153
    winner = search.study.winner()
    areas = winner.epochs[-1].auroc
    defined = [area for area in areas.values() if area is not None]
    assert len(areas) == 14
    assert winner.value == pytest.approx(sum(defined) / len(defined))


def assert_mlflow_agrees(search, uri):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("quick").experiment_id
    runs = client.search_runs([experiment])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {int(run.data.tags["cxr.trial"]): run for run in runs if run not in parents}
    trials = {trial.number: trial for trial in search.study.trials() if trial.flat}
    assert len(parents) == 1
    assert len(runs) == 1 + len(children)
    assert set(children) == set(trials)
    for number, trial in trials.items():
        history = client.get_metric_history(children[number].info.run_id, "val_auroc_macro")
        assert [(point.step, point.value) for point in history] == [(e.epoch, e.value) for e in trial.epochs]
        assert children[number].data.tags["cxr.state"] == trial.outcome.value


def assert_nothing_lost_or_repeated(study, trials=8):
    """Every trial has ended, and its epochs follow each other without a gap or a double."""
    assert len([trial for trial in study.trials() if trial.flat]) == trials
    for trial in study.trials():
        assert trial.outcome is not Outcome.OPEN
        assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
    assert any(trial.outcome is Outcome.FULL for trial in study.trials())


def epochs_trained(study):
    """Epochs that the journal was told of, by trial and epoch, repeats included."""
    told = re.findall(r'"trial_id":(\d+),"user_attr":\{"epoch:(\d+)"', (study.folder / "journal.log").read_text())
    return Counter((int(trial), int(epoch)) for trial, epoch in told)


def test_a_search_killed_at_random_moments_loses_nothing(search, result):
    """kill -9 of the driver, three times at seeded moments; then everything is as if it had run once."""
    moments = random.Random(2)
    process = search.start()
    for epochs in (1, 6, 12):
        search.wait_for_epochs(epochs, process)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = search.resume("--json")
    code, out, err = finish(process)
    assert code == 0, err
    assert_nothing_lost_or_repeated(search.study)
    repeated = sum(times - 1 for times in epochs_trained(search.study).values())
    assert repeated <= 2 * 3  # at most the epochs in flight, one a slot and kill
    assert_mlflow_agrees(search, result(out)["mlflow"])


def test_nothing_is_left_running_after_a_kill(search):
    process = search.start()
    search.wait_for_epochs(1, process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=120)  # Ray's agents look for their parent now and then
    assert not alive


def test_ctrl_c_drains_and_says_how_to_resume(search):
    process = search.start()
    search.wait_for_epochs(2, process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process, 90)
    assert code == 5
    assert "python -m search.run --study quick --resume" in err
    before = {trial.number: len(trial.epochs) for trial in search.study.trials()}
    code, _, err = finish(search.resume())
    assert code == 0, err
    assert_nothing_lost_or_repeated(search.study)
    assert max(epochs_trained(search.study).values()) == 1  # a drained search repeats nothing
    assert all(len(search.study.trial(number).epochs) >= count for number, count in before.items())


def test_sigterm_drains_like_ctrl_c(search):
    process = search.start()
    search.wait_for_epochs(1, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process, 90)
    assert code == 5
    assert "stopped by SIGTERM" in err


def test_a_second_ctrl_c_kills_at_once(search):
    process = search.start("--set", "space.epochs=8", "--set", "space.model={inception_resnet: {width: 64, depth: 3}}")
    time.sleep(1)
    while not (search.folder / "studies" / "quick" / "trials").exists() or not search.study.trials():
        time.sleep(0.1)
        assert process.poll() is None, process.stderr.read()
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process, 20)
    assert code == 130


def test_a_search_that_is_done_can_be_given_a_larger_budget_and_moved_films(search, result, tmp_path):
    assert search.run("--trials", "3")[0] == 0
    moved = f"medmnist:{shutil.copy(search.films, tmp_path / 'moved.npz')}"
    search.env["CXR_DATA"] = "medmnist:other.npz"  # of no concern to a study that has its films
    code, out, err = finish(search.resume("--trials", "6", "--data", moved, "--json"))
    assert code == 0, err
    assert search.study.facts["data"] == moved
    assert finish(search.resume("--trials", "6"))[0] == 0
    assert "budget.trials: was 3, is 6" in err
    assert sum(result(out)["trials"].values()) == 6


def test_a_study_that_exists_is_not_overwritten(search):
    assert search.run("--trials", "2")[0] == 0
    code, _, err = search.run("--trials", "2")
    assert code == 2
    assert "--resume" in err
    assert "--fresh" in err
    assert search.run("--trials", "2", "--fresh")[0] == 0
    assert len(list((search.folder / "studies").glob("quick*"))) == 2  # the old one is kept


def test_every_trial_failing_in_the_same_way_stops_the_search_and_shows_why(search):
    """A folder that takes no checkpoint, as an example."""
    sabotage = search.folder / "sitecustomize.py"
    sabotage.write_text(
        "import torch\ndef full(*args, **options): raise PermissionError(13, 'Permission denied')\ntorch.save = full\n"
    )
    search.env["PYTHONPATH"] += f":{search.folder}"
    code, _, err = search.run()
    assert code == 4
    assert "the first trials all failed in the same way: PermissionError" in err
    assert "Permission denied" in err
    assert len(search.study.trials()) <= 5


def test_trials_whose_loss_is_not_finite_end_as_diverged_and_are_no_winner(search, result):
    code, out, _ = search.run("--set", "space.lr={choice: [0.001, 10.0]}", "--set", "space.clip=1000.0", "--json")
    diverged = [trial for trial in search.study.trials() if trial.outcome is Outcome.DIVERGED]
    if code == 0:
        assert search.study.winner().flat["lr"] == 0.001 or not diverged
    for trial in diverged:
        assert "nan" in trial.reason or "inf" in trial.reason or "finite" in trial.reason
    assert result(out)["trials"]["failed"] == len(diverged)


def test_a_killed_worker_costs_one_leg_only(search):
    process = search.start()
    search.wait_for_epochs(2, process)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "Trainable" in " ".join(p.cmdline())]
    workers[0].kill()
    code, _, err = finish(process)
    assert code == 0, err
    assert_nothing_lost_or_repeated(search.study)
    assert sum(trial.attempts for trial in search.study.trials()) == 1


@pytest.fixture
def server(tmp_path):
    server = MlflowServer(tmp_path)
    yield server
    server.kill()


def test_a_dead_mlflow_server_neither_stops_nor_slows_the_search_and_is_caught_up_later(search, server):
    process = search.start("--mlflow", server.uri)
    search.wait_for_epochs(3, process)
    server.kill()
    code, _, err = finish(process)
    assert code == 0, err
    assert "python -m search.mlflow_sync" in err
    assert_nothing_lost_or_repeated(search.study)
    server.start()
    code, out, err = finish(search.python([sys.executable, "-m", "search.mlflow_sync", "quick"]))
    assert code == 0, err
    assert_mlflow_agrees(search, server.uri)
    code, out, _ = finish(search.python([sys.executable, "-m", "search.mlflow_sync", "quick"]))
    assert out.startswith("quick: 0 epochs added")
