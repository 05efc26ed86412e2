"""A real search of 1,000 small trials: what grows with it, and how soon it trains again after its driver was killed.

    python -m benchmarks.long_search --data medmnist:../shared/data/pneumoniamnist.npz --write

The search is `python -m search.run` as a user starts it, on a few of the films. Half-way its driver is killed with
SIGKILL and the search resumed. Processes, open files and memory are those of the search with all of Ray's processes and
the MLflow writer.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.rounds import machine, publish
from search.study import Study

SPACE = """
name: long
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro}
budget: {reserve: 0}
space:
  model: {small_cnn: {width: {int: [4, 8], step: 2}}}
  loss: {choice: [bce, weighted_bce]}
  dropout: {float: [0.0, 0.5]}
  lr: {float: [1e-4, 1e-2], log: true}
  epochs: {int: [4, 8], step: 2}
"""
Driver = subprocess.Popen[bytes]
_EVERY = 2.0
"""Seconds between looks at the search."""


@dataclass(frozen=True)
class Look:
    """A search at one moment; memory in MiB: the driver's own, and that of all other processes that the search made."""

    at: float
    trials: int
    epochs: int
    processes: int
    files: int
    driver: float
    others: float


class LongSearch:
    """A search in a folder of its own, started and killed as a process."""

    def __init__(self, folder: Path, films: Path, trials: int):
        self.folder, self.films, self.trials = folder, films, trials
        self.looks: list[Look] = []
        (folder / "long.yaml").write_text(SPACE)

    def start(self, *options: str) -> Driver:
        command = [sys.executable, "-m", "search.run", "--trials", str(self.trials), *options]
        root = str(Path(__file__).resolve().parents[1])
        environment = {**os.environ, "PYTHONPATH": root, "CXR_CACHE": str(self.folder / "cache")}
        log = (self.folder / "search.log").open("ab")
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def first(self) -> Driver:
        return self.start("--space", "long.yaml", "--data", f"medmnist:{self.films}")

    def resume(self) -> Driver:
        return self.start("--study", "long", "--resume")

    def watch(self, driver: Driver, until: int | None = None) -> None:
        """Look at the search until it ends, or has begun so many trials."""
        study = None
        while driver.poll() is None:
            time.sleep(_EVERY)
            if study is None:
                if not (self.folder / "studies/long/journal.log").exists():
                    continue
                study = Study(self.folder / "studies/long", follow=True)
            trials = study.trials()
            if look := _look(psutil.Process(driver.pid), len(trials), sum(len(trial.epochs) for trial in trials)):
                self.looks.append(look)
            if until is not None and len(trials) >= until:
                return
        if driver.returncode:
            sys.exit((self.folder / "search.log").read_text()[-3000:])


def _look(driver: psutil.Process, trials: int, epochs: int) -> Look | None:
    try:
        family = [driver, *driver.children(recursive=True)]
        memory = [process.memory_full_info().uss / 2**20 for process in family]
        files = sum(process.num_fds() for process in family)
    except psutil.NoSuchProcess:  # one that ended between two questions
        return None
    return Look(time.monotonic(), trials, epochs, len(family), files, memory[0], sum(memory[1:]))


def seconds_to_train_again(search: LongSearch, driver: Driver) -> tuple[Driver, float]:
    """Kill the driver and resume: the new driver, and seconds from the kill to the next epoch."""
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    killed = time.monotonic()
    study = Study(search.folder / "studies/long", follow=True)
    known = sum(len(trial.epochs) for trial in study.trials())
    again = search.resume()
    while sum(len(trial.epochs) for trial in study.trials()) == known:
        if again.poll() is not None:
            sys.exit((search.folder / "search.log").read_text()[-3000:])
        time.sleep(0.1)
    return again, time.monotonic() - killed


def few_films(data: str, folder: Path, count: int) -> Path:
    """The first films of each split."""
    with np.load(data.removeprefix("medmnist:")) as archive:
        few = {name: archive[name][:count] for name in archive.files}
    np.savez(folder / "few.npz", **few)
    return folder / "few.npz"


def growth(looks: list[Look]) -> str:
    """What the search was like after a tenth of its session, and before it began its last trial, in Markdown."""
    begun, last_begun = looks[0].trials, looks[-1].trials
    # The report is written when all have begun, and Ray has ended by then.
    early = [look for look in looks if 0.1 <= (look.trials - begun) / (last_begun - begun) < 1]
    tenth = max(3, len(early) // 10)
    first, last = early[:tenth], early[-tenth:]
    rows = {
        "processes": lambda look: look.processes,
        "open files": lambda look: look.files,
        "driver, MiB": lambda look: look.driver,
        "all other processes, MiB": lambda look: look.others,
    }
    lines = ["| | after a tenth | at the end | ratio |", "|---|---:|---:|---:|"]
    for name, value in rows.items():
        before, after = (float(np.median([value(look) for look in part])) for part in (first, last))
        lines.append(f"| {name} | {before:,.0f} | {after:,.0f} | {after / before:.2f} |")
    half = len(early) // 2
    parts = (early[:half], early[half:])
    early_rate, late_rate = ((part[-1].epochs - part[0].epochs) / (part[-1].at - part[0].at) for part in parts)
    change = late_rate / early_rate
    lines.append(f"| epochs a second, first and second half | {early_rate:.2f} | {late_rate:.2f} | {change:.2f} |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, metavar="medmnist:FILE", help="PneumoniaMNIST")
    add("--films", type=int, default=400, help="films of each split")
    add("--trials", type=int, default=1000)
    add("--write", action="store_true", help="write benchmarks/long_search.md")
    return parser.parse_args()


def main() -> None:
    args, about = parse(), machine("ray", "optuna", "mlflow", "torch")
    with tempfile.TemporaryDirectory(prefix="long-search-") as place:
        search = LongSearch(Path(place), few_films(args.data, Path(place), args.films), args.trials)
        driver = search.first()
        search.watch(driver, until=args.trials // 2)
        before, search.looks = search.looks, []
        driver, seconds = seconds_to_train_again(search, driver)
        search.watch(driver)
        study = Study(Path(place) / "studies/long")
        ended = sum(trial.outcome != "open" for trial in study.trials())
    killed_at = before[-1].trials
    publish(
        __file__,
        f"A search of {args.trials:,} small trials",
        about,
        f"{args.trials} trials of 4 to 8 epochs on {args.films} films; {ended} ended. Memory is private (USS).",
        f"Until the driver was killed, at {killed_at} trials:",
        growth(before),
        "After that:",
        growth(search.looks),
        f"From `kill -9` of the driver to the next epoch of the resumed search: {seconds:.1f} s.",
        write=args.write,
    )


if __name__ == "__main__":
    main()
