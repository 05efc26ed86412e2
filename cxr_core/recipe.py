"""A recipe: a space file with every parameter fixed, so one training instead of a search."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr_core.config import SEARCHABLE, TrainConfig
from cxr_core.data.policy import DataPolicy
from cxr_core.domains import read_domains, split_fixed
from cxr_core.labels import Task
from cxr_core.located_yaml import Located, Mistake, SpaceError
from cxr_core.registry import Registry, Scalar
from cxr_core.space_file import Aim, read_header, read_space_file


class _Header(Aim):
    """A recipe file without its `space:` part; what only a search needs may be there and is not looked at."""

    budget: Any = None
    searcher: Any = None
    asha: Any = None
    baselines: Any = None


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    metric: the validation metric that the training is known by. flat: the parameters that the file fixes, by dotted
    name. tree: the file, with what the command line set.
    """

    name: str
    task: Task
    policy: DataPolicy
    metric: str
    flat: dict[str, Scalar]
    tree: dict[str, Any]

    def config(self, seed: int) -> TrainConfig:
        """The training that the recipe describes."""
        return TrainConfig.from_flat(self.flat, self.task, self.policy.image_size, seed)

    @property
    def resolved(self) -> dict[str, Any]:
        """The recipe with every default written out: it stays the same training when a default changes."""
        return {
            "name": self.name,
            "task": {**asdict(self.task), "labels": list(self.task.labels)},
            "data": {**asdict(self.policy), "views": list(self.policy.views)},
            "objective": {"metric": self.metric},
            "space": _nested(self.config(0).flat),
        }


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    overrides: `KEY=VALUE` texts, dotted keys and YAML values, as given with --set. Raises SpaceError with every
    mistake, also if something is left to search.
    """
    mistakes: list[Mistake] = []
    tree = read_space_file(path, overrides or [], mistakes)
    header = read_header(_Header, tree, mistakes)
    space = tree.at(["space"]) if "space" in tree.value else Located({}, tree.where)
    domains, wrong = read_domains(space)
    mistakes += wrong
    flat, searched = split_fixed(domains)
    if searched:
        what = f"{', '.join(searched)} left open: a recipe leaves nothing to search; fix every parameter"
        mistakes.append(Mistake(space.at(searched[0].split(".")).where, "space", what))
    if mistakes or header is None:
        raise SpaceError(mistakes)
    policy, metric = header.data.policy, header.objective.metric
    return Recipe(header.name, header.task.task, policy, metric, flat, tree.plain())


def _nested(flat: dict[str, Scalar]) -> dict[str, Any]:
    """Flat parameters as a recipe's `space:` part."""
    tree: dict[str, Any] = {}
    for key, slot in SEARCHABLE.items():
        prefix = f"{key}.{flat[key]}."
        below = {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
        tree[key] = {flat[key]: below} if isinstance(slot, Registry) else flat[key]
    return tree
