"""What `python -m search.status` shows: a search, or the life of one trial, on a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.durations import format_duration
from search.finals.record import read_record
from search.finals.words import headline
from search.life import in_words, life, sparkline
from search.overview import Overview, describe, figure
from search.trial import Trial

_IN_LINE = 5
"""Waiting trials of a rung that are named; --json has all."""


def overview_page(overview: Overview, last: int) -> Group:
    """The whole search; last: decisions to show."""
    return Group(*_overview(overview, last))


def life_page(overview: Overview, trial: Trial) -> Group:
    """One trial."""
    return Group(*_life(life(overview, trial), overview))


# The whole search


def _overview(overview: Overview, last: int) -> Iterator[RenderableType]:
    told = describe(overview, 0)
    yield _header(told, overview)
    if told["running"]:
        yield Text("\nrunning", style="bold")
        yield _running(told["running"], list(told["objectives"]))
    if told["waiting"]:
        yield Text("\nwaiting", style="bold")
        yield from _waiting(told["waiting"])
    if log := overview.log(last):
        yield Text("\nlast decisions", style="bold")
        yield _grid((_clock(d.at), f"trial {trial.name}", in_words(trial, d)) for trial, d in log)
    if told["failures"]:
        yield Text("\nfailures", style="bold")
        yield _grid(_failure(failure) for failure in told["failures"])


def _header(told: dict[str, Any], overview: Overview) -> Table:
    state = told["state"]
    word = state["is"] if state["is"] == "running" else f"{state['is']}: {state['why']}"
    if state["is"] == "stopped":
        folder = Path(told["study"]).resolve().name
        word += f"; to go on: python -m search.run --study {folder} --resume"
    counts = ", ".join(f"{count} {what}" for what, count in overview.counts().most_common()) or "none yet"
    rows = [
        ("study", f"{told['study']}  {word}"),
        ("searched", _searched(told)),
        ("budget", " · ".join(_budget(told["budget"]))),
        ("trials", counts),
        ("best", _best(told)),
    ]
    if record := read_record(overview.study.folder):
        winner = overview.trials[record["winner"]]
        rows.append(("finals", headline(record, f"{winner.number} ({winner.family})", record["metric"])[0]))
    if left := told["forecast"] and max(0.0, told["forecast"] - told["at"]):
        rows.insert(3, ("ends", f"about {_clock(told['forecast'])}, in {format_duration(left)}, if nothing changes"))
    if len(told["front"]) > 1:
        lines = [f"trial {row['trial']} ({_kind(row)}): {_values(row)}" for row in told["front"]]
        rows.append(("front", "\n".join(lines)))
    return _grid(rows)


def _searched(told: dict[str, Any]) -> str:
    labels = told["task"]["labels"]
    what = f"{len(labels)} findings" if len(labels) > 1 else labels[0]
    films = sum(count for part, count in told["data"]["films"].items() if part != "test")
    extreme = {"maximize": "highest", "minimize": "lowest"}
    goals = " and ".join(f"{extreme[direction]} {metric}" for metric, direction in told["objectives"].items())
    sign = {"min": "at least", "max": "at most"}
    bounds = [f"{name} {sign[kind]} {limit:g}" for name, b in told["constraints"].items() for kind, limit in b.items()]
    within = f" with {' and '.join(bounds)}" if bounds else ""
    data = f"{told['data']['name']} at {told['data']['image_size']} px, {films:,} films"
    return f"{what} on {data}; {goals}{within}; searcher {told['searcher']}"


def _budget(parts: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, part in parts.items():
        used, of = part["used"], part["of"]
        if name == "time":
            yield f"time {format_duration(used)} of {format_duration(of)}, {format_duration(max(0, of - used))} left"
        elif name == "target":
            yield f"target {of:g}, " + ("nothing in full yet" if used is None else f"reached {used:.4f}")
        elif name == "plateau":
            yield f"plateau {used} of {of} full trials without a better one"
        elif name == "gpu_hours":
            yield f"GPU-hours {used:.2f} of {of:g}, {max(0, of - used):.2f} left"
        else:
            yield f"{name} {used} of {of}, {max(0, of - used)} left"


def _best(told: dict[str, Any]) -> str:
    winner = told["winner"]
    if winner is None:
        return (
            "no trial has been trained in full within the constraints" if told["constraints"] else "no full trial yet"
        )
    return f"trial {winner['trial']} ({_kind(winner)}): {_values(winner)}"


def _kind(row: dict[str, Any]) -> str:
    return f"recipe {row['baseline']}" if row["baseline"] else row["model"]


def _values(row: dict[str, Any]) -> str:
    return ", ".join(f"{metric} {figure(value)}" for metric, value in row["values"].items())


def _running(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> Table:
    table = Table("trial", "model", box=None, pad_edge=False)
    for column in ("epoch", *metrics, "films/s"):
        table.add_column(column, justify="right")
    for row in rows:
        speed = f"{row['films_per_second']:,.0f}" if row["films_per_second"] else ""
        values = [figure(value) if value is not None else "" for value in row["values"].values()]
        table.add_row(_name(row), row["model"], f"{row['epoch']}/{row['epochs']}", *values, speed)
    return table


def _name(row: dict[str, Any]) -> str:
    if row["fold"] is not None:
        return f"{row['trial']} (as {row['repeats']}, fold {row['fold'] + 1})"
    if row["repeats"] is not None:
        return f"{row['trial']} (as {row['repeats']})"
    return f"{row['trial']} {row['baseline']}" if row["baseline"] else str(row["trial"])


def _waiting(rows: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    lines = []
    # Brackets of Hyperband wait at rungs of their own, with places of their own.
    for (rung, cohort), here in groupby(rows, key=lambda row: (row["rung"], row["of"])):
        waiting = list(here)
        named = [f"trial {row['trial']}, place {row['place']}: {_values(row)}" for row in waiting[:_IN_LINE]]
        named += [f"and {len(waiting) - _IN_LINE} more"] if len(waiting) > _IN_LINE else []
        passed = f"{waiting[0]['go_on']} of {cohort} go on"
        lines.append((f"rung {rung + 1}", f"at {waiting[0]['at']:.0%}", passed, "; ".join(named)))
    yield _grid(lines)


def _failure(failure: dict[str, Any]) -> tuple[str, str, str]:
    numbers = ", ".join(map(str, failure["trials"][:_IN_LINE])) + (", ..." if failure["trials"][_IN_LINE:] else "")
    where = f"\n{failure['error']}" if failure["error"] else ""
    return failure["class"], f"{len(failure['trials'])} x", f"{failure['reason']} (trial {numbers}){where}"


# One trial


def _life(told: dict[str, Any], overview: Overview) -> Iterator[RenderableType]:
    trial = overview.trials[told["trial"]]
    metric, curve = overview.objective.metrics[0], told["curve"]
    kept = f"{told['checkpoint']}" if told["checkpoint"] else "not kept"
    rows = [
        ("trial", f"{trial.name}  {trial.family}  {told['state']}" + (f": {told['reason']}" if told["reason"] else "")),
        ("epochs", f"{len(curve)} of {told['epochs']}, {format_duration(told['seconds'])} of training"),
        ("seed", f"{told['seed']}, {told['attempts']} legs lost"),
        ("checkpoint", kept),
    ]
    if curve:
        best = max(curve) if overview.objective.maximize[0] else min(curve)
        values = f"{metric} {curve[0]:.4f} to {curve[-1]:.4f}, best {best:.4f} in epoch {curve.index(best) + 1}"
        rows.insert(2, ("curve", f"{sparkline(curve)}  {values}"))
    if told["broken"]:
        rows.append(("violates", "; ".join(told["broken"])))
    if told["seeds"]:
        seeds = ", ".join(f"trial {number} {figure(value)}" for number, value in told["seeds"].items())
        rows.append(("other seeds", seeds))
    if told["error"]:
        rows.append(("error", told["error"]))
    yield _grid(rows)
    yield from _compared(told)
    yield Text("\ndecisions", style="bold")
    yield _grid((_clock(decision["at"]), decision["words"]) for decision in told["decisions"])


def _compared(told: dict[str, Any]) -> Iterator[RenderableType]:
    against, differs = told["against"], told["differs"]
    heading = "\nconfiguration" if against is None else f"\nconfiguration, against that of trial {against}"
    yield Text(heading, style="bold")
    yield _grid((key, _parameter(mine), f"there {_parameter(theirs)}") for key, (mine, theirs) in differs.items())
    same = [f"{key} {_parameter(value)}" for key, value in told["config"].items() if key not in differs]
    if same:
        yield Text(("the same: " if against is not None else "") + ", ".join(same))


def _parameter(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _grid(rows: Iterable[Sequence[str]]) -> Table:
    """Columns without lines, of which the last one wraps."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        while len(table.columns) < len(row):
            table.add_column(no_wrap=len(table.columns) < len(row) - 1)
        table.add_row(*map(Text, row))
    return table


def _clock(at: float) -> str:
    """The time of a day, with its date if that is not today."""
    when = datetime.fromtimestamp(at)
    return f"{when:%X}" if when.date() == datetime.now().date() else f"{when:%Y-%m-%d %X}"
