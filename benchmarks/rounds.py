"""Rounds of a benchmark: what is compared runs in turn, and is told with its spread and its machine."""

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

Ways = dict[str, Callable[[], float]]
"""What is compared: a function that does the work and gives its seconds."""
Seconds = dict[str, list[float]]


def interleaved(ways: Ways, rounds: int) -> Seconds:
    """Seconds of each way in each round; the first way of a round is another each time."""
    names, found = list(ways), {name: [] for name in ways}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(ways[name]())
    return found


def timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


def table(head: str, rows: list[tuple[str, list[float], str]], digits: int = 0) -> str:
    """Markdown: n, median and range of each row's values, and what is said of it."""
    lines = [f"| {head} | n | median | min-max | |", "|---|---:|---:|---:|---|"]
    for name, values, remark in rows:
        middle, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
        lines.append(f"| {name} | {len(values)} | {middle} | {low}-{high} | {remark} |")
    return "\n".join(lines)


def rates(seconds: Seconds, films: int) -> Seconds:
    return {name: [films / value for value in values] for name, values in seconds.items()}


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the rounds' ratios: what else the machine does changes from round to round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def machine(*packages: str) -> str:
    """Versions and machine in one line."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    software = ", ".join([f"Python {platform.python_version()}", *versions])
    return f"{software}; {cores} cores of {cpu}; load average at the start {load:.1f}"


def publish(script: str, title: str, about: str, *parts: str, write: bool) -> None:
    """Print a benchmark's page, with its command, day and load. write: keep it beside the script, as Markdown."""
    path = Path(script)
    command = " ".join([f"python -m benchmarks.{path.stem}", *sys.argv[1:]])
    day = f"{time.strftime('%Y-%m-%d')}; {about}, at the end {os.getloadavg()[0]:.1f} (the benchmark's own included)"
    page = "\n\n".join([f"# {title}", f"`{command}`", day, *(part.strip("\n") for part in parts)])
    print(page)
    if write:
        path.with_suffix(".md").write_text(page + "\n")
