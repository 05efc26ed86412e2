"""What `python -m search.finalize` shows: the finalists side by side, and what their differences mean."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.finals_record import in_words


def finals_page(record: Mapping[str, Any], report: object) -> Group:
    """A result as a person reads it; record: as `finalists.json` has it."""
    return Group(*_page(record, report))


def _page(record: Mapping[str, Any], report: object) -> Iterator[RenderableType]:
    metric = record["metric"]
    yield Text(f"\nfinalists by validation {metric}: mean over seeds ± their deviation [95 % interval over patients]")
    table = Table("trial", "model", box=None, pad_edge=False)
    for column in ("seeds", "validation", "test", "test, minus the winner's", "p"):
        table.add_column(column, justify="right" if column in ("seeds", "p") else "left")
    for row in record["finalists"]:
        difference = row["test"]["difference"]
        name = f"{row['trial']} {row['baseline'] or ''}".strip()
        table.add_row(
            name,
            row["model"],
            str(len(row["trainings"])),
            reached(row["validation"]),
            reached(row["test"]),
            differs(difference) if difference else "the winner" if row["trial"] == record["winner"] else "",
            p_value(difference) if difference else "",
            style="bold" if row["trial"] == record["winner"] else None,
        )
    yield table
    yield Text("")
    yield Text(record["sentence"])
    for warning in record["warnings"]:
        yield Text(warning, style="yellow")
    yield Text(optimism(record))
    if agreement := ranking(record):
        yield Text(agreement)
    yield Text(opened(record["openings"]))
    yield Text(f"report   {report}")


def reached(side: Mapping[str, Any]) -> str:
    """Mean, spread and interval of a finalist on one split."""
    spread = "" if side["sd"] is None else f" ± {in_words(side['sd'])}"
    return f"{in_words(side['mean'])}{spread} [{in_words(side['low'])}, {in_words(side['high'])}]"


def differs(difference: Mapping[str, Any]) -> str:
    """A difference, its interval, and whether it is noise."""
    low, high = in_words(difference["low"], signed=True), in_words(difference["high"], signed=True)
    verdict = ", within noise" if difference["is_noise"] else ""
    return f"{in_words(difference['value'], signed=True)} [{low}, {high}]{verdict}"


def p_value(difference: Mapping[str, Any]) -> str:
    """The corrected p of a difference."""
    p = difference["p_holm"]
    return "-" if p is None else f"{p:.3f}"


def optimism(record: Mapping[str, Any]) -> str:
    """How much lower the winner came out on test than on validation."""
    gap = record["gap"]
    if gap["value"] is None:
        return f"The {record['metric']} of the winner is undefined on one of the splits, so its optimism is unknown."
    low, high = in_words(gap["low"], signed=True), in_words(gap["high"], signed=True)
    how = "Optimism gap of the winner (how much worse test is than validation)"
    return f"{how}: {in_words(gap['value'], signed=True)} [{low}, {high}]."


def ranking(record: Mapping[str, Any]) -> str:
    """How well validation ranked the finalists; empty where there are too few to tell."""
    told = record["ranking"]
    if told["spearman"] is None:
        return ""
    said = f"Spearman {told['spearman']:.2f}, Kendall {told['kendall']:.2f}"
    return f"Validation ranked the {len(record['finalists'])} finalists as test does with a correlation of: {said}."


def opened(openings: list[Mapping[str, Any]]) -> str:
    """How often the test split was opened."""
    return f"The test split was opened {'once' if len(openings) == 1 else f'{len(openings)} times'}."
