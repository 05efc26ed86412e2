"""JSON files that any program can read."""

import json

import numpy as np
import pytest

from cxr_core.json_file import strict, write_json


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_what_is_not_a_finite_number_is_null(tmp_path) -> None:
    content = {
        "a": float("nan"),
        "b": [np.inf, 1.5],
        "c": np.array([[1.0, np.nan]]),
        "d": np.float32(0.5),
        3: (True, None),
    }
    write_json(tmp_path / "some.json", content)
    read = json.loads((tmp_path / "some.json").read_text(), parse_constant=refuse)
    assert read == {"a": None, "b": [None, 1.5], "c": [[1.0, None]], "d": 0.5, "3": [True, None]}


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path) -> None:
    path = tmp_path / "some.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["some.json"]


def test_whole_numbers_and_words_stay_as_they_are() -> None:
    assert strict({"n": np.int64(3), "w": "NaN"}) == {"n": 3, "w": "NaN"}
