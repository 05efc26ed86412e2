"""A component's signature is its schema, and the schema says what is wrong with a value."""

import inspect
import math
from typing import Annotated, Any, Literal

import pytest

from cxr_core.registry import Chosen, Parameter, Range, Registry, parameter


def soften(
    films: list[float],
    strength: float,
    *,
    radius: Annotated[float, Range(0, 2.5)],
    rounds: Annotated[int, Range(1, 8)] = 2,
    edge: Literal["mirror", "zero"] = "mirror",
    cap: Annotated[float | None, Range(1, 9)] = None,
    invert: bool = False,
    note: str = "plain",
) -> tuple[Any, ...]:
    return (films, strength, radius, rounds, edge, cap, invert, note)


@pytest.fixture
def filters() -> Registry:
    registry = Registry("filter")
    registry.register("soften")(soften)
    return registry


@pytest.fixture
def schema(filters: Registry) -> dict[str, Parameter]:
    return dict(filters["soften"].parameters)


def test_hyperparameters_are_what_is_taken_by_keyword_only(schema: dict[str, Parameter]) -> None:
    assert list(schema) == ["radius", "rounds", "edge", "cap", "invert", "note"]


def test_a_hyperparameter_has_the_type_of_its_hint(schema: dict[str, Parameter]) -> None:
    kinds = {name: parameter.type for name, parameter in schema.items()}
    assert kinds == {"radius": float, "rounds": int, "edge": str, "cap": float, "invert": bool, "note": str}


def test_a_range_is_read_from_the_annotation(schema: dict[str, Parameter]) -> None:
    assert (schema["radius"].range, schema["rounds"].range) == (Range(0, 2.5), Range(1, 8))


def test_the_options_of_a_literal_are_the_values_it_may_take(schema: dict[str, Parameter]) -> None:
    assert schema["edge"].options == ("mirror", "zero")


def test_only_a_hint_with_none_is_optional(schema: dict[str, Parameter]) -> None:
    assert [name for name, parameter in schema.items() if parameter.optional] == ["cap"]


def test_a_default_is_the_one_of_the_signature(schema: dict[str, Parameter]) -> None:
    assert [schema[name].default for name in ("rounds", "edge", "cap", "invert")] == [2, "mirror", None, False]


def test_a_hyperparameter_without_default_is_known_as_such(schema: dict[str, Parameter]) -> None:
    assert schema["radius"].default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("radius", 0),
        ("radius", 0.0),
        ("radius", 2.5),
        ("rounds", 1),
        ("rounds", 8),
        ("edge", "zero"),
        ("cap", None),
        ("cap", 1.0),
        ("invert", True),
        ("note", ""),
    ],
)
def test_nothing_is_wrong_with_a_value_in_the_schema(schema: dict[str, Parameter], name: str, value: object) -> None:
    assert schema[name].complaint(value) is None


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("radius", 2.6, "must lie in [0, 2.5], not be 2.6"),
        ("radius", -1, "must lie in [0, 2.5], not be -1"),
        ("radius", "1e-4", "must be a number, not '1e-4'"),
        ("radius", True, "must be a number, not True"),
        ("radius", None, "must be a number, not None"),
        ("radius", math.nan, "must be finite, not nan"),
        ("radius", math.inf, "must be finite, not inf"),
        ("rounds", 9, "must lie in [1, 8], not be 9"),
        ("rounds", 2.0, "must be a whole number, not 2.0"),
        ("rounds", False, "must be a whole number, not False"),
        ("edge", "wrap", "must be one of mirror, zero, not 'wrap'"),
        ("edge", None, "must be one of mirror, zero, not None"),
        ("cap", 0.5, "must lie in [1, 9], not be 0.5"),
        ("invert", 1, "must be true or false, not 1"),
        ("invert", "no", "must be true or false, not 'no'"),
        ("note", 3, "must be text, not 3"),
    ],
)
def test_a_complaint_says_what_is_allowed_and_what_was_given(
    schema: dict[str, Parameter], name: str, value: object, complaint: str
) -> None:
    assert schema[name].complaint(value) == complaint


def test_a_name_cannot_be_registered_twice(filters: Registry) -> None:
    with pytest.raises(ValueError, match=r"^filter 'soften' is registered twice$"):
        filters.register("soften")(lambda films: films)
    assert filters["soften"].function is soften


def test_two_registries_may_use_the_same_name(filters: Registry) -> None:
    others = Registry("other filter")
    others.register("soften")(lambda films: films)
    assert others["soften"].function is not filters["soften"].function


def test_registering_leaves_the_function_as_it_was() -> None:
    assert Registry("filter").register("soften")(soften) is soften


def test_a_hint_that_is_no_hyperparameter_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="'kernel'"):
        parameter("kernel", list[float])


def test_a_component_is_called_with_what_the_trainer_gives_and_its_own_values(filters: Registry) -> None:
    chosen = Chosen("soften", {"radius": 1.5, "cap": 3.0})
    assert filters.call(chosen, [0.0], 0.7) == ([0.0], 0.7, 1.5, 2, "mirror", 3.0, False, "plain")


def test_a_registry_lists_its_components_in_the_order_of_registration(filters: Registry) -> None:
    filters.register("sharpen")(lambda films: films)
    assert list(filters) == ["soften", "sharpen"]
