"""Registries of components: a component's keyword-only parameters are the schema of its hyperparameters."""

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Scalar = bool | int | float | str | None
"""A hyperparameter's value."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """A closed interval of allowed values: low <= value <= high."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Check:
    """A test of a text's content: `complaint(value)` says what is wrong, as a whole clause, or None."""

    complaint: Callable[[str], str | None]


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter: its type, the values it may take, and its default (`Parameter.empty` if none)."""

    name: str
    type: type
    default: Any
    range: Range | None = None
    options: tuple[Scalar, ...] = ()
    optional: bool = False
    check: Check | None = None

    def complaint(self, value: Any) -> str | None:
        """What is wrong with a value, as a clause that follows the parameter's name; None if nothing is."""
        if value is None and self.optional:
            return None
        if self.options:
            return (
                None if value in self.options else f"must be one of {', '.join(map(str, self.options))}, not {value!r}"
            )
        allowed: tuple[type, ...] = (int, float) if self.type is float else (self.type,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.type is not bool):
            return f"must be {_NOUNS[self.type]}, not {value!r}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be finite, not {value!r}"
        if self.range and value not in self.range:
            return f"must lie in {self.range}, not be {value!r}"
        return self.check.complaint(value) if self.check and isinstance(value, str) else None


_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def parameter(name: str, hint: Any, default: Any = inspect.Parameter.empty) -> Parameter:
    """Read a parameter's schema from its type hint, such as `Annotated[float, Range(0, 1)]` or `Literal["a", "b"]`."""
    bounds = check = None
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        bounds = next((mark for mark in marks if isinstance(mark, Range)), None)
        check = next((mark for mark in marks if isinstance(mark, Check)), None)
    optional = get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
    if optional:
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is Literal:
        options = get_args(hint)
        return Parameter(name, type(options[0]), default, options=options, optional=optional)
    if hint not in _NOUNS:
        raise TypeError(f"parameter {name!r}: {hint} is no type of a hyperparameter")
    return Parameter(name, hint, default, range=bounds, optional=optional, check=check)


@dataclass(frozen=True)
class Component:
    """A registered function and the schema of its keyword-only parameters."""

    name: str
    function: Callable[..., Any]
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True)
class Chosen:
    """A component by name, with the values of its hyperparameters (those left out take their defaults)."""

    name: str
    params: Mapping[str, Scalar] = field(default_factory=dict)


class Registry(Mapping[str, Component]):
    """Components of one kind, by name.

    Register a function with `@registry.register("name")`. What it takes by position comes from the trainer;
    what it takes by keyword only are its hyperparameters.
    """

    def __init__(self, noun: str):
        self.noun = noun
        self._components: dict[str, Component] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator that adds a function under a name. Raises ValueError if the name is taken."""

        def add(function: F) -> F:
            if name in self._components:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            hints = get_type_hints(function, include_extras=True)
            keywords = {
                key: parameter(key, hints[key], p.default)
                for key, p in inspect.signature(function).parameters.items()
                if p.kind is inspect.Parameter.KEYWORD_ONLY
            }
            self._components[name] = Component(name, function, keywords)
            return function

        return add

    def call(self, chosen: Chosen, *args: Any) -> Any:
        """Call the chosen component with what the trainer gives it, by position, and its own hyperparameters."""
        return self[chosen.name].function(*args, **chosen.params)

    def __getitem__(self, name: str) -> Component:
        return self._components[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)
