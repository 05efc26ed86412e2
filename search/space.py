"""A space file: what is searched, on which task, towards what, at which cost. All its mistakes are reported at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML

from cxr_core.config import TrainConfig
from cxr_core.data.policy import Aspect, DataPolicy
from cxr_core.labels import LABEL_SETS, Task
from cxr_core.metrics import OBJECTIVES
from cxr_core.registry import Scalar
from search.domains import Domain, fixed_values, read_domains
from search.durations import parse_duration
from search.located_yaml import Located, Mistake, SpaceError, did_you_mean, parse_yaml, read_yaml
from search.searchers import searchers


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskSection(_Section):
    """What is predicted; `labels` is a list or the name of a label set, `against` a binary task's negatives."""

    kind: Literal["multilabel", "binary"]
    labels: Annotated[tuple[str, ...], Field(strict=False)]
    against: Literal["rest", "no_finding"] = "rest"

    @field_validator("labels", mode="before")
    @classmethod
    def _named_set(cls, labels: Any) -> Any:
        if isinstance(labels, str) and labels not in LABEL_SETS:
            raise ValueError(
                f"there is no label set {labels!r}; {did_you_mean(labels, LABEL_SETS)}, or list the labels"
            )
        return LABEL_SETS[labels] if isinstance(labels, str) else labels

    @field_validator("against")
    @classmethod
    def _one_label(cls, against: str, info: ValidationInfo) -> str:
        if against != "rest" and info.data.get("kind") != "binary":
            raise ValueError("only a binary task chooses its negatives")
        return against

    @field_validator("labels")
    @classmethod
    def _count(cls, labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("kind") == "binary" and len(labels) != 1:
            raise ValueError(f"a binary task has one label, not {len(labels)}")
        if not labels or len(set(labels)) < len(labels):
            raise ValueError("labels must be named, each once")
        return labels


class DataSection(_Section):
    """How a data set becomes training films; `DataPolicy` says what each key means."""

    image_size: Annotated[int, Field(ge=16, le=2048)]
    aspect: Aspect = "squash"
    views: Annotated[tuple[str, ...], Field(strict=False)] = ()
    split: Literal["official", "random"] = "official"
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    uncertain: Literal["ignore", "zeros", "ones"] = "ignore"
    blank: Literal["zero", "nan"] | None = None
    duplicates: Literal["refuse", "drop"] = "refuse"
    allow_missing: bool = False

    @model_validator(mode="after")
    def _agree(self) -> "DataSection":
        self.policy  # noqa: B018  (raises ValueError if two keys cannot hold together)
        return self

    @property
    def policy(self) -> DataPolicy:
        """The same, as the data side takes it."""
        return DataPolicy(**self.model_dump())


class ObjectiveSection(_Section):
    """Which validation metric a search improves."""

    metric: str
    direction: Literal["maximize", "minimize"] | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in OBJECTIVES:
            raise ValueError(f"there is no metric {metric!r}; {did_you_mean(metric, OBJECTIVES)}")
        return metric

    @field_validator("direction")
    @classmethod
    def _agrees(cls, direction: str | None, info: ValidationInfo) -> str | None:
        metric = info.data.get("metric")
        if metric and direction and direction != OBJECTIVES[metric].direction:
            raise ValueError(f"{metric} is better when it is {OBJECTIVES[metric].direction}d")
        return direction

    @property
    def maximize(self) -> bool:
        """Whether larger values are better."""
        return OBJECTIVES[self.metric].direction == "maximize"


class BudgetSection(_Section):
    """Where a search ends: trials proposed and hours spent; no trial is proposed in the last `reserve` of the time."""

    trials: Annotated[int, Field(ge=1)] = 50
    time: float | None = None
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @field_validator("time", mode="before")
    @classmethod
    def _duration(cls, time: Any) -> Any:
        return parse_duration(time) if isinstance(time, str) else time


class SearcherSection(_Section):
    """What proposes configurations."""

    name: str = "tpe"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in searchers:
            raise ValueError(f"there is no searcher {name!r}; {did_you_mean(name, searchers)}")
        return name


class AshaSection(_Section):
    """Rungs at fractions of each trial's own schedule; the best 1/eta of a rung go on."""

    rungs: Annotated[tuple[float, ...], Field(strict=False)] = (0.05, 0.2)
    eta: Annotated[int, Field(ge=2)] = 4

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < rung < 1 for rung in rungs) or list(rungs) != sorted(set(rungs)):
            raise ValueError("rungs are rising fractions of a schedule, between 0 and 1")
        return rungs


class Header(_Section):
    """A space file without its `space:` part."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    task: TaskSection
    data: DataSection
    objective: ObjectiveSection
    budget: BudgetSection = BudgetSection()
    searcher: SearcherSection = SearcherSection()
    asha: AshaSection = AshaSection()
    baselines: Annotated[tuple[str, ...], Field(strict=False)] = ()


@dataclass(frozen=True)
class Baseline:
    """A published or ordinary system that runs in full beside the search: a name and a flat configuration."""

    name: str
    flat: dict[str, Scalar]
    tree: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A checked space file."""

    header: Header
    domains: dict[str, Domain]
    baselines: tuple[Baseline, ...]
    tree: dict[str, Any]

    @property
    def task(self) -> Task:
        return Task(self.header.task.kind, self.header.task.labels, self.header.task.against)

    def config(self, flat: dict[str, Scalar], seed: int) -> TrainConfig:
        """The training configuration of flat parameters on this space's task."""
        return TrainConfig.from_flat(flat, self.task, self.header.data.image_size, seed)

    def save(self, folder: Path) -> None:
        """Write the resolved space, with what the command line set, and its recipes beside it."""
        (folder / "recipes").mkdir(exist_ok=True)
        for baseline in self.baselines:
            _dump(baseline.tree, folder / "recipes" / f"{baseline.name}.yaml")
        names = [f"recipes/{baseline.name}.yaml" for baseline in self.baselines]
        _dump({**self.tree, "baselines": names}, folder / "space.yaml")


def _dump(tree: dict[str, Any], path: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    partial.replace(path)


def load_space(path: Path, overrides: list[str] | None = None) -> Space:
    """Read and check a space file.

    overrides: `KEY=VALUE` texts, dotted keys and YAML values, as given with --set. Baselines are named relative to the
    file. Raises SpaceError with every mistake in the file and in its baselines.
    """
    tree = read_yaml(path)
    mistakes = list(tree.duplicates())
    if not isinstance(tree.value, dict):
        raise SpaceError([Mistake(tree.where, "", "a space file is a mapping: name, task, data, objective, space")])
    for text in overrides or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            mistakes.append(Mistake(f"--set {text}", "", "write KEY=VALUE, such as data.image_size=64"))
            continue
        tree = tree.replaced(key.split("."), parse_yaml(value, f"--set {text}", lines=False))
    header = _header(tree, mistakes)
    domains, wrong = read_domains(tree.at(["space"]) if "space" in tree.value else Located({}, tree.where))
    mistakes += wrong
    _check_objective(header, tree, mistakes)
    baselines = [_baseline(path.parent / str(name), mistakes) for name in tree.plain().get("baselines") or []]
    if mistakes or header is None:
        raise SpaceError(mistakes)
    return Space(header, domains, tuple(b for b in baselines if b), tree.plain())


def _header(tree: Located, mistakes: list[Mistake]) -> Header | None:
    """Validate everything but `space:` with pydantic; its complaints become mistakes with a place."""
    try:
        return Header.model_validate({key: item.plain() for key, item in tree.value.items() if key != "space"})
    except ValidationError as invalid:
        for fault in invalid.errors():
            where, key = tree.at(fault["loc"]).where, ".".join(map(str, fault["loc"]))
            mistakes.append(Mistake(where, key, _complaint(fault["type"], fault["msg"], fault["loc"])))
        return None


def _complaint(kind: str, message: str, path: tuple[int | str, ...]) -> str:
    if kind == "extra_forbidden":
        section: Any = Header
        for step in path[:-1]:
            section = section.model_fields[step].annotation
        known = [*section.model_fields, *(["space"] if section is Header else [])]
        return f"there is no key {path[-1]!r} here; {did_you_mean(str(path[-1]), known)}"
    if kind == "missing":
        return "is missing"
    return message.removeprefix("Value error, ").removeprefix("Input ")


def _check_objective(header: Header | None, tree: Located, mistakes: list[Mistake]) -> None:
    if header and header.task.kind == "multilabel" and not OBJECTIVES[header.objective.metric].multilabel:
        what = (
            f"{header.objective.metric} is no objective for several labels: calling every film healthy scores over 0.9"
        )
        mistakes.append(Mistake(tree.at(["objective", "metric"]).where, "objective.metric", what))


def _baseline(path: Path, mistakes: list[Mistake]) -> Baseline | None:
    """A recipe is a space with every parameter fixed; its task and data give way to the search's."""
    try:
        recipe = load_space(path)
    except SpaceError as wrong:
        mistakes += wrong.mistakes
        return None
    flat = fixed_values(recipe.domains)
    if flat is None:
        mistakes.append(Mistake(str(path), "space", "a recipe leaves nothing to search; fix every parameter"))
        return None
    return Baseline(recipe.header.name, flat, recipe.tree)
