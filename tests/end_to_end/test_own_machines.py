"""`cluster.local.yaml` for real: a cluster over ssh on this machine's loopback, from `ray up` to `ray down`.

It runs in namespaces of its own (processes, network, home), so that it neither meets nor ends any other Ray.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import REPOSITORY

pytestmark = pytest.mark.slow

# Within: a home of its own (with the environments of the real one), sshd on the loopback, and the README's commands.
SCRIPT = """
set -euo pipefail
ip link set lo up
mkdir -p {home}/.cache {home}/.pyenv {home}/.ssh /run/sshd
for kept in .cache .pyenv; do [ ! -d ~/$kept ] || mount --bind ~/$kept {home}/$kept; done
mount --rbind {home} ~
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
chmod 700 ~ ~/.ssh
touch ~/.bashrc
ln -s {environment} ~/cxr-venv
/usr/sbin/sshd -o ListenAddress=127.0.0.1 -o UsePAM=no -o StrictModes=no -o PermitRootLogin=yes
cd {checkout}
export PATH={environment}/bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate > /dev/null
mark() {{ echo "== $1"; }}
mark up; ray up -y --no-config-cache {cluster}
mark exec; ray exec {cluster} 'source ~/.cxr_env; ray status'
mark tunnel
ssh -o StrictHostKeyChecking=no -N -L 15000:127.0.0.1:5000 -L 18265:127.0.0.1:8265 $(id -un)@127.0.0.1 &
for _ in $(seq 120); do curl -sf http://localhost:15000/health && break || sleep 1; done
export RAY_API_SERVER_ADDRESS=http://localhost:18265
mark job
ray job submit --submission-id first -- bash -c 'cd ~/cxr-search && exec python -m search.run --space {space} \
  --data medmnist:{films} --study first --trials 2 --address auto --concurrent 1 --gpus-per-trial 0 \
  --mlflow http://127.0.0.1:5000 --json'
mark mlflow
curl -sf -X POST -H 'Content-Type: application/json' -d '{{"max_results": 10}}' \
  http://localhost:15000/api/2.0/mlflow/experiments/search
mark down; ray down -y {cluster}
sleep 5
mark left; pgrep -c raylet || true
mark end
"""


def for_this_machine(shared: Path, target: Path) -> None:
    """The cluster file with its first block filled in as a user does, for one machine."""
    text = (REPOSITORY / "cluster.local.yaml").read_text()
    filled = {
        "&head 192.0.2.1": "&head 127.0.0.1",
        "&workers [192.0.2.2, 192.0.2.3]": "&workers []",
        "&count 2": "&count 0",
        "&user ubuntu": f"&user {os.environ.get('USER', 'root')}",
        "CXR_SHARED=/shared": f"CXR_SHARED={shared}",
    }
    for old, new in filled.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    target.write_text(text)
    yaml.safe_load(text)


@pytest.fixture
def needed():
    """What the test needs of this machine."""
    for program in ("/usr/sbin/sshd", "unshare", "rsync", "ip", "curl"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can make a home and a network for the test alone")
    if not importlib.util.find_spec("aiohttp_cors"):
        pytest.skip("Ray's launcher and jobs are not installed: pip install 'ray[default]' -c constraints.txt")


def test_a_search_on_own_machines_from_ray_up_to_ray_down(needed, tmp_path, few_films):
    space = tmp_path / "quick.yaml"
    from tests.end_to_end.conftest import SPACE

    space.write_text(SPACE)
    # Files are sent from beside the cluster file.
    cluster = REPOSITORY / f".cluster.{os.getpid()}.yaml"
    for_this_machine(tmp_path / "shared", cluster)
    script = SCRIPT.format(
        home=tmp_path / "home",
        environment=sys.prefix,
        checkout=REPOSITORY,
        cluster=cluster.name,
        space=space,
        films=few_films,
    )
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        done = subprocess.run(
            [*alone, "bash", "-c", script], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    finally:
        cluster.unlink()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    told = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    assert "succeeded" in told["job"]
    assert '"full": 2' in told["job"] or '"pruned"' in told["job"]
    assert '"name": "quick"' in told["mlflow"] or '"name":"quick"' in told["mlflow"]
    assert (tmp_path / "shared" / "studies" / "first" / "report.html").exists()
    assert told["left"].strip() == "0"
