"""Searches on several nodes: real Ray nodes, started and killed, with the search's own command on the head."""

import sys
import time

import pytest

from search.trial import Outcome
from tests.end_to_end.conftest import REPOSITORY, finish
from tests.end_to_end.ray_nodes import RayNodes

CPUS = ["--gpus-per-trial", "0"]
LONG = ["--set", "space.epochs=12", "--set", "space.model={small_cnn: {width: 8}}"]


@pytest.fixture
def cluster(tmp_path):
    nodes = RayNodes(tmp_path, REPOSITORY)
    yield nodes
    nodes.close()


def start(search, cluster, *options):
    """`python -m search.run --address ...`, on the head, as a user does."""
    search.env |= cluster.token
    words = ["-m", "search.run", "--space", "quick.yaml", "--data", f"medmnist:{search.films}"]
    return search.python([*cluster.within, sys.executable, *words, "--address", cluster.address, *CPUS, *options])


def wait_until(happened, process, what, seconds=240):
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def assert_every_trial_is_accounted_for(study, trials):
    assert len(study.trials()) == trials
    for trial in study.trials():
        assert trial.outcome in (Outcome.FULL, Outcome.PRUNED)
        assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))


def caches(node):
    return [path for path in node.cache.glob("medmnist-*") if path.is_dir()]


def test_a_killed_nodes_legs_go_on_elsewhere_and_a_node_that_joins_is_used(search, cluster, result):
    cluster.start_head()
    first, second = cluster.add("first"), cluster.add("second")
    process = start(search, cluster, "--concurrent", "2", "--trials", "6", "--json", *LONG)
    wait_until(lambda: first.workers() and second.workers(), process, "both nodes are used")
    search.wait_for_epochs(2, process)
    first.kill()
    third = cluster.add("third")
    wait_until(third.workers, process, "the node that joined is used")
    code, out, err = finish(process)
    assert code == 0, err
    assert_every_trial_is_accounted_for(search.study, 6)
    assert sum(trial.attempts for trial in search.study.trials()) == 1
    assert "its leg is handed out again" in err
    assert result(out)["trials"]["full"] >= 1
    # Each node has read the films that trials may see into a cache of its own; the driver's cache is its own, too.
    assert [len(caches(node)) for node in (first, second, third)] == [1, 1, 1]


def test_the_finals_of_a_search_are_trained_on_the_cluster(search, cluster, result):
    """The head has no core for trials, so that whatever is trained is trained on the other node."""
    cluster.start_head()
    only = cluster.add("only")
    short = ["--set", "asha.mode=none", "--set", "space.epochs=3", "--set", "budget.reserve=0.6"]
    process = start(search, cluster, "--concurrent", "1", "--trials", "2", "--json", *short)
    search.wait_for_epochs(2 * 3 + 1, process, seconds=300)  # the first one of the finals
    assert only.workers()
    code, out, err = finish(process, 600)
    assert code == 0, err
    finals = result(out)["finals"]
    assert [len(row["trainings"]) for row in finals["finalists"]] == [2, 2]
    assert finals["films"]["test"]["films"] == 600
    assert all(trial.outcome is Outcome.FULL for trial in search.study.trials())
    assert (search.study.folder / "model" / "model.onnx").exists()


def test_a_cluster_without_room_for_a_trial_is_told_of_while_the_search_waits(search, cluster):
    """Trials on a cluster ask for a GPU, unless they are told otherwise."""
    cluster.start_head()
    process = start(search, cluster, "--concurrent", "1", "--gpus-per-trial", "1")
    line = next(line for line in process.stderr if "waits" in line)
    assert "no node has 1 CPU and 1 GPU for a trial; the search waits until one joins" in line
    process.kill()


def test_an_address_where_no_ray_answers_ends_the_search_at_once(search):
    process = search.start("--address", "127.0.0.1:9", "--concurrent", "1")
    code, _, err = finish(process)
    assert code == 3, err
    assert "--address 127.0.0.1:9: no Ray cluster answers" in err
