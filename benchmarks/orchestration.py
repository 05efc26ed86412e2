"""What orchestration costs beyond training: our search against the usual glue of the same three tools.

    python -m benchmarks.orchestration --data medmnist:../shared/data/pneumoniamnist.npz

Runs `python -m search.run` and `naive_glue.py` in turn, on the same films and space, each as a process of its own in a
folder of its own, and compares their wall time with the training seconds that were done in it.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from benchmarks.rounds import machine, publish
from cxr_core.config import Task, TrainConfig
from cxr_core.data import PreparedData, TrainingData
from cxr_core.registry import Scalar
from cxr_core.train import train
from search.preflight import parse_data_name, prepare_data
from search.space import load_space
from search.study import Study

ROOT = Path(__file__).resolve().parents[1]

SPACE = """
name: orchestration
task: {kind: binary, labels: [Pneumonia]}
data: {image_size: 28}
objective: {metric: auroc_macro}
budget: {reserve: 0}
space:
  model: {small_cnn: {width: {int: [16, 64], step: 16}}}
  schedule: {choice: {cosine: {warmup: {float: [0.0, 0.2]}}, step: {gamma: {float: [0.05, 0.5], log: true}}}}
  loss: {choice: {bce: {}, weighted_bce: {cap: {float: [1, 10], log: true}}}}
  sampler: {choice: {uniform: {}, oversample: {threshold: {float: [0.1, 0.6], log: true}}}}
  dropout: {float: [0.0, 0.6]}
  lr: {float: [3e-4, 1e-2], log: true}
  epochs: {int: [4, 16]}
"""


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial in time, in seconds since 1970: from its first batch to its checkpoint on the disk.

    seconds: of training and validation. `begin` is `end - seconds`, so a checkpoint's write is not counted as training.
    """

    trial: str
    index: int
    begin: float
    end: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """One search as a whole: when its process began and ended, every epoch in between, and what was trained.

    configs: flat parameters and seed of each trial. bare: seconds that the same epochs take with nothing around them.
    """

    begin: float
    end: float
    epochs: tuple[Epoch, ...]
    configs: dict[str, tuple[dict[str, Scalar], int]]
    bare: float | None = None


# Running


def run_ours(folder: Path, data: str, trials: int, slots: int, seed: int) -> Run:
    """Our search, from the command line; its epochs are read from the study afterwards."""
    (folder / "space.yaml").write_text(SPACE)
    command = ["-m", "search.run", "--space", "space.yaml", "--data", data, "--study", "ours"]
    command += ["--trials", str(trials), "--concurrent", str(slots), "--gpus-per-trial", "0", "--seed", str(seed)]
    begin, end = _python(command, folder)
    found = [trial for trial in Study(folder / "studies" / "ours").trials() if trial.epochs]
    epochs = [
        Epoch(str(trial.number), epoch.epoch, epoch.at - epoch.seconds, epoch.at, epoch.seconds)
        for trial in found
        for epoch in trial.epochs
    ]
    return Run(begin, end, tuple(epochs), {str(trial.number): (trial.flat, trial.seed) for trial in found})


def run_naive(folder: Path, prepared: PreparedData, trials: int, slots: int, seed: int) -> Run:
    """The naive glue; its trainables write down their epochs."""
    records = folder / "records"
    records.mkdir()
    prepared.development.to_parquet(folder / "films.parquet", index=False)
    command = [str(ROOT / "benchmarks" / "naive_glue.py"), "--folder", str(folder), "--records", str(records)]
    command += ["--cache", str(prepared.cache), "--films", str(folder / "films.parquet")]
    command += ["--trials", str(trials), "--concurrent", str(slots), "--seed", str(seed)]
    begin, end = _python(command, folder)
    epochs, configs = [], {}
    for file in sorted(records.iterdir()):
        first, *lines = map(json.loads, file.read_text().splitlines())
        configs[file.stem] = (first["config"], 0)
        for index, line in enumerate(lines, start=1):
            epochs.append(Epoch(file.stem, index, line["at"] - line["seconds"], line["at"], line["seconds"]))
    return Run(begin, end, tuple(epochs), configs)


def _python(command: list[str], folder: Path) -> tuple[float, float]:
    """Run Python with what it prints kept in `log.txt`; when it began and ended."""
    # RAY_ADDRESS: another Ray on this machine must not be joined.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}
    with (folder / "log.txt").open("wb") as output:
        begin = time.time()
        ended = subprocess.run([sys.executable, *command], cwd=folder, env=environment, stdout=output, stderr=output)
        end = time.time()
    if ended.returncode:
        text = (folder / "log.txt").read_text(errors="replace")
        sys.exit(f"{' '.join(command)}: exit code {ended.returncode}\n{text[-4000:]}")
    return begin, end


def train_bare(run: Run, prepared: PreparedData, slots: int) -> float:
    """Train the same epochs again, in plain processes and as many at once; their seconds in all."""
    last = {epoch.trial: epoch.index for epoch in sorted(run.epochs, key=lambda epoch: epoch.index)}
    jobs = [(*run.configs[trial], last[trial], prepared) for trial in sorted(last, key=lambda trial: -last[trial])]
    with multiprocessing.get_context("spawn").Pool(slots) as pool:
        return math.fsum(pool.imap_unordered(_train_one, jobs))


def _train_one(job: tuple[dict[str, Scalar], int, int, PreparedData]) -> float:
    flat, seed, epochs, prepared = job
    torch.set_num_threads(1)
    data = TrainingData.open(prepared.cache, prepared.development, ("Pneumonia",))
    config = TrainConfig.from_flat(flat, Task("binary", data.labels), data.image_size, seed)
    return math.fsum(epoch.seconds for epoch in islice(train(config, data), epochs))


# Measuring


def figures(run: Run, slots: int) -> dict[str, float]:
    """The figures of one search; seconds, or ratios of a wall time to the ideal one."""
    training = math.fsum(epoch.seconds for epoch in run.epochs)
    trials = len({epoch.trial for epoch in run.epochs})
    first, last = min(epoch.begin for epoch in run.epochs), max(epoch.end for epoch in run.epochs)
    ideal = training / slots
    between, within, ends = gaps(run.epochs, slots)
    found = {
        "trials": trials,
        "legs": len(between) + len(ends),
        "epochs": len(run.epochs),
        "training, sum (s)": training,
        "ideal = sum / slots (s)": ideal,
        "wall (s)": run.end - run.begin,
        "  start to first epoch (s)": first - run.begin,
        "  last epoch to end (s)": run.end - last,
        "wall / ideal": (run.end - run.begin) / ideal,
        "wall / ideal, from first epoch to end": (run.end - first) / ideal,
        "wall / ideal, from first epoch to last": (last - first) / ideal,
        "between two legs of a slot, median (s)": statistics.median(between),
        "between two legs of a slot, 90 % (s)": quantile(between, 0.9),
        "between two epochs of a leg, median (s)": statistics.median(within),
        "idle slots at the end (s)": math.fsum(last - end for end in ends),
        "slot seconds beyond training, per trial (s)": (slots * (run.end - first) - training) / trials,
        "  the same, from first epoch to last (s)": (slots * (last - first) - training) / trials,
    }
    if run.bare:
        found["the same epochs bare, sum (s)"] = run.bare
        found["training, sum / bare"] = training / run.bare
        found["wall / bare ideal"] = (run.end - run.begin) / (run.bare / slots)
        found["wall / bare ideal, from first epoch to last"] = (last - first) / (run.bare / slots)
    return found


def gaps(epochs: Sequence[Epoch], slots: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds between two legs of one slot, seconds between two epochs of one leg, and when each slot ended.

    Neither search says which slot ran what, so epochs are dealt to slots in order of their begin: to the slot that
    ran this trial's epoch before or, for the first epoch of a leg, to a free one. Of several free ones it is the one
    that is not about to go on with its own trial, and of those the one that has been free for longest.
    A trial that waits at a rung and is its slot's next leg counts as one that goes on.
    """
    following = {(epoch.trial, epoch.index - 1): epoch.begin for epoch in epochs}
    last: list[Epoch] = []
    between: list[float] = []
    within: list[float] = []
    for epoch in sorted(epochs, key=lambda epoch: epoch.begin):
        same = [slot for slot, e in enumerate(last) if (e.trial, e.index) == (epoch.trial, epoch.index - 1)]
        if same:
            within.append(epoch.begin - last[same[0]].end)
            last[same[0]] = epoch
        elif len(last) < slots:
            last.append(epoch)
        else:
            free = [slot for slot, e in enumerate(last) if e.end <= epoch.begin]
            if not free:
                sys.exit(f"more than {slots} epochs at once: clocks differ, or a slot is counted twice")
            goes_on = {slot: following.get((last[slot].trial, last[slot].index), math.inf) for slot in free}
            slot = min(free, key=lambda slot: (-goes_on[slot], last[slot].end))
            between.append(epoch.begin - last[slot].end)
            last[slot] = epoch
    return between, within, [epoch.end for epoch in last]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


# Telling


def table(ours: list[dict[str, float]], naive: list[dict[str, float]]) -> str:
    """Markdown: n, median and range over the repeats of each figure, and ours in proportion to the naive glue's."""
    lines = [
        "| figure | n | ours: median | min-max | naive glue: median | min-max | ours / naive |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for figure in ours[0]:
        us = [run[figure] for run in ours]
        them = [run[figure] for run in naive]
        cells = [
            figure.replace("  ", "&nbsp;&nbsp;"),
            str(len(us)),
            *_spread(us),
            *(_spread(them) if them else ("", "")),
        ]
        cells.append(
            f"{statistics.median(us) / statistics.median(them):.2f}" if them and statistics.median(them) else ""
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> tuple[str, str]:
    if all(float(value).is_integer() for value in values):
        return f"{statistics.median(values):g}", f"{min(values):g}-{max(values):g}"
    return f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, metavar="KIND:PATH", help="films with the label Pneumonia")
    add("--repeats", type=int, default=3, metavar="N")
    add("--trials", type=int, default=40, metavar="N", help="trials of each search")
    add("--naive-trials", type=int, metavar="N", help="trials of the naive glue, if other than --trials")
    add("--concurrent", type=int, metavar="N", help="trials at once, one core each (default: all cores)")
    add("--ours-only", action="store_true", help="leave the naive glue out")
    add(
        "--bare",
        action="store_true",
        help="train the same epochs again with nothing around: the ideal of a free machine",
    )
    add("--json", type=Path, metavar="FILE", help="write every figure and every epoch's times")
    add("--write", action="store_true", help="write benchmarks/orchestration.md")
    args = parser.parse_args()
    args.concurrent = args.concurrent or len(os.sched_getaffinity(0))
    args.naive_trials = args.naive_trials or args.trials
    if min(args.trials, args.naive_trials) <= args.concurrent:
        parser.error("a gap between trials needs more trials than run at once")
    return args


def main() -> None:
    args = parse()
    about = machine("torch", "ray", "optuna", "mlflow")
    name = parse_data_name(args.data)
    data = f"{name.kind}:{Path(name.path).resolve()}" if name.path else name.kind
    runs: dict[str, list[Run]] = {"ours": [], "naive": []}
    with tempfile.TemporaryDirectory(prefix="orchestration-") as place:
        os.environ["CXR_CACHE"] = f"{place}/films"
        (Path(place) / "space.yaml").write_text(SPACE)
        header = load_space(Path(place) / "space.yaml").header
        task = Task(header.task.kind, header.task.labels)
        prepared = prepare_data(name, header.data.policy, task, 0)
        for repeat in range(args.repeats):
            # Each of them goes first in turn: what else the machine does changes with time.
            for who in ("ours", "naive") if repeat % 2 == 0 else ("naive", "ours"):
                if who == "naive" and args.ours_only:
                    continue
                folder = Path(place) / f"{who}-{repeat}"
                folder.mkdir()
                if who == "ours":
                    run = run_ours(folder, data, args.trials, args.concurrent, repeat)
                else:
                    run = run_naive(folder, prepared, args.naive_trials, args.concurrent, repeat)
                if args.bare:
                    run = replace(run, bare=train_bare(run, prepared, args.concurrent))
                runs[who].append(run)
                print(f"{who} {repeat + 1}/{args.repeats}: {run.end - run.begin:.0f} s", file=sys.stderr, flush=True)
    tell(args, about, runs)


def tell(args: argparse.Namespace, about: str, runs: dict[str, list[Run]]) -> None:
    """Print the table, and write what was asked for."""
    measured = {who: [figures(run, args.concurrent) for run in of_one] for who, of_one in runs.items()}
    notes = [
        f"{args.concurrent} trials at once on one core each, {args.trials} trials a search. n is the number of "
        "repeats; a gap is taken in one slot (a worker process, or a place for one).",
    ]
    if not args.ours_only and args.naive_trials != args.trials:
        notes.append(
            f"The naive glue ran only {args.naive_trials} trials: compare ratios and figures per trial, not sums; its "
            "start weighs more in `wall / ideal`, and does not count in what begins with the first epoch."
        )
    title, tables = "Orchestration: what a search costs beyond its training", table(measured["ours"], measured["naive"])
    publish(__file__, title, about, *notes, tables, write=args.write)
    if args.json:
        content = {"about": about, "slots": args.concurrent, "figures": measured}
        content["runs"] = {who: [asdict(run) for run in of_one] for who, of_one in runs.items()}
        args.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
