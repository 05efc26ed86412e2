"""How far behind the search MLflow is, what a look at a long study costs, and what Ray's own callback costs instead.

    python -m benchmarks.mlflow_writer --write

A study's journal is written at the rate of a search: 8 trials at once, an epoch a second each, 20 metrics an epoch. The
real writer process follows it into a real MLflow. Lag is from the epoch's entry in the journal to its row in MLflow's
database, which is looked at 50 times a second. `--busy N` keeps N processes computing meanwhile, as trainings do.
"""

import argparse
import multiprocessing
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks.rounds import machine, publish
from search.mlflow_view import MlflowView, default_uri
from search.space import load_space
from search.study import Study
from search.trial import EpochRecord, Outcome
from tests.end_to_end.mlflow_server import MlflowServer

SPACE = """
name: written
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro}
space: {model: small_cnn, lr: {float: [1e-4, 1e-2]}, dropout: {float: [0.0, 0.5]}, epochs: 10}
"""
LEGS, EPOCHS = 8, 10
_WRITTEN = 50
"""Trials of a long study that are written through the view; the rest is put into MLflow's database."""
METRICS = [f"metric_{index}" for index in range(15)]
"""With the objective, the training loss, the speed, the seconds and the epoch's number: 20 an epoch."""


def make_study(folder: Path, uri: str) -> Study:
    path = folder / "space.yaml"
    path.write_text(SPACE)
    films = pd.DataFrame({"image": ["a", "b"], "patient": ["a", "b"], "split": ["train", "val"]})
    facts = {"seed": 0, "data": "phantom", "split_hash": "0", "mlflow": uri, "versions": {}}
    facts |= {"films": {"train": 1, "val": 1}, "patients": {"train": 1, "val": 1}, "labels": {}, "notes": []}
    return Study.create(folder / f"study-{time.time_ns()}", load_space(path), facts, films)


def begin(study: Study) -> int:
    draw = np.random.default_rng(time.time_ns())
    flat = {"model": "small_cnn", "lr": float(draw.uniform(1e-4, 1e-2)), "dropout": float(draw.uniform(0, 0.5))}
    return study.add({**flat, "epochs": EPOCHS}, 0, "written").number


def train(study: Study, number: int, epoch: int) -> None:
    value = 0.9 - 0.4 * 0.7**epoch + number / 1e6
    metrics = {"auroc_macro": value, **dict.fromkeys(METRICS, value / 2)}
    checkpoint = f"trials/{number}/{epoch}.pt"
    areas = {"Pneumonia": value}
    study.record(number, EpochRecord(epoch, value, 0.5, metrics, areas, 900.0, 1.0, 0, checkpoint, time.time()))


@contextmanager
def place(kind: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """An MLflow of a kind, and its database."""
    if kind == "server":
        server = MlflowServer(folder)
        try:
            yield server.uri, server.database
        finally:
            server.kill()
    else:
        yield default_uri(folder), folder / "mlflow.db"


# Lag


def lags(kind: str, folder: Path, seconds: int) -> list[float]:
    """Seconds that each epoch took from the journal to MLflow."""
    with place(kind, folder) as (uri, database):
        study = make_study(folder, uri)
        command = [sys.executable, "-m", "search.mlflow_writer", str(study.folder)]
        writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        seen: dict[tuple[int, int], float] = {}
        over = threading.Event()
        reader = threading.Thread(target=_watch, args=(database, seen, over))
        reader.start()
        time.sleep(30)  # a search's first epoch comes when its writer has started
        written = _search(study, seconds)
        study.note("ended", {"at": time.time(), "why": "budget"})
        writer.communicate(b"done", timeout=600)
        over.set()
        reader.join()
    if writer.returncode or set(seen) != set(written):
        sys.exit(f"{kind}: {len(seen)} of {len(written)} epochs are in MLflow; exit code {writer.returncode}")
    return [seen[key] - at for key, at in written.items()]


def _search(study: Study, seconds: int) -> dict[tuple[int, int], float]:
    """Write the journal as a search does; when each epoch of a trial was in it."""
    written: dict[tuple[int, int], float] = {}
    live = [(begin(study), 1) for _ in range(LEGS)]
    start = time.monotonic()
    for beat in range(seconds * LEGS):  # the legs take turns: one epoch each 1/8 s
        number, epoch = live[beat % LEGS]
        train(study, number, epoch)
        written[number, epoch] = time.time()
        live[beat % LEGS] = (number, epoch + 1)
        if epoch == EPOCHS:
            study.finish(number, Outcome.FULL)
            live[beat % LEGS] = (begin(study), 1)
        time.sleep(max(0.0, start + (beat + 1) / LEGS - time.monotonic()))
    return written


def _watch(database: Path, seen: dict[tuple[int, int], float], over: threading.Event) -> None:
    query = "SELECT m.rowid, t.value, m.step FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid"
    query += " WHERE m.rowid > ? AND m.key = 'system/epoch' AND t.key = 'cxr.trial' ORDER BY m.rowid"
    last = 0
    while True:
        ended = over.is_set()  # and then once more, for what came since
        try:
            with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5) as connection:
                rows = connection.execute(query, (last,)).fetchall()
            connection.close()
        except sqlite3.OperationalError:  # not made yet
            rows = []
        for last, trial, step in rows:  # noqa: B007
            seen[int(trial), int(step)] = time.time()
        if ended:
            return
        time.sleep(0.02)


# A long study


def looks(trials: int, folder: Path) -> dict[str, float]:
    """What a study of that many trials costs: to write a trial from nothing, to find all again, and of a look."""
    with place("sqlite", folder) as (uri, database):
        study = make_study(folder, uri)
        for _ in range(_WRITTEN):
            _train_one(study)
        costs = {}
        start = time.perf_counter()
        MlflowView(study).sync()
        costs["an ended trial written from nothing (ms)"] = 1000 * (time.perf_counter() - start) / _WRITTEN
        with mock.patch("os.fsync"):  # how long the synthetic study takes is of no interest
            rest = [_train_one(study) for _ in range(trials - LEGS - _WRITTEN)]
        _copy_runs(database, rest)
        live = [begin(study) for _ in range(LEGS)]
        start = time.perf_counter()
        read = Study(study.folder)
        costs["a new writer reads the journal (ms)"] = 1000 * (time.perf_counter() - start)
        start = time.perf_counter()
        view = MlflowView(read)
        view.sync()
        costs["a new writer finds all runs again (ms)"] = 1000 * (time.perf_counter() - start)
        costs["look, nothing new (ms)"] = 1000 * statistics.median(_look(view) for _ in range(20))
        with_epochs = []
        for epoch in range(1, 8):
            for number in live:
                train(study, number, epoch)
            with_epochs.append(_look(view))
        costs["look, an epoch of each of 8 trials (ms)"] = 1000 * statistics.median(with_epochs)
        return costs


def _train_one(study: Study) -> int:
    number = begin(study)
    train(study, number, 1)
    study.finish(number, Outcome.FULL)
    return number


def _copy_runs(database: Path, numbers: list[int]) -> None:
    """Give MLflow the runs of these trials at once: through its interface that takes a quarter of an hour."""
    with sqlite3.connect(database, timeout=60) as connection:
        (model,) = connection.execute("SELECT run_uuid FROM tags WHERE key = 'cxr.trial' AND value = '0'").fetchone()
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            cursor = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (model,))
            columns = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
            marks = ", ".join("?" * len(columns))
            copies = (_copy(dict(zip(columns, row, strict=True)), number) for number in numbers for row in rows)
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", map(tuple, copies))
    connection.close()


def _copy(row: dict[str, Any], number: int) -> Iterable[Any]:
    """A row of trial 0 as it would be of another: each thing that names the trial names the other one."""
    names = {"cxr.trial": str(number), "mlflow.runName": f"trial {number:03d} written"}
    if row.get("key") in names:
        row["value"] = names[row["key"]]
    elif row.get("key") == "mlflow.note.content":
        row["value"] = (
            row["value"].replace("trial 000", f"trial {number:03d}").replace("explain 0", f"explain {number}")
        )
    return {**row, "run_uuid": f"{number:032x}"}.values()


def _look(view: MlflowView) -> float:
    start = time.perf_counter()
    view.sync()
    return time.perf_counter() - start


# The peer


def callback_costs(folder: Path, results: int) -> list[float]:
    """Seconds that Ray's MLflow callback holds up Tune's loop at each result of 20 metrics."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    costs: list[float] = []

    class Timed(MLflowLoggerCallback):
        def log_trial_result(self, iteration, trial, result):  # type: ignore[no-untyped-def]
            start = time.perf_counter()
            super().log_trial_result(iteration, trial, result)
            costs.append(time.perf_counter() - start)

    def trainable(config):  # type: ignore[no-untyped-def]
        for epoch in range(results):
            tune.report(
                {"auroc_macro": 0.5 + epoch / 100, **dict.fromkeys(METRICS, 0.5), "a": 1, "b": 2, "c": 3, "d": 4}
            )

    with place("server", folder) as (uri, _):
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        callback = Timed(tracking_uri=uri, experiment_name="peer")
        tune.Tuner(
            trainable, run_config=tune.RunConfig(callbacks=[callback], storage_path=str(folder / "ray"), verbose=0)
        ).fit()
        ray.shutdown()
    return costs


@contextmanager
def busy(count: int) -> Iterator[None]:
    processes = [multiprocessing.get_context("spawn").Process(target=_burn, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _burn() -> None:
    while True:
        sum(range(1_000_000))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="length of each search")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compute meanwhile")
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1000, 10000], help="sizes of long studies")
    parser.add_argument("--write", action="store_true", help="write benchmarks/mlflow_writer.md")
    return parser.parse_args()


def main() -> None:
    args, about = parse(), machine("mlflow", "ray", "optuna")
    text = [f"## Lag\n\n{LEGS} trials at once, an epoch a second each, 20 metrics an epoch, for {args.seconds} s."]
    rows = [
        _row(
            f"{kind}, {n} processes computing" if n else f"{kind}, no other process of this benchmark",
            _measure(kind, args.seconds, n),
        )
        for kind in ("server", "sqlite")
        for n in dict.fromkeys([0, args.busy])
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows.append(
            _row(
                "peer: MLflowLoggerCallback, server; each result waits in Tune's loop", callback_costs(Path(folder), 40)
            )
        )
    head = "| | n | median (s) | 95 % (s) | max (s) |\n|---|---:|---:|---:|---:|"
    text.append("\n".join([head, *rows]))
    if args.trials:
        text.append("## A long study, sqlite")
        text.append(_looks_table(args.trials))
    publish(__file__, "MLflow: how far behind, and at what cost", about, *text, write=args.write)


def _measure(kind: str, seconds: int, computing: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder, busy(computing):
        return lags(kind, Path(folder), seconds)


def _row(name: str, values: list[float]) -> str:
    cells = [np.median(values), np.percentile(values, 95), max(values)]
    return f"| {name} | {len(values)} | {' | '.join(f'{value:.2f}' for value in cells)} |"


def _looks_table(sizes: list[int]) -> str:
    columns = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            columns[size] = looks(size, Path(folder))
            print(size, columns[size], file=sys.stderr, flush=True)
    lines = [f"| trials | {' | '.join(f'{size:,}' for size in sizes)} |", f"|---|{'---:|' * len(sizes)}"]
    for figure in columns[sizes[0]]:
        lines.append(f"| {figure} | {' | '.join(f'{columns[size][figure]:,.1f}' for size in sizes)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
