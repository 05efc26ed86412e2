"""CSV files as the readers take them: cells as text, and every fault told with its line."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_core.data import DataError
from cxr_core.data.data_sets.tables import findings, read_table, refuse_repeats, years

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=6).map(str.strip)
FILLED = CELL.filter(bool)
ROWS = st.lists(st.tuples(FILLED, CELL, CELL), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example writes anew."""
    return tmp_path_factory.mktemp("tables") / "films.csv"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, message: str, filled: tuple[str, ...] = ("image", "patient")) -> None:
    with pytest.raises(DataError) as caught:
        read_table(path, (), filled)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


# What is read


@given(rows=ROWS, ending=st.sampled_from(["\n", "\r\n", "\r"]), mark=st.booleans())
def test_a_table_is_read_as_it_was_written(
    scratch: Path, rows: list[tuple[str, str, str]], ending: str, mark: bool
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending).writerows([("image", "note", "patient"), *rows])
    scratch.write_text(text.getvalue(), encoding="utf-8-sig" if mark else "utf-8", newline="")
    cells = read_table(scratch, ("note", "patient"), ("image",))
    assert [tuple(row) for row in cells.to_numpy()] == rows
    assert list(cells.index) == list(range(2, len(rows) + 2))


def test_leading_zeros_stay(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "a.csv", "patient\n0042\n"), ("patient",)).loc[2, "patient"] == "0042"


def test_a_row_is_numbered_by_the_line_on_which_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'image,note\na,"two\nlines"\n\nb,one\n')
    assert list(read_table(path, ("image",)).index) == [2, 5]


def test_blanks_around_cells_do_not_count(tmp_path: Path) -> None:
    """' 12' and '12' would be two patients."""
    cells = read_table(write(tmp_path / "a.csv", "image , patient\na.png, 12 \n"), (), ("image", "patient"))
    assert cells.loc[2].to_dict() == {"image": "a.png", "patient": "12"}


@pytest.mark.parametrize(
    "text", ["image,patient,\na,1,\nb,2,\n", "image,patient\na,1,\nb,2,\n", "image,patient,\na,1\nb,2\n"]
)
def test_a_trailing_empty_column_is_left_out(tmp_path: Path, text: str) -> None:
    cells = read_table(write(tmp_path / "a.csv", text), (), ("image", "patient"))
    assert (list(cells.columns), list(cells["patient"])) == (["image", "patient"], ["1", "2"])


def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    """pandas writes its index as one."""
    assert list(read_table(write(tmp_path / "a.csv", ",image\n0,a\n"), ("image",)).columns) == ["image"]


def test_rows_without_content_are_left_out(tmp_path: Path) -> None:
    assert len(read_table(write(tmp_path / "a.csv", "image,patient\na,1\n,\n\n  ,\n"), (), ("image",))) == 1


# Faults


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "a.csv", "no such file")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


def test_an_empty_file_is_told_the_columns_that_it_needs(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", ""), "is empty; a table with the columns image, patient is expected")


def test_a_header_alone_is_no_table(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "image,patient\n"), "has a header but no rows")


def test_bytes_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "image,patient\na,1\nb,M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller\n".encode("latin-1")
    )
    refused(path, "line 3: not UTF-8 (byte 21 of the file); save it again with UTF-8 encoding")


def test_a_table_in_utf16_is_not_utf8(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "a.csv", "image,patient\na,1\n".encode("utf-16")), "line 1: not UTF-8 (byte 0 of the file)"
    )


@pytest.mark.parametrize("row", ["b", "b,2,3", '"b"x,2', '"b,2'], ids=["short", "long", "misquoted", "open quote"])
def test_a_torn_row_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    refused(write(tmp_path / "a.csv", f"image,patient\na,1\n{row}\n"), "line 3: ")


def test_a_missing_column_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "image,Patient ID\na,1\n")
    refused(path, "column 'patient' is missing; did you mean 'Patient ID'? found: image, Patient ID")


def test_a_missing_column_that_resembles_none_is_answered_with_those_found(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "image,x\na,1\n"), "column 'patient' is missing; found: image, x")


def test_a_column_given_twice_is_named(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "image,patient,patient\na,1,2\n"), "line 1: column 'patient' is there twice")


@pytest.mark.parametrize(("separator", "noun"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_recognised(tmp_path: Path, separator: str, noun: str) -> None:
    path = write(tmp_path / "a.csv", f"image{separator}patient\na{separator}1\n")
    refused(path, f"is separated by {noun}; save it with commas")


def test_an_empty_cell_that_is_needed_is_named_by_line_and_column(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.csv", "image,patient\na,1\nb, \n"), "line 3: 'patient' is empty")


def test_a_repeated_film_is_named_by_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "image\na\nb\nc\nb\n")
    with pytest.raises(DataError, match="b is listed twice, on lines 3 and 5; keep one of them"):
        refuse_repeats(path, read_table(path, ("image",))["image"])


@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_table_or_an_error_that_names_the_file(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(b"image,patient\n" + content)
    cells = complaint = None
    try:
        cells = read_table(scratch, (), ("image", "patient"))
    except DataError as fault:
        complaint = str(fault)
    if cells is None:
        assert complaint.startswith(f"{scratch}: ")
    else:
        assert (cells != "").all().all()


# Cells


def test_labels_are_0_1_uncertain_or_not_mentioned() -> None:
    values, wrong = findings(pd.Series(["0", "1", "-1", "", "0.0", "1.0", "-1.0", "nan"]))
    np.testing.assert_array_equal(values, np.array([0, 1, -1, np.nan, 0, 1, -1, np.nan], np.float32))
    assert values.dtype == np.float32
    assert not wrong.any()


@pytest.mark.parametrize("cell", ["2", "0.5", "yes", "True", "1;", "inf", "-", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_nothing_else_is_a_label(cell: str) -> None:
    assert findings(pd.Series(["1", cell]))[1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("cell", "age"),
    [("58", 58), ("058Y", 58), ("006M", 0.5), ("000D", 0), ("0.5", 0.5), ("120", 120), ("090D", 0.2464)],
)
def test_an_age_is_in_years(cell: str, age: float) -> None:
    values, odd = years(pd.Series([cell]))
    assert values[0] == pytest.approx(age, abs=1e-4)
    assert not odd[0]


@pytest.mark.parametrize("cell", ["413", "-1", "old", "5Z", "Y", "1e9", "121Y", "\N{ARABIC-INDIC DIGIT FIVE}"])
def test_an_age_that_nobody_has_is_odd_and_unknown(cell: str) -> None:
    values, odd = years(pd.Series(["58", cell]))
    assert odd.tolist() == [False, True]
    assert np.isnan(values[1])


def test_no_age_is_unknown_but_not_odd() -> None:
    values, odd = years(pd.Series(["58", ""]))
    assert np.isnan(values[1])
    assert not odd.any()
