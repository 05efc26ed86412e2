"""What `python -m search.finalize` shows: the finalists side by side, and what their differences mean."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.finals import ensemble_words
from search.finals.words import averaged, differs, opened, optimism, p_value, ranking, reached


def finals_page(
    record: Mapping[str, Any], report: object, ensemble: Mapping[str, Any] | None = None, refit: str = ""
) -> Group:
    """A result as a person reads it.

    record: as `finalists.json` has it, ensemble: as `ensemble.json`. refit: what can be said of it, if there is one.
    """
    return Group(*_page(record, report, ensemble, refit))


def _page(
    record: Mapping[str, Any], report: object, ensemble: Mapping[str, Any] | None, refit: str
) -> Iterator[RenderableType]:
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
    for said in (ranking(record), averaged(record)):
        if said:
            yield Text(said)
    if ensemble:
        words = ensemble_words
        yield Text("\n".join(["", *ensemble["sentences"], words.of_votes(ensemble), words.optimism(ensemble), ""]))
    if refit:
        yield Text(f"{refit}\n")
    yield Text(opened(record["openings"]))
    yield Text(f"report   {report}")
