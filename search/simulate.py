"""The command `python -m search.simulate`: what other policies would have cost, replayed on finished trainings."""

import argparse
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.exit_codes import DONE, KILLED, USAGE

if TYPE_CHECKING:
    from search.comparison import Comparison
    from search.curve_table import CurveTable
    from search.policies import Policy
    from search.simulation import Trajectory

log = logging.getLogger("search.simulate")  # run as a program, this module is __main__

_PLOTS = (".png", ".html")
_FEW = 100
"""Trainings below which the best 1 % is a single one, and chance decides when it is found."""


def main(argv: list[str] | None = None) -> int:
    """Replay a table through policies; returns the exit code."""
    args = parse(argv)
    # seconds to import: not for --help or a mistyped option
    from cxr_core.console import show_log
    from search.comparison import Comparison
    from search.curve_table import TableError
    from search.policies import PolicyError

    show_log("search.simulate")
    try:
        table, policies = _table(args), _policies(args.policy)
    except (TableError, PolicyError) as mistake:
        print(mistake, file=sys.stderr)
        return USAGE
    for line in _about(table):
        log.info(line)
    try:
        found = run(table, policies, args.seeds, args.workers, args.processes)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return KILLED
    comparison = Comparison(table, found)
    print(json.dumps(describe(comparison, args))) if args.json else _print(comparison, args)
    return _plot(comparison, args)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake in it ends the program with exit code 2."""
    about = (
        "Replays finished trainings through the classes that run a search, to tell how long other policies would have "
        "needed. Random search, and random search with twice the workers, always run beside them."
    )
    parser = argparse.ArgumentParser("python -m search.simulate", description=about, allow_abbrev=False)
    add = parser.add_argument
    add("table", metavar="TABLE", help="table of learning curves (JSON lines), or a study's name or folder")
    policy = "such as tpe+promote, random+stop:eta=3,rungs=0.1/0.3, or a space file; may be given several times"
    add("--policy", action="append", metavar="POLICY", help=f"{policy} (default: that of a space file without one)")
    add("--metric", metavar="NAME", help="what is searched (default: a study's objective, a table's first non-loss)")
    add("--seeds", type=_count, default=200, metavar="N", help="searches of each policy (default: 200)")
    add("--workers", type=_count, default=4, metavar="N", help="trainings at once (default: 4)")
    cores = len(os.sched_getaffinity(0))
    add("--processes", type=_count, default=cores, metavar="N", help=f"searches at once (default: {cores}, the cores)")
    add("--plot", type=_picture, metavar="FILE", help="picture, .png or .html (default: simulation-NAME.png here)")
    add("--json", action="store_true", help="print the result as one JSON object")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}")
    return int(text)


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _PLOTS:
        raise argparse.ArgumentTypeError(f"must end in {' or '.join(_PLOTS)}, not {text!r}")
    if not path.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _table(args: argparse.Namespace) -> "CurveTable":
    from search.curve_table import TableError, read_table, table_of_study
    from search.study import STUDIES

    path, study = Path(args.table), STUDIES / args.table
    if path.is_file():
        return read_table(path, args.metric)
    folder = study if study.is_dir() else path
    if not folder.is_dir():
        raise TableError(f"{args.table}: there is no such table, nor a study of that name in {STUDIES}/")
    return table_of_study(folder, args.metric)


def _policies(texts: Sequence[str] | None) -> "list[Policy]":
    """The references first; a policy named twice, or named as a reference is, runs once."""
    from search.policies import RANDOM, TWICE, default_policy, read_policy

    asked = [read_policy(text) for text in texts] if texts else [default_policy()]
    unique: dict[Any, Policy] = {}
    for policy in (RANDOM, TWICE, *asked):
        unique.setdefault((policy.searcher, policy.asha, policy.parallel), policy)
    return list(unique.values())


def _about(table: "CurveTable") -> Iterator[str]:
    """What a reader must know of the table before the figures."""
    from search.curve_table import RECORD
    from search.durations import format_duration

    diverged = sum(curve.diverged for curve in table.curves)
    full, spent = len(table.curves) - diverged, format_duration(table.mean_seconds)
    yield f"{table.name}: {full} trainings in full, {spent} each on average, and {diverged} that diverged"
    if table.repeated:
        yield f"{table.repeated} trainings are left out: others have the same configuration"
    if table.cut_short:
        yield (
            f"{table.cut_short} trials of the study were pruned, and nobody knows how they would have ended; what is "
            f"left was chosen by a search, and is better than what one draws: speed-ups come out wrong. {RECORD}"
        )
    if len(table.curves) < _FEW:
        yield f"{len(table.curves)} trainings are few: the best 1 % is a single one, and the figures are rough"


def run(
    table: "CurveTable", policies: "Sequence[Policy]", seeds: int, workers: int, processes: int
) -> "dict[str, list[Trajectory]]":
    """Simulate searches of every policy, over several processes."""
    found: dict[str, list[Trajectory]] = {}
    with _pool(table, workers, processes) as pool, _bar(len(policies) * seeds) as advance:
        searches = {policy.name: [pool.submit(_search, policy, seed) for seed in range(seeds)] for policy in policies}
        for name, futures in searches.items():
            started, found[name] = time.monotonic(), []
            for future in futures:
                found[name].append(future.result())
                advance()
            log.info("%s: %d searches, %.0f s", name, seeds, time.monotonic() - started)
    return found


@contextmanager
def _pool(table: "CurveTable", workers: int, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that hold the table; whatever ends this, they end at once."""
    # A server that forks has no threads, as this process may have, and its children find everything imported.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["search.comparison"])
    pool = ProcessPoolExecutor(processes, context, _begin, (table, workers))
    try:
        yield pool
    finally:
        workers_left = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in workers_left:
            process.terminate()


_searching: dict[str, Any] = {}
"""What every search of this process shares, so that it is sent here once."""


def _begin(table: "CurveTable", workers: int) -> None:
    from search.comparison import HORIZONS, TOP1
    from search.curve_table import Neighbours

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    ends = {"until": HORIZONS[-1] * table.mean_seconds, "target": table.best(TOP1)}
    _searching.update(table=table, neighbours=Neighbours(table), workers=workers, **ends)


def _search(policy: "Policy", seed: int) -> "Trajectory":
    from search.simulation import simulate

    return simulate(policy=policy, seed=seed, **_searching)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cxr_core.console import console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("simulated searches", total=total)
        yield lambda: bar.advance(task)


def describe(comparison: "Comparison", args: argparse.Namespace) -> dict[str, Any]:
    """The comparison as JSON takes it; what is infinite (missed in most searches, no full training yet) is null."""
    from cxr_core.scorecard import finite  # seconds to import

    table = comparison.table
    rows = {}
    for row in comparison.rows():
        one, two = row.top1_speedup, row.top2_speedup
        rows[row.policy] = {
            "top1_speedup": finite(one.value),
            "top1_speedup_interval": [finite(one.low), finite(one.high)],
            "top2_speedup": finite(two.value),
            "top2_speedup_interval": [finite(two.low), finite(two.high)],
            "top1_missed": row.top1_missed,
            "top2_missed": row.top2_missed,
            "regret": {str(at): finite(estimate.value) for at, estimate in row.regret.items()},
            "regret_interval": {str(at): [finite(e.low), finite(e.high)] for at, e in row.regret.items()},
        }
    return {
        "table": str(args.table),
        "metric": table.metric,
        "trainings": len(table.curves),
        "diverged": sum(curve.diverged for curve in table.curves),
        "cut_short": table.cut_short,
        "mean_training_seconds": table.mean_seconds,
        "seeds": args.seeds,
        "workers": args.workers,
        "reference": comparison.policies[0],
        "policies": rows,
    }


def _print(comparison: "Comparison", args: argparse.Namespace) -> None:
    from rich.console import Console

    from search.comparison_table import comparison_table, conclusion

    answer = Console()
    if not answer.is_terminal:
        answer = Console(width=140)
    answer.print(comparison_table(comparison, args.seeds, args.workers))
    answer.print(conclusion(comparison), soft_wrap=True, highlight=False)


def _plot(comparison: "Comparison", args: argparse.Namespace) -> int:
    from search.simulation_plot import draw

    path = args.plot or Path(f"simulation-{comparison.table.name}.png")
    try:
        draw(comparison, path)
    except OSError as fault:
        print(
            f"{path}: the picture cannot be written ({fault.strerror}); choose another place: --plot", file=sys.stderr
        )
        return USAGE
    log.info("picture: %s", path.resolve())
    return DONE


if __name__ == "__main__":
    sys.exit(main())
