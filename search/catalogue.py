"""`--list`: everything that a space file may search or ask for, out of the registries, with ranges and defaults."""

import inspect
import json
import sys
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cxr_core.config import SEARCHABLE
from cxr_core.metrics import KFOLD, OBJECTIVES, STRESSED
from cxr_core.registry import Component, Parameter, Registry
from search.exit_codes import DONE
from search.objectives import COSTS, WORST
from search.searchers import searchers

_KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def print_catalogue() -> int:
    """Print the catalogue; returns the exit code."""
    out = Console() if sys.stdout.isatty() else Console(width=140)
    out.print("Under `space:`, each with one value, a range or a choice of values:\n")
    plain = {key: slot for key, slot in SEARCHABLE.items() if isinstance(slot, Parameter)}
    out.print(_parameters(plain.values()))
    for key, registry in {**SEARCHABLE, "searcher.name": searchers}.items():
        if isinstance(registry, Registry):
            several = "" if registry is searchers else ", or a choice of several"
            out.print(Text(f"\n{key}: one of these{several}", style="bold"))
            for component in registry.values():
                out.print(_component(component))
    out.print(f"\nobjective.metric, tie_breakers: {', '.join([*OBJECTIVES, *STRESSED, *KFOLD])}")
    out.print(f"objective.metrics and constraints, too: {', '.join([*COSTS, WORST])}")
    return DONE


def _component(component: Component) -> RenderableType:
    about = " ".join((inspect.getdoc(component.function) or "").split())
    parts: list[RenderableType] = [Text.assemble((component.name, "bold"), f"  {about}")]
    if component.parameters:
        parts.append(Padding(_parameters(component.parameters.values()), (0, 0, 0, 4), expand=False))
    return Padding(Group(*parts), (0, 0, 0, 2), expand=False)


def _parameters(parameters: Iterable[Parameter]) -> Table:
    table = Table.grid(padding=(0, 3))
    for one in parameters:
        needed = one.default is inspect.Parameter.empty
        table.add_row(one.name, _values(one), "" if needed else f"default {_written(one.default)}")
    return table


def _values(parameter: Parameter) -> str:
    """What a parameter may be, in words."""
    allowed = ", ".join(map(_written, parameter.options)) or _KINDS[parameter.type]
    within = f" in {parameter.range}" if parameter.range else ""
    return f"{allowed}{within}{' or null' if parameter.optional else ''}"


def _written(value: object) -> str:
    """A value as a space file has it."""
    return value if isinstance(value, str) and value else json.dumps(value)
