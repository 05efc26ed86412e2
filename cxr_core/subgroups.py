"""Films by what is known of the person and the picture: sex, age and view."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

AGE_BANDS = (
    ("under 18", 0, 18),
    ("18 to 39", 18, 40),
    ("40 to 59", 40, 60),
    ("60 to 79", 60, 80),
    ("80 and over", 80, 200),
)
"""Name, and ages in years, from the first and below the second."""

_SEXES = {"F": "female", "M": "male"}
_VIEWS = 6
"""Views that are told apart, the most frequent ones; a data set of its own may have any number."""


@dataclass(frozen=True, eq=False)
class Group:
    """Films that are alike in one respect: `kind` is sex, age or view; members: (N,) which films they are."""

    kind: str
    name: str
    members: NDArray[np.bool_]


def subgroups(films: pd.DataFrame) -> list[Group]:
    """Groups of a table of films by its columns `sex`, `age` and `view`, as far as they are there; none is empty.

    The groups of one kind share no film; those of which the column says nothing are a group `unknown`, unless all are.
    """
    found = []
    for kind in ("sex", "age", "view"):
        if kind in known_columns(films):
            names = _NAMES[kind](films[kind])
            frequent = names.value_counts().index.tolist()
            order = _ORDER[kind] or [name for name in frequent if name not in _REST]
            found += [
                Group(kind, name, (names == name).to_numpy(bool)) for name in (*order, *_REST) if name in frequent
            ]
    return found


_REST = ("other", "unknown")
_ORDER: dict[str, list[str]] = {"sex": list(_SEXES.values()), "age": [name for name, *_ in AGE_BANDS], "view": []}


def known_columns(films: pd.DataFrame) -> list[str]:
    """Which of `age`, `sex` and `view` a table of films says anything of."""
    return [kind for kind in ("age", "sex", "view") if kind in films.columns and films[kind].notna().any()]


def _sexes(column: pd.Series) -> pd.Series:
    return column.map(_SEXES).fillna("unknown").astype(str)


def _ages(column: pd.Series) -> pd.Series:
    years = pd.to_numeric(column, errors="coerce")
    names = pd.Series("unknown", index=column.index)
    for name, first, end in AGE_BANDS:
        names[(years >= first) & (years < end)] = name
    return names


def _views(column: pd.Series) -> pd.Series:
    names = column.astype(object).where(column.notna(), "unknown").astype(str)
    frequent = [*names[names != "unknown"].value_counts().index[:_VIEWS], "unknown"]
    return names.where(names.isin(frequent), "other")


_NAMES = {"sex": _sexes, "age": _ages, "view": _views}
