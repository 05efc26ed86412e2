"""Policies of a simulated search by name: `tpe+promote`, `random+stop:eta=3,rungs=0.1/0.3`, or a space file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from cxr_core.located_yaml import SpaceError, did_you_mean
from search.rungs import Mode
from search.searchers import searchers
from search.space import AshaSection, SearcherSection, load_space

_MODES: tuple[str, ...] = get_args(Mode)
_SAID = "where MODE says who is pruned: " + ", ".join(_MODES)
_KEYS = {"eta": "asha", "rungs": "asha", "cohort": "asha", "family_floor": "asha", "startup": "searcher"}
"""What may follow the colon, and the section of a space file where it is explained."""


class PolicyError(Exception):
    """A policy cannot be understood; the message says what to write instead."""


@dataclass(frozen=True)
class Policy:
    """What proposes, and who goes on; parallel: workers, as a multiple of those asked for."""

    name: str
    searcher: SearcherSection
    asha: AshaSection
    parallel: int = 1


RANDOM = Policy("random", SearcherSection(name="random"), AshaSection(mode="none"))
"""Random search, every training in full: what every other policy is measured by."""
TWICE = Policy("random, twice the workers", RANDOM.searcher, RANDOM.asha, parallel=2)
"""What the money for a second set of workers would buy."""


def default_policy() -> Policy:
    """The policy of a space file that says nothing about it."""
    searcher, asha = SearcherSection(), AshaSection()
    return Policy(f"{searcher.name}+{asha.mode}", searcher, asha)


def read_policy(text: str) -> Policy:
    """A policy from `SEARCHER+MODE[:KEY=VALUE,...]` or a space file's path. Raises PolicyError."""
    if text.endswith((".yaml", ".yml")):
        return _of_space(text)
    kind, _, settings = text.partition(":")
    searcher, _, mode = kind.partition("+")
    if searcher not in searchers:
        raise PolicyError(f"--policy {text}: there is no searcher {searcher!r}; {did_you_mean(searcher, searchers)}")
    if mode not in _MODES:
        fault = (
            f"there is no mode {mode!r}; {did_you_mean(mode, _MODES)}" if mode else f"write {searcher}+MODE, {_SAID}"
        )
        raise PolicyError(f"--policy {text}: {fault}")
    chosen: dict[str, dict[str, Any]] = {"searcher": {"name": searcher}, "asha": {"mode": mode}}
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.partition("=")
        if key not in _KEYS or not equals:
            raise PolicyError(f"--policy {text}: {setting!r} is no KEY=VALUE; {did_you_mean(key, _KEYS)}")
        chosen[_KEYS[key]][key] = _value(text, key, value)
    return _policy(text, chosen)


def _value(text: str, key: str, value: str) -> Any:
    try:
        return [float(part) for part in value.split("/")] if key == "rungs" else int(value)
    except ValueError:
        wanted = "fractions of a schedule such as 0.05/0.2" if key == "rungs" else "a whole number"
        raise PolicyError(f"--policy {text}: {key} must be {wanted}, not {value!r}") from None


def _policy(text: str, chosen: Mapping[str, Any]) -> Policy:
    try:
        searcher, asha = (
            SearcherSection.model_validate(chosen["searcher"]),
            AshaSection.model_validate(chosen["asha"]),
        )
    except ValidationError as wrong:
        said = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in wrong.errors()]
        raise PolicyError(f"--policy {text}: {'; '.join(said)}") from None
    return Policy(text, searcher, asha)


def _of_space(text: str) -> Policy:
    """The searcher and the rungs of a space file."""
    try:
        header = load_space(Path(text)).header
    except SpaceError as mistakes:
        raise PolicyError(str(mistakes)) from None
    if header.asha.fidelity != "schedule":
        raise PolicyError(
            f"{text}: asha.fidelity: {header.asha.fidelity} cannot be replayed: a table knows each training at one "
            "size only; write `fidelity: schedule`"
        )
    if header.asha.confidence is not None:
        raise PolicyError(
            f"{text}: asha.confidence: cannot be replayed: it compares the scores of single films, which a table does "
            "not hold; leave it out"
        )
    return Policy(text, header.searcher, header.asha)
