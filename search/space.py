"""A space file: what is searched, on which task, towards what, at which cost. All its mistakes are reported at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from cxr_core.config import TrainConfig
from cxr_core.domains import Domain, read_domains
from cxr_core.labels import Task
from cxr_core.located_yaml import Located, Mistake, SpaceError, did_you_mean, write_yaml
from cxr_core.recipe import load_recipe
from cxr_core.registry import Scalar
from cxr_core.space_file import Aim, Section, read_header, read_space_file
from search.durations import parse_duration
from search.searchers import searchers


class BudgetSection(Section):
    """Where a search ends: trials proposed and hours spent; no trial is proposed in the last `reserve` of the time."""

    trials: Annotated[int, Field(ge=1)] = 50
    time: float | None = None
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @field_validator("time", mode="before")
    @classmethod
    def _duration(cls, time: Any) -> Any:
        return parse_duration(time) if isinstance(time, str) else time


class SearcherSection(Section):
    """What proposes configurations."""

    name: str = "tpe"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in searchers:
            raise ValueError(f"there is no searcher {name!r}; {did_you_mean(name, searchers)}")
        return name


class AshaSection(Section):
    """Rungs at fractions of each trial's own schedule; the best 1/eta of a rung go on."""

    rungs: Annotated[tuple[float, ...], Field(strict=False)] = (0.05, 0.2)
    eta: Annotated[int, Field(ge=2)] = 4

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < rung < 1 for rung in rungs) or list(rungs) != sorted(set(rungs)):
            raise ValueError("rungs are rising fractions of a schedule, between 0 and 1")
        return rungs


class Header(Aim):
    """A space file without its `space:` part."""

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
        return self.header.task.task

    def config(self, flat: dict[str, Scalar], seed: int) -> TrainConfig:
        """The training configuration of flat parameters on this space's task."""
        return TrainConfig.from_flat(flat, self.task, self.header.data.image_size, seed)

    def save(self, folder: Path) -> None:
        """Write the resolved space, with what the command line set, and its recipes beside it."""
        (folder / "recipes").mkdir(exist_ok=True)
        for baseline in self.baselines:
            write_yaml(baseline.tree, folder / "recipes" / f"{baseline.name}.yaml")
        names = [f"recipes/{baseline.name}.yaml" for baseline in self.baselines]
        write_yaml({**self.tree, "baselines": names}, folder / "space.yaml")


def load_space(path: Path, overrides: list[str] | None = None) -> Space:
    """Read and check a space file.

    overrides: `KEY=VALUE` texts, dotted keys and YAML values, as given with --set. Baselines are named relative to the
    file. Raises SpaceError with every mistake in the file and in its baselines.
    """
    mistakes: list[Mistake] = []
    tree = read_space_file(path, overrides or [], mistakes)
    header = read_header(Header, tree, mistakes)
    domains, wrong = read_domains(tree.at(["space"]) if "space" in tree.value else Located({}, tree.where))
    mistakes += wrong
    baselines = [_baseline(path.parent / str(name), mistakes) for name in tree.plain().get("baselines") or []]
    if mistakes or header is None:
        raise SpaceError(mistakes)
    return Space(header, domains, tuple(b for b in baselines if b), tree.plain())


def _baseline(path: Path, mistakes: list[Mistake]) -> Baseline | None:
    """A recipe's task and data give way to the search's."""
    try:
        recipe = load_recipe(path)
    except SpaceError as wrong:
        mistakes += wrong.mistakes
        return None
    return Baseline(recipe.name, recipe.flat, recipe.tree)
