"""Our search policy against random search and Ray Tune's ASHA, replayed on tables of real trainings.

    python -m benchmarks.simulation ../shared/data/curves/alexnet_imagenet.jsonl benchmarks/tables/*.jsonl --write

Ours are the classes of the search itself. The peer is Ray's own AsyncHyperBandScheduler in its default form (rungs at
1, 4, 16 and 64 epochs, the worse three quarters stopped) on the same trainings, in the same random order as our random
search, with the same recorded times. --keep names a file of finished searches, with which an interrupted benchmark
goes on.
"""

import argparse
import heapq
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.rounds import machine, publish
from search.comparison import TOP1, Comparison, Row
from search.comparison_table import conclusion, speedup
from search.curve_table import CurveTable, Neighbours, read_table
from search.policies import RANDOM, TWICE, Policy, default_policy, read_policy
from search.simulation import Trajectory, simulate
from search.simulation_plot import draw

PEER = "Ray ASHA, default"
MAIN = [RANDOM.name, TWICE.name, default_policy().name, PEER]
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
    found = kept(args.keep, table.name)
    wanted = [(name, seed) for seed in range(args.seeds) for name in MAIN]
    wanted += [(name, seed) for seed in range(args.part_seeds) for name in PARTS]
    missing = [task for task in wanted if task not in found]
    work = partial(search, table=table, neighbours=Neighbours(table), workers=args.workers)
    with ProcessPoolExecutor(args.processes) as pool:
        for task, trajectory in zip(missing, pool.map(work, missing), strict=True):
            found[task] = trajectory
            if args.keep:
                with args.keep.open("a") as file:
                    print(json.dumps([table.name, *task, trajectory.seconds, trajectory.values]), file=file)
    return {name: [found[task] for task in wanted if task[0] == name] for name in dict(wanted)}


def kept(path: Path | None, table: str) -> dict[tuple[str, int], Trajectory]:
    lines = path.read_text().splitlines() if path and path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row[1], row[2]): Trajectory(tuple(row[3]), tuple(row[4])) for row in rows if row[0] == table}


def section(comparison: Comparison, workers: int) -> str:
    """One table's figures, in Markdown."""
    table = comparison.table
    diverged = sum(curve.diverged for curve in table.curves)
    about = f"{len(table.curves)} trainings, {diverged} of them diverged, {workers} workers, metric {table.metric}"
    head = ["policy", "searches", "median time to top 1 %", "top 1 %: times faster", "top 2 %: times faster"]
    head += ["missed 1 %", "missed 2 %", "regret at 5", "at 10", "at 25"]
    lines = [f"## {table.name}", "", f"{about}.", "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [f"| {' | '.join(cells(row, comparison))} |" for row in comparison.rows()]
    return "\n".join([*lines, "", conclusion(comparison), ""])


def cells(row: Row, comparison: Comparison) -> list[str]:
    time = float(np.median(comparison.times[TOP1][row.policy])) / comparison.table.mean_seconds
    faster = [speedup(estimate) for estimate in (row.top1_speedup, row.top2_speedup)]
    regret = ["no model yet" if np.isinf(at.value) else f"{at.value:.4f}" for at in row.regret.values()]
    missed = [f"{share:.1%}" for share in (row.top1_missed, row.top2_missed)]
    return [row.policy, str(row.searches), "never" if np.isinf(time) else f"{time:.1f}", *faster, *missed, *regret]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("tables", type=Path, nargs="+", help="tables of learning curves (JSON lines)")
    add("--seeds", type=int, default=200)
    add("--part-seeds", type=int, default=48, help="seeds of the policies that take our own apart")
    add("--workers", type=int, default=4)
    add("--processes", type=int, default=2)
    add("--keep", type=Path, metavar="FILE", help="finished searches (JSON lines)")
    add("--write", action="store_true", help="write benchmarks/simulation.md, and simulation.png of the first table")
    return parser.parse_args()


INTRODUCTION = """Times are in mean training times of the table. Times faster: ratio of the median times until a full
training is among the best 1 % (2 %) of the table, to random search, with 95 % intervals (bootstrap over seeds); a
search that never gets there counts as infinitely slow. Regret: what the best full training so far lacks of the best."""

CHOICE = """## What chose what

The defaults (tpe, promote, rungs at 5 % and 20 %, eta 4) were chosen on alexnet_imagenet, so its figures are the
optimistic ones. The tables of `record_curves.py` were recorded afterwards and chose nothing: tiny networks, on
1,000 films of nih_mini and on PneumoniaMNIST. They are small (69 and 45 trainings: the best 1 % and the best 2 % are
both the single best), their schedules are short (4 to 16 epochs), and nothing in them diverged. On PneumoniaMNIST the
validation AUROC is saturated: the single best is 0.0001 ahead, which is noise, and whoever stops trainings early passes
it by. (All trainings of these two tables were drawn at random and went to their ends: what their spaces name as the
objective decided nothing.)"""


def main() -> None:
    args = parse()
    about, comparisons = machine("ray", "optuna", "numpy"), []
    for path in args.tables:
        table = read_table(path)
        comparisons.append(Comparison(table, trajectories(args, table)))
    sections = [section(comparison, args.workers) for comparison in comparisons]
    publish(__file__, "Simulated searches", about, INTRODUCTION, *sections, CHOICE, write=args.write)
    if args.write:
        draw(comparisons[0], Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
