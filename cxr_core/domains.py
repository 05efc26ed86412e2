"""What may be searched: domains of values, read from the `space:` part of a space file and checked against the core."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cxr_core.config import SEARCHABLE
from cxr_core.located_yaml import Located, Mistake, did_you_mean
from cxr_core.registry import Parameter, Registry, Scalar


@dataclass(frozen=True)
class Fixed:
    """One value."""

    value: Scalar


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high, both included; whole ones if `whole`."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of several values without an order."""

    options: tuple[Scalar, ...]


@dataclass(frozen=True)
class Branches:
    """One of several components, each with domains of its own parameters, which exist in its branch only."""

    branches: Mapping[str, Mapping[str, "Domain"]]


Domain = Fixed | Interval | OneOf | Branches


def read_domains(tree: Located) -> tuple[dict[str, Domain], list[Mistake]]:
    """Read the `space:` mapping: the domain of each searched key, and every mistake in it."""
    reader = _Reader()
    if not isinstance(tree.value, dict):
        return {}, [Mistake(tree.where, "space", "must be a mapping of what is searched")]
    domains: dict[str, Domain] = {}
    for key, node in tree.value.items():
        if key not in SEARCHABLE:
            reader.report(
                node, f"space.{key}", f"there is nothing named {key!r} to search; {did_you_mean(key, SEARCHABLE)}"
            )
            continue
        slot = SEARCHABLE[key]
        name = f"space.{key}"
        domain = reader.component(name, node, slot) if isinstance(slot, Registry) else reader.number(name, node, slot)
        if domain is not None:
            domains[key] = domain
    if "model" not in tree.value:
        reader.report(tree, "space.model", "is missing: name an architecture family, or a choice of several")
    return domains, reader.mistakes


class _Reader:
    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def report(self, node: Located, key: str, what: str) -> None:
        self.mistakes.append(Mistake(node.where, key, what))

    def component(self, key: str, node: Located, registry: Registry) -> Branches | None:
        """`NAME`, `{NAME: {...}}`, `{choice: [NAME, ...]}` or `{choice: {NAME: {...}, ...}}`."""
        if isinstance(node.value, str):
            offered: Any = {node.value: Located({}, node.where)}
        elif isinstance(node.value, dict):
            offered = node.value["choice"].value if set(node.value) == {"choice"} else node.value
        else:
            offered = None
        if isinstance(offered, list):
            offered = {str(item.value): Located({}, item.where) for item in offered}
        if not isinstance(offered, dict) or not offered:
            self.report(
                node, key, f"must name a {registry.noun} or give a choice of several: {{choice: {{NAME: {{}}}}}}"
            )
            return None
        branches = {name: self._branch(f"{key}.{name}", name, below, registry) for name, below in offered.items()}
        return Branches({name: branch for name, branch in branches.items() if branch is not None})

    def _branch(self, key: str, name: str, node: Located, registry: Registry) -> dict[str, Domain] | None:
        if name not in registry:
            self.report(node, key, f"there is no {registry.noun} {name!r}; {did_you_mean(name, registry)}")
            return None
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self.report(node, key, f"must be a mapping of {name}'s parameters, not {node.value!r}")
            return None
        schema = registry[name].parameters
        domains: dict[str, Domain] = {}
        for parameter, below in node.value.items():
            if parameter not in schema:
                hint = did_you_mean(parameter, schema) if schema else "it has none"
                self.report(below, f"{key}.{parameter}", f"{name} has no parameter {parameter!r}; {hint}")
            elif domain := self.number(f"{key}.{parameter}", below, schema[parameter]):
                domains[parameter] = domain
        return domains

    def number(self, key: str, node: Located, schema: Parameter) -> Domain | None:
        """A value, `{float: [LOW, HIGH]}`, `{int: [LOW, HIGH]}` (with `log`, `step`) or `{choice: [VALUE, ...]}`."""
        value = node.plain()
        if not isinstance(value, dict):
            return Fixed(self._as(schema, value)) if self._fits(node, key, schema, value) else None
        kinds = {"float", "int", "choice"} & set(value)
        if len(kinds) != 1:
            self.report(
                node, key, "must be a value, {float: [LOW, HIGH]}, {int: [LOW, HIGH]} or {choice: [VALUE, ...]}"
            )
            return None
        (kind,) = kinds
        allowed = {"choice": {"choice"}, "int": {"int", "log", "step"}, "float": {"float", "log", "step"}}[kind]
        if unknown := sorted(set(value) - allowed):
            self.report(node.value[unknown[0]], f"{key}.{unknown[0]}", f"unknown; {did_you_mean(unknown[0], allowed)}")
            return None
        if kind == "choice":
            return self._options(key, node, schema, value["choice"])
        return self._interval(key, node, schema, kind, value)

    def _options(self, key: str, node: Located, schema: Parameter, options: Any) -> OneOf | None:
        if not isinstance(options, list) or not options:
            self.report(node, key, "choice must list its values: {choice: [VALUE, ...]}")
            return None
        if [option for option in options if not self._fits(node, key, schema, option)]:
            return None
        return OneOf(tuple(self._as(schema, option) for option in options))

    def _interval(
        self, key: str, node: Located, schema: Parameter, kind: str, value: dict[str, Any]
    ) -> Interval | None:
        bounds, log, step = value[kind], value.get("log", False), value.get("step")
        if schema.type not in (int, float) or (schema.type is int and kind == "float"):
            self.report(node, key, f"takes {schema.type.__name__} values, not a range of {kind}")
            return None
        if not isinstance(bounds, list) or len(bounds) != 2:
            self.report(node, key, f"{kind} must give a lowest and a highest value: {{{kind}: [LOW, HIGH]}}")
            return None
        if [bound for bound in bounds if not self._fits(node, key, schema, bound)]:
            return None
        low, high = bounds
        faults = {
            f"the lowest value {low} is not below the highest {high}": low >= high,
            f"log must be true or false, not {log!r}": not isinstance(log, bool),
            f"a log range must start above 0, not at {low}": log is True and low <= 0,
            "log and step exclude each other": bool(log) and step is not None,
            f"step must be a number above 0, not {step!r}": step is not None and not (_is_number(step) and step > 0),
            f"step must be a whole number, not {step!r}": kind == "int"
            and step is not None
            and not isinstance(step, int),
        }
        if wrong := [what for what, is_so in faults.items() if is_so]:
            self.report(node, key, wrong[0])
            return None
        return Interval(low, high, log, step, whole=kind == "int")

    def _fits(self, node: Located, key: str, schema: Parameter, value: Any) -> bool:
        complaint = schema.complaint(value)
        if complaint:
            self.report(node, key, complaint)
        return complaint is None

    @staticmethod
    def _as(schema: Parameter, value: Scalar) -> Scalar:
        return float(value) if schema.type is float and isinstance(value, int) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def flat_domains(domains: Mapping[str, Domain], prefix: str = "") -> Iterator[tuple[str, Domain]]:
    """Every domain by its dotted name, branches before what lies in them."""
    for name, domain in domains.items():
        yield prefix + name, domain
        if isinstance(domain, Branches):
            for branch, below in domain.branches.items():
                yield from flat_domains(below, f"{prefix}{name}.{branch}.")


def split_fixed(domains: Mapping[str, Domain]) -> tuple[dict[str, Scalar], list[str]]:
    """What is fixed, flat, and the names of what is left to search (of a choice its name, not what lies in it)."""
    flat: dict[str, Scalar] = {}
    searched: list[str] = []
    for name, domain in flat_domains(domains):
        if isinstance(domain, Branches) and len(domain.branches) == 1:
            flat[name] = next(iter(domain.branches))
        elif isinstance(domain, Fixed):
            flat[name] = domain.value
        elif not name.startswith(tuple(f"{above}." for above in searched)):
            searched.append(name)
    return flat, searched
