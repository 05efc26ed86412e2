"""A Ray cluster of several nodes on this machine: each with processes, settings, film cache and, for root, network."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


class Network:
    """A bridge with a network namespace for each node; without the right to make one, all are on the loopback."""

    def __init__(self):
        self.name = f"cxr{uuid.uuid4().hex[:6]}"
        self.spaces: list[str] = []
        self.own = (
            os.geteuid() == 0
            and shutil.which("ip") is not None
            and self._ip("link", "add", self.name, "type", "bridge")
        )
        if self.own:
            self._ip("link", "set", self.name, "up")

    def _ip(self, *words):
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    def join(self):
        """A new member: its address, and what a command must begin with to run there."""
        number = len(self.spaces) + 1
        if not self.own:
            self.spaces.append("")
            return "127.0.0.1", []
        space, outer, inner = f"{self.name}-{number}", f"{self.name}o{number}", f"{self.name}i{number}"
        within = ["ip", "netns", "exec", space]
        address = f"10.213.{int(self.name[3:5], 16)}.{number}"
        for words in (
            ["netns", "add", space],
            ["link", "add", outer, "type", "veth", "peer", "name", inner],
            ["link", "set", outer, "master", self.name, "up"],
            ["link", "set", inner, "netns", space],
            ["-n", space, "addr", "add", f"{address}/24", "dev", inner],
            ["-n", space, "link", "set", inner, "up"],
            ["-n", space, "link", "set", "lo", "up"],
        ):
            assert self._ip(*words), words
        self.spaces.append(space)
        return address, within

    def close(self):
        for space in filter(None, self.spaces):
            self._ip("netns", "delete", space)
        if self.own:
            self._ip("link", "delete", self.name)


class RayNode:
    """One `ray start --block`, and all that it started."""

    def __init__(self, ray_nodes, name, options, env):
        self.name = name
        self.address, self.within = ray_nodes.network.join()
        self.cache = ray_nodes.folder / f"cache-{name}"
        self.log = ray_nodes.folder / f"{name}.log"
        settings = {**os.environ, **ray_nodes.token, "PYTHONPATH": str(ray_nodes.repository)}
        settings |= {"CXR_CACHE": str(self.cache), **env}
        command = [*self.within, *RAY, "start", "--block", f"--node-ip-address={self.address}", "--disable-usage-stats"]
        command += [
            "--object-store-memory=100000000",
            "--min-worker-port=0",
            "--max-worker-port=0",
            *options(self.address),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True)

    def family(self):
        """Every process of the node, its workers included."""
        try:
            mother = psutil.Process(self.process.pid)
            return [mother, *mother.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self):
        """Processes in which legs are trained."""
        return [p for p in self.family() if p.is_running() and "Trainable" in " ".join(_command(p))]

    def kill(self):
        """The whole node at once, as a power cut does."""
        for process in self.family():
            process.send_signal(signal.SIGKILL)
        self.process.wait()


class RayNodes:
    """A cluster of the tests' own: its ports, folders and processes are nobody else's."""

    def __init__(self, folder: Path, repository: Path):
        self.folder, self.repository = folder, repository
        self.network = Network()
        self.nodes: list[RayNode] = []
        # Paths of sockets are short: not below pytest's folder.
        self.temporary = Path(f"/tmp/{self.network.name}")
        self.port = _free_port()
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}

    @property
    def address(self):
        return f"{self.nodes[0].address}:{self.port}"

    @property
    def within(self):
        """What the command of a driver must begin with to run on the head."""
        return self.nodes[0].within

    def start_head(self, cpus=0, **env):
        """The first node, where the driver runs; without CPUs no leg is trained on it."""
        head = [f"--port={self.port}", "--head", f"--num-cpus={cpus}", "--include-dashboard=false"]
        head.append(f"--temp-dir={self.temporary}")
        return self._start(RayNode(self, "head", lambda address: head, env))

    def add(self, name, cpus=1, **env):
        """Another node that joins the cluster."""
        return self._start(RayNode(self, name, lambda _: [f"--address={self.address}", f"--num-cpus={cpus}"], env))

    def _start(self, node):
        self.nodes.append(node)
        for _ in range(1800):
            if "Ray runtime started" in node.log.read_text():
                return node
            assert node.process.poll() is None, node.log.read_text()
            time.sleep(0.1)
        raise AssertionError(node.log.read_text())

    def close(self):
        for node in self.nodes:
            node.kill()
        self.network.close()
        shutil.rmtree(self.temporary, ignore_errors=True)


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
