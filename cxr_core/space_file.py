"""What every space file has, whether it is searched or a recipe: overrides, an aim, and mistakes that are located."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cxr_core.data.policy import LARGEST, SMALLEST, Aspect, DataPolicy
from cxr_core.labels import LABEL_SETS, Task
from cxr_core.located_yaml import Located, Mistake, SpaceError, did_you_mean, parse_yaml, read_yaml
from cxr_core.metrics import OBJECTIVES


class Section(BaseModel):
    """A mapping of the file: its keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskSection(Section):
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

    @property
    def task(self) -> Task:
        """The same, as the core takes it."""
        return Task(self.kind, self.labels, self.against)


class DataSection(Section):
    """How a data set becomes training films; `DataPolicy` says what each key means."""

    image_size: Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
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


class ObjectiveSection(Section):
    """Which validation metric a search improves, and a single training is known by."""

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


class Aim(Section):
    """What is trained for, on which films: the part of a file that searches and recipes share."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    task: TaskSection
    data: DataSection
    objective: ObjectiveSection


def read_space_file(path: Path, overrides: list[str], mistakes: list[Mistake]) -> Located:
    """Read a space file and lay the overrides over it; what is wrong with either is added to `mistakes`.

    overrides: `KEY=VALUE` texts, dotted keys and YAML values. Raises SpaceError if nothing can be read from the file.
    """
    tree = read_yaml(path)
    mistakes += tree.duplicates()
    if not isinstance(tree.value, dict):
        raise SpaceError([Mistake(tree.where, "", "a space file is a mapping: name, task, data, objective, space")])
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            mistakes.append(Mistake(f"--set {text}", "", "write KEY=VALUE, such as data.image_size=64"))
            continue
        tree = tree.replaced(key.split("."), parse_yaml(value, f"--set {text}", lines=False))
    return tree


A = TypeVar("A", bound=Aim)


def read_header(kind: type[A], tree: Located, mistakes: list[Mistake]) -> A | None:
    """Validate everything but `space:`; pydantic's complaints are added to `mistakes`, with a place."""
    try:
        header = kind.model_validate({key: item.plain() for key, item in tree.value.items() if key != "space"})
    except ValidationError as invalid:
        for fault in invalid.errors():
            where, key = tree.at(fault["loc"]).where, ".".join(map(str, fault["loc"]))
            mistakes.append(Mistake(where, key, _complaint(kind, fault["type"], fault["msg"], fault["loc"])))
        return None
    metric = header.objective.metric
    if header.task.kind == "multilabel" and metric in OBJECTIVES and not OBJECTIVES[metric].multilabel:
        what = f"{metric} is no objective for several labels: calling every film healthy scores over 0.9"
        mistakes.append(Mistake(tree.at(["objective", "metric"]).where, "objective.metric", what))
    return header


def _complaint(header: type[Aim], kind: str, message: str, path: tuple[int | str, ...]) -> str:
    if kind == "extra_forbidden":
        section: Any = header
        for step in path[:-1]:
            section = section.model_fields[step].annotation
        known = [*section.model_fields, *(["space"] if section is header else [])]
        return f"there is no key {path[-1]!r} here; {did_you_mean(str(path[-1]), known)}"
    if kind == "missing":
        return "is missing"
    return message.removeprefix("Value error, ").removeprefix("Input ")
