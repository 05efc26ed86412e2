"""Groups of films by sex, age and view."""

import numpy as np
import pandas as pd

from cxr_core.subgroups import AGE_BANDS, known_columns, subgroups


def names(films: pd.DataFrame) -> list[tuple[str, str, int]]:
    return [(group.kind, group.name, int(group.members.sum())) for group in subgroups(films)]


def test_groups_come_in_a_fixed_order_and_only_where_there_are_films() -> None:
    films = pd.DataFrame({"sex": ["M", "F", "F"], "age": [30.0, 85, 5], "view": ["AP", "PA", "AP"]})
    assert names(films) == [
        ("sex", "female", 2),
        ("sex", "male", 1),
        ("age", "under 18", 1),
        ("age", "18 to 39", 1),
        ("age", "80 and over", 1),
        ("view", "AP", 2),
        ("view", "PA", 1),
    ]


def test_groups_of_a_kind_hold_every_film_once() -> None:
    rng = np.random.default_rng(0)
    cells = {"sex": ["F", "M", None], "age": [*range(100), np.nan], "view": [*"abcdefghij", None]}
    films = pd.DataFrame({name: rng.choice(np.array(of, object), 500) for name, of in cells.items()})
    for kind in cells:
        members = np.stack([group.members for group in subgroups(films) if group.kind == kind])
        assert (members.sum(axis=0) == 1).all()


def test_the_birthday_of_a_band_belongs_to_it() -> None:
    ages = pd.DataFrame({"age": [17.9, 18, 39.9, 40, 80]})
    assert [name for _, name, _ in names(ages)] == ["under 18", "18 to 39", "40 to 59", "80 and over"]
    assert [start for _, start, _ in AGE_BANDS[1:]] == [end for *_, end in AGE_BANDS[:-1]]


def test_films_of_which_nothing_is_said_are_a_group_of_their_own() -> None:
    films = pd.DataFrame({"sex": ["F", None, "F"], "age": [np.nan, 50, np.nan]})
    assert names(films) == [
        ("sex", "female", 2),
        ("sex", "unknown", 1),
        ("age", "40 to 59", 1),
        ("age", "unknown", 2),
    ]


def test_rare_views_of_many_are_one_group() -> None:
    views = [view for number, view in enumerate("abcdefghi") for _ in range(10 - number)]
    found = names(pd.DataFrame({"view": views}))
    assert [name for _, name, _ in found] == [*"abcdef", "other"]
    assert found[-1][2] == 4 + 3 + 2


def test_a_column_that_says_nothing_is_as_good_as_none() -> None:
    films = pd.DataFrame({"view": [None, None], "sex": ["F", "M"]})
    assert known_columns(films) == ["sex"]
    assert {kind for kind, *_ in names(films)} == {"sex"}
    assert names(pd.DataFrame({"image": ["a"]})) == []
