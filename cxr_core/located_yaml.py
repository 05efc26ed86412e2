"""YAML 1.2 with the place of every value, so that a mistake can be pointed at; keys given twice are collected."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLStreamError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

_YAML = YAML(typ="safe", pure=True)


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in what a user wrote: where, under which key, and what to do."""

    where: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.what}" if self.key else f"{self.where}: {self.what}"


class SpaceError(Exception):
    """A space cannot be used; the message lists every mistake, one a line."""

    def __init__(self, mistakes: Iterable[Mistake]):
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True)
class Located:
    """A YAML value and where it was written (`FILE:LINE`, or the option that set it).

    value: a scalar, a list of Located, or a dict of Located by key.
    """

    value: Any
    where: str
    twice: tuple[Mistake, ...] = field(default=())

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def at(self, path: Iterable[str | int]) -> "Located":
        """The value at a path, or the deepest one on the way there that exists."""
        here = self
        for step in path:
            try:
                here = here.value[step]
            except (KeyError, IndexError, TypeError):
                return here
        return here

    def duplicates(self) -> Iterator[Mistake]:
        """Mistakes of keys given twice, here and below."""
        yield from self.twice
        if isinstance(self.value, dict | list):
            for item in self.value.values() if isinstance(self.value, dict) else self.value:
                yield from item.duplicates()

    def replaced(self, path: list[str], new: "Located") -> "Located":
        """A copy with another value at a path; mappings on the way are made as needed."""
        if not path:
            return new
        items = dict(self.value) if isinstance(self.value, dict) else {}
        items[path[0]] = items.get(path[0], Located({}, new.where)).replaced(path[1:], new)
        return Located(items, self.where, self.twice)


def read_yaml(path: Path) -> Located:
    """Read a YAML file. Raises SpaceError if it is missing or is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.yaml")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise SpaceError([Mistake(str(path), "", f"no such file{hint}")]) from None
    except (OSError, UnicodeDecodeError) as fault:
        raise SpaceError([Mistake(str(path), "", f"cannot be read ({fault})")]) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str, lines: bool = True) -> Located:
    """Parse YAML text; `name` is the file's, or the option's with `lines` off. Raises SpaceError."""
    try:
        node = _YAML.compose(text)
    except (MarkedYAMLError, YAMLStreamError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark and lines else name
        raise SpaceError([Mistake(where, "", f"not YAML: {getattr(fault, 'problem', fault)}")]) from None
    if node is None:
        return Located(None, name)
    return _locate(node, name, lines, "")


def _locate(node: Node, name: str, lines: bool, key: str) -> Located:
    where = f"{name}:{node.start_mark.line + 1}" if lines else name
    if isinstance(node, ScalarNode):
        return Located(_YAML.constructor.construct_object(node), where)
    if not isinstance(node, MappingNode):
        return Located([_locate(item, name, lines, key) for item in node.value], where)
    items: dict[str, Located] = {}
    twice = []
    for key_node, value_node in node.value:
        child = str(key_node.value)
        below = f"{key}.{child}" if key else child
        at_key = f"{name}:{key_node.start_mark.line + 1}" if lines else name
        if child in items:
            twice.append(Mistake(at_key, below, f"given twice; the first is at {items[child].where}"))
        value = _locate(value_node, name, lines, below)
        items[child] = Located(value.value, at_key, value.twice)
    return Located(items, where, tuple(twice))


def write_yaml(tree: dict[str, Any], path: Path) -> None:
    """Write plain values, short mappings on one line; the file appears whole or not at all."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    partial.replace(path)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message about an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
