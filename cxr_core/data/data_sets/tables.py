"""Tables in CSV files: every cell as text, every row with the line it stands on, and errors that say where."""

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_core.data.source import DataError

_OLDEST = 120  # years


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without byte order mark. Raises DataError, naming line and byte, if it is not."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; a text file is expected") from None
    except OSError as fault:
        raise DataError(f"{path}: cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError as fault:
        line = fault.object[: fault.start].count(b"\n") + 1
        raise DataError(
            f"{path}: line {line}: not UTF-8 (byte {fault.start} of the file); save it again with UTF-8 encoding"
        ) from None


def read_table(path: Path, needed: Sequence[str], filled: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a CSV file as text without surrounding blanks; the index is the line on which a row begins.

    needed: columns that must be there. filled: columns that must be there and have no empty cell.
    Columns without a name are left out, as are rows without content. Raises DataError if the table is none.
    """
    rows = list(_rows(path, read_text(path)))
    if not rows:
        raise DataError(f"{path}: is empty; a table with the columns {', '.join([*filled, *needed])} is expected")
    (_, header), *body = rows
    while header and not header[-1]:
        header.pop()
    _check_header(path, header, [*filled, *needed])
    if not body:
        raise DataError(f"{path}: has a header but no rows")
    width = len(header)
    for line, row in body:
        if len(row) < width or any(row[width:]):
            raise DataError(f"{path}: line {line}: {len(row)} cells instead of {width}; the row is torn or misquoted")
    cells = pd.DataFrame(
        [row[:width] for _, row in body], columns=header, index=pd.Index([line for line, _ in body]), dtype=str
    )
    for column in filled:
        if (empty := cells[column] == "").any():
            raise DataError(f"{path}: line {first_line(empty)}: {column!r} is empty; every row needs it")
    return cells.loc[:, [name for name in header if name]]


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line on which each begins; a quoted cell may run over several lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            stripped = list(map(str.strip, row))
            if any(stripped):
                yield line, stripped
            line = reader.line_num + 1
    except csv.Error as fault:
        raise DataError(f"{path}: line {line}: the row is torn or misquoted ({fault})") from None


def _check_header(path: Path, header: list[str], needed: list[str]) -> None:
    found = [name for name in header if name]
    if again := sorted({name for name in found if found.count(name) > 1}):
        raise DataError(f"{path}: line 1: column {again[0]!r} is there twice; remove or rename one")
    for name in needed:
        if name in found:
            continue
        for separator, noun in ((";", "semicolons"), ("\t", "tabs")):
            if len(found) == 1 and separator in found[0]:
                raise DataError(f"{path}: is separated by {noun}; save it with commas between the columns")
        raise DataError(f"{path}: column {name!r} is missing; {nearest_hint(name, found)}found: {', '.join(found)}")


def nearest_hint(word: str, known: Sequence[str]) -> str:
    """A question that offers the nearest known word, with a blank behind it; nothing if none is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, 1)
    return f"did you mean {by_folded[near[0]]!r}? " if near else ""


def refuse_repeats(path: Path, films: pd.Series) -> None:
    """Raise DataError, naming both lines, if a film (a value of `films`, indexed by line) has two rows."""
    if (again := films.duplicated()).any():
        film = films[first_line(again)]
        raise DataError(
            f"{path}: {film} is listed twice, on lines {first_line(films == film)} and {first_line(again)}; "
            "keep one of them"
        )


def first_line(marked: pd.Series) -> int:
    """The line of the first row that is marked; `marked` is True or False by line."""
    return int(marked.index[marked][0])


def findings(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """A column of labels as float32 in {0, 1, -1, NaN}, NaN where empty; and which cells are none of these."""
    values = pd.to_numeric(cells, errors="coerce").astype(np.float32)
    blank = cells.isin(["", "nan", "NaN"])
    wrong = ~blank & ~values.isin([0, 1, -1])
    return values.where(~wrong), wrong


def years(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """A column of ages (`58`, `058Y`, `006M`, `012D`) in years, NaN where empty; and which cells are no human age."""
    written = pd.Series(cells.unique(), dtype=str)  # few: a pattern takes seconds on every row of a published table
    parts = written.str.extract(r"^([0-9]+(?:\.[0-9]+)?)([YMD]?)$")
    each = pd.to_numeric(parts[0]).astype(float) / parts[1].map({"Y": 1.0, "M": 12.0, "D": 365.25}).fillna(1.0)
    age = cells.map(dict(zip(written, each, strict=True))).astype(float)
    wrong = (cells != "") & ~(age <= _OLDEST)
    return age.where(~wrong), wrong


def note_odd_ages(path: Path, cells: pd.Series, odd: pd.Series) -> tuple[str, ...]:
    """A sentence about the cells of a published table that are no human age; none if there are none."""
    if not odd.any():
        return ()
    line = first_line(odd)
    share = f"{odd.sum():,} of {len(odd):,} ages"
    return (f"{path.name}: {share} count as unknown; the first is {cells[line]!r} on line {line}",)
