"""A real MLflow server that may die and come back."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import psutil


class MlflowServer:
    """A real MLflow server on a port of its own; it may die and be started again on the same database."""

    def __init__(self, folder, database=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self._folder, self._port = folder, port
        self.database = database or folder / "server.db"
        self._process = None
        self.start()

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self._folder / "art")]
        log = (self._folder / "server.log").open("ab")
        # Its workers for jobs that have nothing to do with runs would keep a core busy.
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        for _ in range(1800):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1)
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the MLflow server did not start")

    def kill(self):
        family = [*psutil.Process(self._process.pid).children(recursive=True), self._process]
        for member in family:
            member.kill()
        self._process.wait()
