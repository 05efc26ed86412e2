"""Our search policy against random search and Ray Tune's ASHA, replayed on a table of real trainings.

    python benchmarks/simulation.py ../shared/data/curves/alexnet_imagenet.jsonl --write

Ours are the classes of the search itself. The peer is Ray's own AsyncHyperBandScheduler in its default form (rungs at
1, 4, 16 and 64 epochs, the worse three quarters stopped) on the same trainings, in the same random order as our random
search, with the same recorded times. --keep names a file of finished searches, with which an interrupted benchmark
goes on.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rounds import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, too

from search.comparison import Row  # noqa: E402
from search.curve_table import CurveTable, Neighbours, read_table  # noqa: E402
from search.policies import RANDOM, TWICE, Policy, default_policy, read_policy  # noqa: E402
from search.simulation import Trajectory, simulate  # noqa: E402

PEER = "Ray ASHA, default"
MAIN = [RANDOM.name, default_policy().name, PEER, TWICE.name]
PARTS = ["random+promote", "tpe+none", "random+stop"]
"""Halves of our policy, and stopping in place of promotion: which part brings what."""


def policy_of(name: str) -> Policy:
    return {RANDOM.name: RANDOM, TWICE.name: TWICE}.get(name) or read_policy(name)


def ray_asha(table: CurveTable, *, seed: int, workers: int) -> Trajectory:
    """Random search under Ray's default ASHA; nothing is ever promoted, so it ends when every training was begun."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    mode, longest = "max" if table.maximize else "min", max(curve.schedule for curve in table.curves)
    asha = AsyncHyperBandScheduler(time_attr="epoch", metric=table.metric, mode=mode, max_t=longest)
    order = iter(_random_order(len(table.curves), seed))
    events: list[tuple[float, int, SimpleNamespace]] = []
    full: list[tuple[float, float]] = []

    def schedule(now: float, trial: SimpleNamespace) -> None:
        curve, done = trial.curve, trial.done
        lost = sum(curve.seconds) / len(curve.seconds) if curve.seconds else table.epoch_seconds
        heapq.heappush(
            events, (now + (curve.seconds[done] if done < len(curve.seconds) else lost), trial.number, trial)
        )

    def begin(now: float) -> None:
        if (row := next(order, None)) is not None:
            trial = SimpleNamespace(trial_id=str(row), number=row, curve=table.curves[row], done=0)
            asha.on_trial_add(None, trial)
            schedule(now, trial)

    for _ in range(workers):
        begin(0.0)
    while events:
        now, _, trial = heapq.heappop(events)
        if trial.done == len(trial.curve.values):  # it diverged: its process ends, and Ray hears nothing more of it
            begin(now)
            continue
        value = trial.curve.values[trial.done]
        trial.done += 1
        result = {"epoch": trial.done, table.metric: value}
        if trial.done == trial.curve.schedule:
            asha.on_trial_complete(None, trial, result)
            full.append((now, value))
            begin(now)
        elif asha.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            begin(now)
        else:
            schedule(now, trial)
    seconds, values = zip(*full, strict=True) if full else ((), ())
    return Trajectory(seconds, values)


def _random_order(count: int, seed: int) -> Iterator[int]:
    """The order in which the simulated random search takes trainings."""
    free = np.ones(count, dtype=bool)
    for number in range(count):
        row = int(np.random.default_rng((seed, number)).choice(np.flatnonzero(free)))
        free[row] = False
        yield row


def search(task: tuple[str, int], table: CurveTable, neighbours: Neighbours, workers: int) -> Trajectory:
    name, seed = task
    if name == PEER:
        return ray_asha(table, seed=seed, workers=workers)
    ends = {"until": 25 * table.mean_seconds, "target": table.best(0.01)}
    return simulate(table, neighbours, policy_of(name), seed=seed, workers=workers, **ends)


def trajectories(args: argparse.Namespace, table: CurveTable) -> dict[str, list[Trajectory]]:
    """Of each policy, a search a seed; what `--keep` holds is not run again."""
    found: dict[tuple[str, int], Trajectory] = {}
    if args.keep and args.keep.exists():
        for line in args.keep.read_text().splitlines():
            name, seed, seconds, values = json.loads(line)
            found[name, seed] = Trajectory(tuple(seconds), tuple(values))
    wanted = [(name, seed) for seed in range(args.seeds) for name in MAIN]
    wanted += [(name, seed) for seed in range(args.part_seeds) for name in PARTS]
    missing = [task for task in wanted if task not in found]
    work = partial(search, table=table, neighbours=Neighbours(table), workers=args.workers)
    with ProcessPoolExecutor(args.processes) as pool:
        for task, trajectory in zip(missing, pool.map(work, missing), strict=True):
            found[task] = trajectory
            if args.keep:
                with args.keep.open("a") as file:
                    print(json.dumps([*task, trajectory.seconds, trajectory.values]), file=file)
    return {name: [found[task] for task in wanted if task[0] == name] for name in dict(wanted)}


def markdown(rows: list[Row], title: str) -> str:
    lines = [f"| {title} | searches | top 1 % | top 2 % | missed top 1 % | missed top 2 % | regret at 5 / 10 / 25 |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        regret = " / ".join("none yet" if np.isinf(at.value) else f"{at.value:.4f}" for at in row.regret.values())
        one, two = (f"{s.value:.2f} ({s.low:.2f}-{s.high:.2f})" for s in (row.top1_speedup, row.top2_speedup))
        misses = f"{row.top1_missed:.1%} | {row.top2_missed:.1%}"
        lines.append(f"| {row.policy} | {row.searches} | {one} | {two} | {misses} | {regret} |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("table", type=Path, help="table of learning curves (JSON lines)")
    add("--metric")
    add("--seeds", type=int, default=200)
    add("--part-seeds", type=int, default=48, help="seeds of the policies that take our own apart")
    add("--workers", type=int, default=4)
    add("--processes", type=int, default=2)
    add("--keep", type=Path, metavar="FILE", help="finished searches (JSON lines)")
    add("--write", action="store_true", help="write benchmarks/simulation.md and .png")
    return parser.parse_args()


def main() -> None:
    args = parse()
    about = machine("ray", "optuna", "numpy")
    table = read_table(args.table, args.metric)
    found = trajectories(args, table)
    print(len(found), about)


if __name__ == "__main__":
    main()
