"""Recipes: one training from a file, and how their mistakes are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_core.config import TrainConfig
from cxr_core.located_yaml import SpaceError, write_yaml
from cxr_core.recipe import load_recipe
from cxr_core.registry import Chosen

SPACES = Path(__file__).parents[2] / "spaces"
RECIPE = """name: plain
task: {kind: binary, labels: [Mass]}
data: {image_size: 16, uncertain: ones}
objective: {metric: auprc_macro}
space:
  model: {small_cnn: {width: 4}}
  lr: 1e-2
  epochs: 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plain.yaml"


@pytest.fixture
def mistakes(path: Path) -> Callable[..., list[str]]:
    """The messages about a recipe, without the folder."""

    def read(text: str, *overrides: str) -> list[str]:
        path.write_text(text)
        with pytest.raises(SpaceError) as refused:
            load_recipe(path, list(overrides))
        return [str(mistake).replace(f"{path.parent}/", "") for mistake in refused.value.mistakes]

    return read


def test_a_recipe_is_a_training_complete_but_for_its_seed(path: Path) -> None:
    path.write_text(RECIPE)
    recipe = load_recipe(path)
    model = Chosen("small_cnn", {"width": 4})
    assert recipe.config(7) == TrainConfig(task=recipe.task, image_size=16, seed=7, model=model, lr=1e-2, epochs=3)
    assert (recipe.task.kind, recipe.task.labels) == ("binary", ("Mass",))
    assert (recipe.policy.uncertain, recipe.metric) == ("ones", "auprc_macro")


def test_an_override_reaches_any_key(path: Path) -> None:
    path.write_text(RECIPE)
    recipe = load_recipe(path, ["data.image_size=64", "space.model={resnet18: {}}", "space.epochs=9"])
    config = recipe.config(0)
    assert (config.image_size, config.model.name, config.epochs) == (64, "resnet18", 9)


@pytest.mark.parametrize("path", sorted(SPACES.glob("recipes/*.yaml")), ids=lambda path: path.stem)
def test_a_resolved_recipe_is_the_same_training_with_nothing_left_to_a_default(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    write_yaml(recipe.resolved, tmp_path / "resolved.yaml")
    resolved = load_recipe(tmp_path / "resolved.yaml")
    assert resolved.flat == recipe.config(0).flat
    assert (resolved.task, resolved.policy, resolved.metric) == (recipe.task, recipe.policy, recipe.metric)


def test_what_only_a_search_needs_is_not_looked_at(path: Path) -> None:
    path.write_text(RECIPE + "budget: {trials: none}\nsearcher: oracle\nasha: off\nbaselines: [nowhere.yaml]\n")
    assert load_recipe(path).name == "plain"


def test_a_choice_of_one_is_fixed(path: Path) -> None:
    path.write_text(RECIPE)
    assert load_recipe(path, ["space.model={choice: [resnet18]}"]).config(0).model == Chosen("resnet18")


def test_a_recipe_that_leaves_something_to_search_says_what(mistakes: Callable[..., list[str]]) -> None:
    text = RECIPE.replace("{small_cnn: {width: 4}}", "{small_cnn: {width: {int: [4, 8]}}}")
    (told,) = mistakes(text.replace("1e-2", "{float: [1e-4, 1e-2]}"))
    assert told == (
        "plain.yaml:6: space: model.small_cnn.width, lr left open: a recipe leaves nothing to search; "
        "fix every parameter"
    )


def test_of_a_choice_that_is_left_open_only_its_name_is_told(mistakes: Callable[..., list[str]]) -> None:
    (told,) = mistakes(RECIPE, "space.model={choice: {small_cnn: {width: {int: [4, 8]}}, resnet18: {}}}")
    assert "space: model left open: " in told


def test_all_mistakes_are_told_at_once_with_line_and_remedy(mistakes: Callable[..., list[str]]) -> None:
    text = RECIPE.replace("binary", "binery").replace("uncertain", "uncertan").replace("auprc_macro", "auprc")
    assert mistakes(text.replace("width: 4", "widht: 4").replace("1e-2", "100")) == [
        "plain.yaml:2: task.kind: should be 'multilabel' or 'binary'",
        "plain.yaml:3: data.uncertan: there is no key 'uncertan' here; did you mean 'uncertain'?",
        "plain.yaml:4: objective.metric: there is no metric 'auprc'; did you mean 'auprc_macro'?",
        "plain.yaml:6: space.model.small_cnn.widht: small_cnn has no parameter 'widht'; did you mean 'width'?",
        "plain.yaml:7: space.lr: must lie in [1e-08, 10], not be 100",
    ]


def test_a_key_that_neither_a_search_nor_a_recipe_has_is_a_mistake(mistakes: Callable[..., list[str]]) -> None:
    assert mistakes(RECIPE + "budgett: {}\n") == [
        "plain.yaml:9: budgett: there is no key 'budgett' here; did you mean 'budget'?"
    ]
