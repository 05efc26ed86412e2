"""A space file: what is searched, on which task, towards what, at which cost. All its mistakes are reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field, field_validator, model_validator

from cxr_core.config import TrainConfig
from cxr_core.domains import Domain, read_domains
from cxr_core.labels import Task
from cxr_core.located_yaml import Located, Mistake, SpaceError, did_you_mean, write_yaml
from cxr_core.metrics import KFOLD, OBJECTIVES
from cxr_core.recipe import load_recipe
from cxr_core.registry import Scalar
from cxr_core.space_file import Aim, Section, read_header, read_space_file
from search.distributions import default, placed, slots
from search.durations import parse_duration
from search.fidelity import Fidelities, Fidelity
from search.objectives import Bound, Objective, SearchObjective, check_constraints
from search.rungs import Mode, RungPolicy, Rungs
from search.searchers import searchers, takes_several


class BudgetSection(Section):
    """Where a search ends: whichever of these comes first.

    trials: configurations proposed. time: seconds of wall clock. gpu_hours: training time of all trials times their
    share of a GPU (of a slot, where there is none). target: a value of the objective that a full trial reaches.
    plateau: full trials in a row without a better one. reserve: share of time and gpu_hours in which nothing new is
    proposed, and of the training time that the finals after the search may take; 0 holds none.
    """

    trials: Annotated[int, Field(ge=1)] = 50
    time: float | None = None
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    target: float | None = None
    plateau: Annotated[int, Field(ge=1)] | None = None
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @field_validator("time", mode="before")
    @classmethod
    def _duration(cls, time: Any) -> Any:
        return parse_duration(time) if isinstance(time, str) else time


class SearcherSection(Section):
    """What proposes configurations; the first `startup` of them are spread evenly, over every family."""

    name: str = "tpe"
    startup: Annotated[int, Field(ge=1)] = 10

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in searchers:
            raise ValueError(f"there is no searcher {name!r}; {did_you_mean(name, searchers)}")
        return name


class AshaSection(Section):
    """Who goes on from a rung; RungPolicy says what each key means.

    confidence: who is not credibly worse than the last that goes on, goes on, too. fidelity: what grows from rung to
    rung, `schedule` (how much of it a trial has done), `image_size` or `data_share` (each a training from the start).
    """

    mode: Mode = "promote"
    rungs: Annotated[tuple[float, ...], Field(strict=False)] = (0.05, 0.2)
    eta: Annotated[int, Field(ge=2)] = 4
    cohort: Annotated[int, Field(ge=1)] | None = None
    family_floor: Annotated[int, Field(ge=0)] = 1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    fidelity: Fidelity = "schedule"

    @field_validator("rungs")
    @classmethod
    def _rise(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < rung < 1 for rung in rungs) or list(rungs) != sorted(set(rungs)):
            raise ValueError("rungs are rising fractions of a schedule, between 0 and 1")
        return rungs

    @model_validator(mode="after")
    def _brackets_share_a_schedule(self) -> "AshaSection":
        if self.mode == "hyperband" and self.fidelity != "schedule":
            raise ValueError(f"hyperband has `fidelity: schedule` only; with {self.fidelity}, take `mode: promote`")
        return self

    @property
    def policy(self) -> RungPolicy:
        """The same, as `Rungs` takes it."""
        return RungPolicy(self.rungs, self.eta, self.mode, self.cohort or self.eta, self.family_floor)


class CheckpointSection(Section):
    """Checkpoints of full trials to keep, by the objective, and bytes for all of them, such as 20GB."""

    best: Annotated[int, Field(ge=1)] = 20
    quota: ByteSize | None = None


class Header(Aim):
    """A space file without its `space:` part."""

    objective: SearchObjective
    constraints: Mapping[str, Bound] = {}
    budget: BudgetSection = BudgetSection()
    searcher: SearcherSection = SearcherSection()
    asha: AshaSection = AshaSection()
    checkpoints: CheckpointSection = CheckpointSection()
    baselines: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @field_validator("constraints")
    @classmethod
    def _measured(cls, constraints: Mapping[str, Bound]) -> Mapping[str, Bound]:
        return check_constraints(constraints)

    @model_validator(mode="after")
    def _tie_breakers_fit(self) -> "Header":
        single = [
            name for name in self.objective.tie_breakers if name in OBJECTIVES and not OBJECTIVES[name].multilabel
        ]
        if self.task.kind == "multilabel" and single:
            raise ValueError(f"{single[0]} is no tie-breaker for several labels: calling every film healthy is best")
        return self

    @model_validator(mode="after")
    def _searcher_fits(self) -> "Header":
        if len(self.objective.all) > 1 and not takes_several(self.searcher.name):
            raise ValueError(f"the searcher {self.searcher.name} takes one metric; for several, take nsgaii or tpe")
        return self


def rungs_of(header: Header) -> Rungs:
    """The rungs of a search, without any trial yet."""
    policy = replace(header.asha.policy, fractions=fidelities_of(header).fractions)
    return Rungs(policy, several=len(header.objective.all) > 1)


def fidelities_of(header: Header) -> Fidelities:
    """The stages of a search's trials; where nobody is judged, there is one, or one for each fold."""
    asha, folds = header.asha, header.objective.folds_of_a_trial
    return Fidelities(asha.fidelity, () if asha.mode == "none" else asha.rungs, header.data.image_size, folds)


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

    @property
    def objective(self) -> Objective:
        return Objective.of_space(self.tree)

    def config(self, flat: dict[str, Scalar], seed: int, image_size: int | None = None) -> TrainConfig:
        """The training configuration of flat parameters on this space's task, on films of its size or another."""
        return TrainConfig.from_flat(flat, self.task, image_size or self.header.data.image_size, seed)

    def allows(self, flat: Mapping[str, Scalar]) -> bool:
        """Whether a configuration of an earlier version of the space still lies in it."""
        taken: dict[str, Any] = {}
        for slot in slots(self.domains):
            if slot.branch is None or taken.get(slot.branch[0]) == slot.branch[1]:
                fits, taken[slot.name] = placed(slot.domain, slot.distribution, flat.get(slot.name, default(slot.name)))
                if not fits:
                    return False
        return True

    def save(self, folder: Path) -> None:
        """Write the resolved space, with what the command line set, and its recipes beside it."""
        (folder / "recipes").mkdir(exist_ok=True)
        for baseline in self.baselines:
            write_yaml(baseline.tree, folder / "recipes" / f"{baseline.name}.yaml")
        names = [f"recipes/{baseline.name}.yaml" for baseline in self.baselines]
        write_yaml(self.tree | ({"baselines": names} if names else {}), folder / "space.yaml")


def load_space(path: Path, overrides: list[str] | None = None) -> Space:
    """Read and check a space file.

    overrides: `KEY=VALUE` texts, dotted keys and YAML values, as given with --set. Baselines are named relative to the
    file. Raises SpaceError with every mistake in the file and in its baselines.
    """
    mistakes: list[Mistake] = []
    tree = read_space_file(path, overrides or [], mistakes)
    header = read_header(Header, tree, mistakes)
    if header and header.objective.folds_of_a_trial > 1 and header.asha.fidelity != "schedule":
        where, metric = tree.at(["asha", "fidelity"]).where, header.objective.metric
        what = f"the trainings of {metric} are of all films in full size; take `fidelity: schedule`, or {KFOLD[metric]}"
        mistakes.append(Mistake(where, "asha.fidelity", what))
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
