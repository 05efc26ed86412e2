"""cluster.yaml is read as `ray up` reads it, and checked for what a search needs of a cluster. AWS is never asked."""

import copy
import os
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import yaml

pytest.importorskip("ray", reason="cluster.yaml is for Ray's launcher")

from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config  # what `ray up` calls; there is no public name

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = PurePosixPath("/shared")


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load((CHECKOUT / "cluster.yaml").read_text())


def check(cluster: dict) -> dict:
    """The configuration with Ray's defaults for the provider; raises as `ray up` does."""
    complete = prepare_config(copy.deepcopy(cluster))
    validate_config(complete)
    return complete


def head_and_worker(cluster: dict) -> tuple[str, str]:
    head = cluster["head_node_type"]
    (worker,) = set(cluster["available_node_types"]) - {head}
    return head, worker


def first_commands(cluster: dict, node_type: str) -> list[str]:
    """What a node runs before its setup: its type's own list, where there is one, in place of the common one."""
    return cluster["available_node_types"][node_type].get("initialization_commands", cluster["initialization_commands"])


def mount_points(cluster: dict, node_type: str) -> set[PurePosixPath]:
    mounts = [command for command in first_commands(cluster, node_type) if "mount -t nfs4" in command]
    return {PurePosixPath(shlex.split(command)[-1]) for command in mounts}


def arguments(commands: list[str], program: str, verb: str) -> list[str]:
    """What follows `program verb` in the one command that has it, as that program's own parser gets it."""
    lines = [shlex.split(command) for command in commands]
    (found,) = [
        words[n + 2 :]
        for words in lines
        for n in range(len(words) - 1)
        if PurePosixPath(words[n]).name == program and words[n + 1] == verb
    ]
    return found


def is_sent(cluster: dict, file: str) -> bool:
    """Whether `ray up` copies this file of the checkout to the nodes (rsync's rule for patterns without a slash)."""
    path = PurePosixPath(file)
    mounted = [PurePosixPath(source) for source in cluster["file_mounts"].values()]
    excluded = any(fnmatch(part, pattern) for part in path.parts for pattern in cluster.get("rsync_exclude", []))
    return not excluded and any(path.is_relative_to(source) for source in mounted)


def exported(cluster: dict, home: Path) -> dict[str, str]:
    """The environment of a login shell on a node, from running the first two commands in an empty home."""
    head, _ = head_and_worker(cluster)
    write, load = first_commands(cluster, head)[:2]
    (home / ".bashrc").touch()
    script = f"{write}\n{load}\n{load}\n. ~/.bashrc\nenv -0"
    bare = {"HOME": str(home), "PATH": os.environ["PATH"]}
    shell = subprocess.run(["bash", "-ec", script], env=bare, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)


def test_ray_accepts_the_cluster_file(cluster):
    assert check(cluster)["cluster_name"] == "cxr-search"


def misspelt_key(cluster):
    cluster["idle_timeout_minuts"] = cluster.pop("idle_timeout_minutes")


def unknown_head(cluster):
    cluster["head_node_type"] = "haed"


def gpus_in_words(cluster):
    cluster["available_node_types"]["gpu_worker"]["resources"] = {"GPU": "one"}


def command_that_is_no_list(cluster):
    cluster["initialization_commands"] = "pip install ray"


def more_wanted_than_allowed(cluster):
    cluster["available_node_types"]["gpu_worker"]["min_workers"] = cluster["max_workers"] + 1


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (misspelt_key, ValidationError, "idle_timeout_minuts"),
        (unknown_head, ValueError, "head_node_type"),
        (gpus_in_words, ValidationError, "'one' is not of type 'integer'"),
        (command_that_is_no_list, ValidationError, "'pip install ray' is not of type 'array'"),
        (more_wanted_than_allowed, ValueError, "smaller than the sum of `min_workers`"),
    ],
)
def test_ray_refuses_a_broken_copy_of_the_cluster_file(cluster, break_it, error, message):
    break_it(cluster)
    with pytest.raises(error, match=message):
        check(cluster)


def test_every_command_is_bash(cluster):
    for group in [key for key in cluster if key.endswith("_commands")]:
        for command in cluster[group]:
            wrapped = f"export RAY_HEAD_IP=10.0.0.1; ({command})"  # as Ray runs it on a worker
            parsed = subprocess.run(["bash", "-n", "-c", wrapped], check=False, capture_output=True, text=True)
            assert parsed.returncode == 0, f"{group}: {command}\n{parsed.stderr}"


def test_the_head_serves_mlflow_from_the_shared_file_system_and_to_itself_only(cluster):
    cli = pytest.importorskip("mlflow.cli")
    server = arguments(cluster["head_start_ray_commands"], "mlflow", "server")
    options = cli.server.make_context("server", server).params
    assert options["backend_store_uri"].startswith(f"sqlite:///{SHARED}/")
    assert PurePosixPath(options["artifacts_destination"]).is_relative_to(SHARED)
    assert options["serve_artifacts"] is True
    assert (options["host"], options["port"]) == ("127.0.0.1", 5000)


def test_mlflow_outlives_the_session_that_started_it_and_is_restarted_after_a_crash(cluster):
    service = arguments(cluster["head_start_ray_commands"], "sudo", "systemd-run")
    assert "$VIRTUAL_ENV/bin/mlflow" in service
    assert "--property=Restart=always" in service


def test_ray_start_is_called_with_options_that_this_ray_has(cluster):
    from ray.scripts.scripts import start

    head = start.make_context("start", arguments(cluster["head_start_ray_commands"], "ray", "start")).params
    worker = start.make_context("start", arguments(cluster["worker_start_ray_commands"], "ray", "start")).params
    assert head["head"]
    assert head["dashboard_host"] == "127.0.0.1"
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"


def test_gpu_workers_come_with_waiting_trials_and_go_when_idle(cluster):
    complete = check(cluster)
    head, worker = (complete["available_node_types"][name] for name in head_and_worker(complete))
    assert worker["resources"]["GPU"] >= 1
    assert worker["min_workers"] == 0 < worker["max_workers"] <= complete["max_workers"]
    assert 0 < complete["idle_timeout_minutes"] <= 30
    assert head["resources"] == {"CPU": 0}, "a trial on the head would share its CPUs with the driver and MLflow"


def test_head_and_workers_mount_the_same_shared_folder(cluster):
    head, worker = head_and_worker(cluster)
    assert mount_points(cluster, head) == mount_points(cluster, worker) == {SHARED}
    cluster["available_node_types"][worker]["initialization_commands"] = ["true"]
    assert mount_points(cluster, worker) == set(), "this test would not see a worker without the mount"


def test_the_file_system_is_in_the_region_of_the_cluster(cluster, tmp_path):
    address = exported(cluster, tmp_path)["CXR_FILE_SYSTEM"]
    assert address.split(".")[1:3] == ["efs", cluster["provider"]["region"]]
    assert all(zone.startswith(cluster["provider"]["region"]) for zone in cluster["metadata"]["zones"].split(","))


def test_studies_lie_on_the_shared_file_system_under_one_path_on_every_node(cluster):
    for node_type in head_and_worker(cluster):
        (link,) = [shlex.split(command) for command in first_commands(cluster, node_type) if command.startswith("ln ")]
        assert link[-2:] == [str(SHARED / "studies"), "~/cxr-search/studies"]
        position = {command.split()[0]: n for n, command in enumerate(first_commands(cluster, node_type))}
        assert position["mountpoint"] < position["ln"], "a link made before the mount would name a local folder"


def test_the_film_cache_lies_on_each_nodes_own_disk(cluster, tmp_path):
    cache = PurePosixPath(exported(cluster, tmp_path)["CXR_CACHE"])
    assert cache.is_absolute()
    assert not cache.is_relative_to(SHARED)


def test_commands_on_a_node_find_the_projects_own_python(cluster, tmp_path):
    environment = exported(cluster, tmp_path)
    assert environment["VIRTUAL_ENV"] == f"{tmp_path}/cxr-venv"
    assert environment["PATH"].startswith(f"{tmp_path}/cxr-venv/bin:")
    (install,) = [command for command in cluster["setup_commands"] if "pip install" in command and "-e" in command]
    assert "-c ~/cxr-search/constraints.txt -e ~/cxr-search" in install


PRIVATE = ["studies/first/journal.log", "data/images/1.png", ".git/config", ".venv/bin/python", "mlruns/0/meta.yaml"]


@pytest.mark.parametrize("file", [*PRIVATE, "search/__pycache__/run.pyc"])
def test_films_studies_and_caches_are_not_copied_to_the_nodes(cluster, file):
    assert not is_sent(cluster, file)
    cluster["file_mounts"], cluster["rsync_exclude"] = {"~/cxr-search": "."}, []
    assert is_sent(cluster, file), "this test would not see a file that is sent"


CODE = [
    "search/run.py",
    "cxr_core/train.py",
    "cxr_core/data/cache/build.py",
    "spaces/multilabel.yaml",
    "constraints.txt",
]


@pytest.mark.parametrize("file", CODE)
def test_code_and_spaces_are_copied_to_the_nodes(cluster, file):
    assert is_sent(cluster, file)


def test_everything_that_is_copied_to_the_nodes_is_in_the_checkout(cluster):
    assert [source for source in cluster["file_mounts"].values() if not (CHECKOUT / source).exists()] == []


# Own machines: cluster.local.yaml


@pytest.fixture
def own_machines() -> dict:
    return yaml.safe_load((CHECKOUT / "cluster.local.yaml").read_text())


def test_ray_accepts_the_file_for_own_machines(own_machines):
    assert check(own_machines)["provider"]["type"] == "local"


@pytest.mark.parametrize("file", CODE)
def test_code_and_spaces_are_copied_to_own_machines(own_machines, file):
    assert is_sent(own_machines, file)


def test_every_own_machine_is_sent_the_token_that_ray_demands(own_machines):
    assert own_machines["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_MODE=token" in own_machines["metadata"]["environment"]


def test_on_own_machines_every_command_is_bash(own_machines):
    groups = [own_machines[key] for key in own_machines if key.endswith("_commands")]
    for command in [command for group in groups for command in group]:
        parsed = subprocess.run(["bash", "-n", "-c", f"({command})"], check=False, capture_output=True, text=True)
        assert parsed.returncode == 0, f"{command}\n{parsed.stderr}"


def test_on_own_machines_nothing_without_a_password_listens_to_the_network(own_machines):
    starts = own_machines["head_start_ray_commands"]
    assert arguments(starts, "mlflow", "server")[:2] == ["--host", "127.0.0.1"]
    assert "--dashboard-host=127.0.0.1" in arguments(starts, "ray", "start")
