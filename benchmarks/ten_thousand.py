"""What a search of 10,000 trials costs beside its training: each epoch is known in advance and takes no time.

`Legs` decides and `Study` keeps the journal on disk, as in a real search; nothing is trained, and no Ray is started.
The peer is an Optuna study with the same sampler and journal, which is asked and told the same number of times.
"""

import argparse
import logging
import math
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.rounds import machine, publish
from search.budget import Budget
from search.checkpoints import Checkpoints
from search.leg import Leg
from search.legs import Legs
from search.proposals import propose
from search.proposer import Proposer
from search.space import Space, load_space
from search.study import Study
from search.trial import EpochRecord

ROOT = Path(__file__).parents[1]
SLOTS = 4
EPOCHS = 10
RUNGS = (1, 2)
"""Epochs of the default rungs, 5 and 20 % of the schedule."""

SPACE = f"""
name: ten-thousand
task: {{kind: binary, labels: [Pneumonia]}}
data: {{image_size: 28}}
objective: {{metric: auroc_macro}}
searcher: {{name: tpe}}
space:
  epochs: {EPOCHS}
  model:
    choice:
      small_cnn: {{width: {{int: [8, 64], step: 8}}}}
      resnet18: {{}}
  lr: {{float: [1e-5, 1e-1], log: true}}
  dropout: {{float: [0.0, 0.6]}}
  loss: {{choice: {{bce: {{}}, focal: {{gamma: {{float: [0.5, 4]}}}}}}}}
"""


def value(flat: dict, seed: int, epoch: int) -> float:
    """A learning curve: best at a learning rate of 0.003 without dropout, with the noise of a seed."""
    end = 0.9 - 0.05 * abs(math.log10(flat["lr"] / 3e-3)) - 0.1 * flat["dropout"]
    return end * (1 - 0.5**epoch) + random.Random(seed).gauss(0, 0.01)


class Driver:
    """One search on a journal on disk, with the time of each of its trials."""

    def __init__(self, folder: Path, space: Space, trials: int):
        self.folder, self.space, self.trials = folder, space, trials
        self.suggested: list[float] = []
        self.began: list[tuple[float, float]] = []

    def create(self) -> None:
        films = pd.DataFrame({"image": ["a", "b"], "patient": ["a", "b"], "split": ["train", "val"]})
        Study.create(self.folder, self.space, {"seed": 0}, films)

    def open(self) -> Legs:
        study = Study(self.folder)
        budget = Budget(self.space.header.budget, slots=SLOTS)
        proposer = partial(Proposer, propose=self._propose)
        return Legs(study, self.space, 0, budget, proposer=proposer, on_end=Checkpoints(self.folder, study, 20).sweep)

    def _propose(self, *given, **request):
        start = time.perf_counter()
        proposal = propose(*given, **request)
        self.suggested.append(time.perf_counter() - start)
        return proposal

    def run(self, legs: Legs, until: int | None = None) -> None:
        """To the end of the search, or, as if killed, until a trial of that number has begun."""
        running: deque[int] = deque()
        while True:
            while len(running) < SLOTS and isinstance(leg := legs.next_leg(), Leg):
                running.append(leg.trial)
                if leg.trial == len(self.began):
                    self.began.append((time.perf_counter(), time.process_time()))
                    if leg.trial % 500 == 0:
                        print(f"{leg.trial} trials, {self.began[-1][1]:.0f} s of CPU", file=sys.stderr, flush=True)
            if not running or len(self.began) == until:
                return
            number = running.popleft()
            if legs.epoch_done(number, self._epoch(legs.journal.trial(number))):
                running.append(number)
            else:
                legs.leg_ended(number)

    def _epoch(self, trial) -> EpochRecord:
        epoch = len(trial.epochs) + 1
        reached = value(trial.flat, trial.seed, epoch)
        path = f"trials/{trial.number:05d}/epoch-{epoch:04d}.pt"
        metrics = {"auroc_macro": reached, "log_loss": 1 - reached}
        return EpochRecord(epoch, reached, 0.5, metrics, {"Pneumonia": reached}, 100.0, 1.0, 0, path, time.time())


def peer(folder: Path, trials: int) -> float:
    """Seconds of CPU of an Optuna study with its own TPE and journal; rungs as those of the search, decided alike."""
    storage = JournalStorage(JournalFileBackend(str(folder / f"peer-{trials}.log")))
    sampler = TPESampler(multivariate=True, group=True, constant_liar=True, seed=0)
    study = optuna.create_study(storage=storage, sampler=sampler, direction="maximize")
    reached: dict[int, list[float]] = {rung: [] for rung in RUNGS}
    start = time.process_time()
    for number in range(trials):
        trial = study.ask()
        flat = {
            "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
            "dropout": trial.suggest_float("dropout", 0, 0.6),
        }
        if trial.suggest_categorical("model", ["small_cnn", "resnet18"]) == "small_cnn":
            trial.suggest_int("model.small_cnn.width", 8, 64, step=8)
        if trial.suggest_categorical("loss", ["bce", "focal"]) == "focal":
            trial.suggest_float("loss.focal.gamma", 0.5, 4)
        state = TrialState.COMPLETE
        for epoch in range(1, EPOCHS + 1):
            now = value(flat, number, epoch)
            trial.report(now, epoch)
            if epoch in RUNGS:
                reached[epoch].append(now)
                if sum(other > now for other in reached[epoch]) >= len(reached[epoch]) // 4:
                    state = TrialState.PRUNED
                    break
        study.tell(trial, now if state == TrialState.COMPLETE else None, state=state)
    return time.process_time() - start


def seconds_to_open(folder: Path, space: Space, trials: int) -> tuple[float, int]:
    """Wall-clock seconds from a journal to its next leg, after a kill when so many trials had begun."""
    driver = Driver(folder, space, trials)
    driver.create()
    driver.run(driver.open(), until=trials)
    return reopened(folder, space, trials)


def reopened(folder: Path, space: Space, trials: int) -> tuple[float, int]:
    start = time.perf_counter()
    legs = Driver(folder, space, trials).open()
    legs.next_leg()
    return time.perf_counter() - start, (folder / "journal.log").stat().st_size


def per_trial(driver: Driver, first: int, last: int) -> tuple[float, float]:
    """Milliseconds of a trial from one number to another, by the clock and by the CPU."""
    (wall, cpu), (wall_end, cpu_end) = driver.began[first], driver.began[last]
    return 1e3 * (wall_end - wall) / (last - first), 1e3 * (cpu_end - cpu) / (last - first)


def tell(driver: Driver, opened: dict[str, tuple[float, int]], peers: dict[int, float], memory: float) -> str:
    total, block = len(driver.began), len(driver.began) // 10
    lines = ["| trials | ms a trial (clock) | ms a trial (CPU) | ms to propose, median | 99 % | most |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for first in range(0, total, block):
        last = min(first + block, total - 1)
        wall, cpu = per_trial(driver, first, last)
        asked = sorted(1e3 * seconds for seconds in driver.suggested[first:last])
        figures = [wall, cpu, statistics.median(asked), asked[int(0.99 * len(asked))], asked[-1]]
        lines.append(f"| {first:,}-{last:,} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    begin, end = per_trial(driver, 0, block), per_trial(driver, total - block, total - 1)
    slower = [last / first for first, last in zip(begin, end, strict=True)]
    lines += ["", f"- last {block:,} over first {block:,}: {slower[0]:.2f} by the clock, {slower[1]:.2f} by the CPU"]
    lines.append(f"- peak memory of the driver: {memory:,.0f} MB")
    for name, (seconds, size) in opened.items():
        lines.append(f"- from a journal of {name} ({size / 1e6:.1f} MB) to its next leg: {seconds:.1f} s")
    for trials, seconds in peers.items():
        ours = 1e-3 * trials * per_trial(driver, 0, min(trials, total - 1))[1]
        lines.append(f"- CPU of {trials:,} trials: ours {ours:.0f} s; Optuna's TPE on its own journal {seconds:.0f} s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--peer", type=int, nargs="*", default=[1000, 2000], help="numbers of trials of the peer")
    parser.add_argument("--write", action="store_true", help="write benchmarks/ten_thousand.md")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    about = machine("optuna", "numpy")
    with tempfile.TemporaryDirectory(prefix="ten-thousand-") as place:
        (Path(place) / "space.yaml").write_text(SPACE)
        space = load_space(Path(place) / "space.yaml", [f"budget.trials={args.trials}"])
        driver = Driver(Path(place) / "search", space, args.trials)
        driver.create()
        driver.run(driver.open())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        opened = {f"{args.trials:,} trials": reopened(driver.folder, space, args.trials)}
        opened["500 trials"] = seconds_to_open(Path(place) / "small", space, 500)
        peers = {trials: peer(Path(place), trials) for trials in args.peer}
    text = tell(driver, opened, peers, memory)
    publish(__file__, __doc__.splitlines()[0].removesuffix("."), about, text, write=args.write)


if __name__ == "__main__":
    main()
