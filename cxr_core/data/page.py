"""The page of a prepared data set: what it holds, how its splits differ, and some of its films, in one HTML file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_core.data.contact_sheet import Picture, contact_sheet
from cxr_core.data.policy import DataPolicy
from cxr_core.data.preparation import PARTS, PreparedData
from cxr_core.html_page import write_html
from cxr_core.labels import NO_FINDING

_UNREADABLE, _MISSING = 100, 20
"""Films that the page names."""
_KINDS = 8
"""Views or sexes that are told apart; a data set of its own may have any number."""
_OLDEST = 120
"""Years; a greater age is a mistake of the table."""


def write_page(prepared: PreparedData, path: Path) -> None:
    """Write the page of a prepared data set. Of the test films it shows pictures, but not what is on which."""
    write_html(path, "cxr_core.data", "page.html.j2", _content(prepared), percent=percent)


def percent(share: float) -> str:
    """A share with enough digits to tell rare findings apart, such as `18.2 %` or `0.20 %`."""
    digits = f"{100 * share:.1f}" if 0.01 <= share < 1 else f"{100 * share:#.2g}"
    return f"{digits if share not in (0, 1) else round(100 * share)}\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Count:
    """Some of a number of films or patients."""

    count: int
    of: int

    @property
    def share(self) -> float | None:
        """None of nothing."""
        return self.count / self.of if self.of else None


@dataclass(frozen=True)
class Row:
    """A line of a chart: a label or category, and its count in each split."""

    name: str
    counts: tuple[Count, ...]


@dataclass(frozen=True)
class Axis:
    """A horizontal axis of shares; from a share that is not 0 it is logarithmic, up to 100 %."""

    start: float

    @classmethod
    def decades(cls, rows: Iterable[Row]) -> "Axis":
        """The logarithmic axis on which the rarest of the rows still has a place."""
        least = min((row.share for line in rows for row in line.counts if row.share), default=0.1)
        return cls(10.0 ** min(-1, floor(log10(least))))

    @property
    def ticks(self) -> list[float]:
        """Shares at equal distances."""
        if not self.start:
            return [0, 0.25, 0.5, 0.75, 1]
        return [10.0**power for power in range(round(log10(self.start)), 1)]

    def place(self, share: float) -> float:
        """Where a share lies, from 0 to 1."""
        return 1 - log10(share) / log10(self.start) if self.start else share


def _content(prepared: PreparedData) -> dict[str, Any]:
    """Everything the template asks for."""
    films = prepared.films
    parts = {part: rows for part in PARTS if len(rows := films[films["split"] == part])}
    labels = [Row(label, tuple(_positive(rows, label) for rows in parts.values())) for label in prepared.labels]
    labels.sort(key=lambda row: -(row.counts[0].share or 0))
    return {
        "prepared": prepared,
        "facts": prepared.facts,
        "splits": _splits(prepared.policy),
        "parts": {part: Count(len(rows), rows["patient"].nunique()) for part, rows in parts.items()},
        "labels": labels,
        "decades": Axis.decades(labels),
        "shares": Axis(0),
        "absent": _absent(prepared.task.labels, parts),
        "together": _together(prepared.development, prepared.labels),
        "categories": {kind: _categories(parts, kind) for kind in ("view", "sex") if _known(films, kind)},
        "ages": _ages(parts) if _known(films, "age") else {},
        "untold": [kind for kind in ("view", "sex", "age") if not _known(films, kind)],
        "per_patient": _per_patient(parts),
        "sheets": _sheets(prepared, parts),
        "unreadable": prepared.unreadable[:_UNREADABLE].to_dict("records"),
        "missing": prepared.missing[:_MISSING],
    }


def _known(films: pd.DataFrame, column: str) -> bool:
    return column in films.columns and bool(films[column].notna().any())


def _splits(policy: DataPolicy) -> str:
    validation = f"validation {100 * policy.validation:g}\N{NO-BREAK SPACE}%"
    if policy.folds:
        validation = f"validation is fold {policy.fold} of the {policy.folds} from 0 to {policy.folds - 1}"
    drawn = f"drawn by patient: {validation}, test {100 * policy.test:g}\N{NO-BREAK SPACE}%"
    return drawn if policy.split == "random" else f"as published; what is not published is {drawn}"


def _positive(films: pd.DataFrame, label: str) -> Count:
    return Count(int((films[label] == 1).sum()), int(films[label].notna().sum()))


def _absent(labels: Sequence[str], parts: dict[str, pd.DataFrame]) -> list[tuple[str, list[str]]]:
    """The splits in which a label has no positives, and those labels."""
    absent = [(part, [name for name in labels if not _positive(rows, name).count]) for part, rows in parts.items()]
    return [(part, names) for part, names in absent if names]


@dataclass(frozen=True)
class Company:
    """A finding's films, those with no other finding, and for each finding: how many have it, of how many that tell."""

    label: str
    films: int
    alone: int
    others: list[Count]


def _together(films: pd.DataFrame, labels: Sequence[str]) -> list[Company]:
    """The findings and what they come with, the most frequent first in both; empty unless there are two findings."""
    findings = films[[label for label in labels if label != NO_FINDING]]
    if findings.shape[1] < 2:
        return []
    findings = findings[(findings == 1).sum().sort_values(ascending=False, kind="stable").index]
    present, known = (findings == 1).to_numpy(np.int64), findings.notna().to_numpy(np.int64)
    both, told = present.T @ present, present.T @ known
    alone = present[present.sum(axis=1) == 1].sum(axis=0)
    return [
        Company(label, int(both[row, row]), int(alone[row]), list(map(Count, both[row].tolist(), told[row].tolist())))
        for row, label in enumerate(findings.columns)
    ]


def _categories(parts: dict[str, pd.DataFrame], column: str) -> list[Row]:
    """The most frequent values of a column with their films in each split, then all others, then the unknown."""
    values = {part: rows[column].astype(object).where(rows[column].notna(), None) for part, rows in parts.items()}
    frequent = pd.concat(values.values()).value_counts().index[:_KINDS]
    rows = [Row(str(kind), tuple(Count(int((v == kind).sum()), len(v)) for v in values.values())) for kind in frequent]
    unknown = Row("unknown", tuple(Count(int(v.isna().sum()), len(v)) for v in values.values()))
    told = [[row.counts[column].count for row in (*rows, unknown)] for column in range(len(values))]
    other = Row("other", tuple(Count(len(v) - sum(n), len(v)) for v, n in zip(values.values(), told, strict=True)))
    return [*rows, *(row for row in (other, unknown) if any(one.count for one in row.counts))]


@dataclass(frozen=True)
class Ages:
    """Ages of a split's films in years.

    bands: name of an age band, and its films by column of the chart. quartiles: None if no age is known.
    """

    bands: list[tuple[str, list[Count]]]
    quartiles: tuple[float, float, float] | None
    unknown: int
    without_sex: int


def _ages(parts: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """The chart of ages: names of its columns, the largest share that it shows, and each split's ages."""
    ages = {part: pd.to_numeric(rows["age"], errors="coerce") for part, rows in parts.items()}
    told = {part: rows[ages[part] >= 0] for part, rows in parts.items()}
    sexed = any(_of_sex(rows, letter).any() for rows in told.values() for letter in "FM")
    columns = {"women": "F", "men": "M"} if sexed else {"films": ""}
    splits = {part: _split_ages(told[part], len(rows), list(columns.values())) for part, rows in parts.items()}
    bands = [one.bands for one in splits.values()]
    used = [row for split in bands for row, (_, counts) in enumerate(split) if any(one.count for one in counts)]
    for split in bands:
        del split[max(used, default=0) + 1 :]
    widest = max(one.share or 0 for split in bands for _, counts in split for one in counts)
    return {"columns": list(columns), "widest": widest, "parts": splits} if used else {}


def _split_ages(told: pd.DataFrame, films: int, sexes: list[str]) -> Ages:
    ages = told["age"].astype(float)
    edges = [*range(0, 100, 10), _OLDEST, np.inf]
    names = [*(f"{age}-{age + 9}" for age in range(0, 90, 10)), f"90-{_OLDEST - 1}", f"{_OLDEST} or more"]
    masks = [_of_sex(told, sex) for sex in sexes]
    bars = [np.histogram(ages[mask], edges)[0].tolist() for mask in masks]
    quartiles = ages.quantile([0.25, 0.5, 0.75]).tolist()
    return Ages(
        bands=[(name, [Count(count, films) for count in band]) for name, *band in zip(names, *bars, strict=True)],
        quartiles=(quartiles[0], quartiles[1], quartiles[2]) if len(ages) else None,
        unknown=films - len(ages),
        without_sex=len(ages) - sum(int(mask.sum()) for mask in masks),
    )


def _of_sex(films: pd.DataFrame, letter: str) -> pd.Series:
    """Which films are of a sex that is written F, f or female; all films if no letter is given."""
    if not letter:
        return pd.Series(True, films.index)
    if "sex" not in films.columns:
        return pd.Series(False, films.index)
    return films["sex"].astype(str).str.upper().str.startswith(letter)


def _per_patient(parts: dict[str, pd.DataFrame]) -> list[Row]:
    """Patients of each split by the number of their films; empty if none has two."""
    films = {part: rows["patient"].value_counts() for part, rows in parts.items()}
    if all((counts == 1).all() for counts in films.values()):
        return []
    bands = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5-9": (5, 9), "10-19": (10, 19), "20 or more": (20, np.inf)}
    rows = [
        Row(name, tuple(Count(int(n.between(*ends).sum()), len(n)) for n in films.values()))
        for name, ends in bands.items()
    ]
    return [row for row in rows if any(one.count for one in row.counts)]


def _sheets(prepared: PreparedData, parts: dict[str, pd.DataFrame]) -> dict[str, list[Picture]]:
    """Pictures of each split; those of the test are drawn and given without their labels, for it is sealed."""
    sheets = {}
    for part, rows in parts.items():
        if part != "test":
            sheets[part] = contact_sheet(rows, prepared.cache, prepared.labels, prepared.task.labels)
        elif prepared.test_cache:
            sheets[part] = contact_sheet(rows, prepared.test_cache, labels=(), shown=())
    return sheets
