"""A configuration and its flat names say the same, and every registered component fits its own schema."""

import dataclasses
import inspect
from collections.abc import Callable

import pytest

from cxr_core.config import SEARCHABLE, TrainConfig
from cxr_core.data.source import readers
from cxr_core.registry import Chosen, Parameter, Registry, Scalar

COMPONENTS = [(slot, name) for slot, kind in SEARCHABLE.items() if isinstance(kind, Registry) for name in kind]
PARAMETERS = [
    pytest.param(parameter, id=f"{slot}.{name}.{parameter.name}")
    for slot, name in COMPONENTS
    for parameter in SEARCHABLE[slot][name].parameters.values()
] + [pytest.param(slot, id=slot.name) for slot in SEARCHABLE.values() if isinstance(slot, Parameter)]


def another_value(parameter: Parameter) -> Scalar:
    """A value that the schema allows and that is not the default."""
    if parameter.type is bool:
        return not parameter.default
    if parameter.check:
        return "resnet26"  # the only checked text is the name of a timm network
    if parameter.type is str and not parameter.options:
        return f"{parameter.default}x"
    if parameter.options:
        return next(option for option in parameter.options if option != parameter.default)
    low, high = parameter.range.low, parameter.range.high
    return next(value for value in (parameter.type(low), parameter.type(high)) if value != parameter.default)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_default_lies_in_its_own_range(parameter: Parameter) -> None:
    if parameter.default is not inspect.Parameter.empty:
        assert parameter.complaint(parameter.default) is None


@pytest.mark.parametrize(("slot", "name"), COMPONENTS)
def test_a_component_can_be_chosen_by_its_name_alone(slot: str, name: str) -> None:
    defaults = [parameter.default for parameter in SEARCHABLE[slot][name].parameters.values()]
    assert inspect.Parameter.empty not in defaults


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_number_that_may_be_searched_has_a_range(parameter: Parameter) -> None:
    assert (parameter.range is not None) == (parameter.type in (int, float) and not parameter.options)


def test_a_reader_of_films_has_no_hyperparameters() -> None:
    assert {name: dict(reader.parameters) for name, reader in readers.items()} == {name: {} for name in readers}


def test_the_six_searched_things_are_always_there() -> None:
    names = {"model", "schedule", "dropout", "loss", "sampler"}
    assert names <= set(SEARCHABLE)
    assert "residual_scale" in SEARCHABLE["model"]["inception_resnet"].parameters


def test_task_size_and_seed_are_not_searched() -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields - set(SEARCHABLE) == {"task", "image_size", "seed"}


@pytest.mark.parametrize(("slot", "name"), COMPONENTS)
def test_a_configuration_rebuilt_from_its_flat_names_is_the_same(
    slot: str, name: str, configure: Callable[..., TrainConfig]
) -> None:
    values = {key: another_value(parameter) for key, parameter in SEARCHABLE[slot][name].parameters.items()}
    config = configure(**{slot: Chosen(name, values)}, seed=7)
    rebuilt = TrainConfig.from_flat(config.flat, config.task, config.image_size, config.seed)
    assert getattr(rebuilt, slot) == Chosen(name, values)
    assert rebuilt.flat == config.flat
    assert (rebuilt.task, rebuilt.image_size, rebuilt.seed) == (config.task, 28, 7)


def test_flat_names_are_dotted_and_hold_the_defaults_of_the_chosen(configure: Callable[..., TrainConfig]) -> None:
    flat = configure(loss=Chosen("focal", {"gamma": 3.0}), sampler=Chosen("oversample")).flat
    chosen = {key: value for key, value in flat.items() if key.startswith(("loss", "sampler"))}
    assert chosen == {
        "loss": "focal",
        "loss.focal.gamma": 3.0,
        "loss.focal.alpha": None,
        "sampler": "oversample",
        "sampler.oversample.threshold": 0.2,
    }


def test_names_of_branches_that_are_not_chosen_are_passed_over(configure: Callable[..., TrainConfig]) -> None:
    config = configure()
    flat = {**config.flat, "model.densenet121.drop_rate": 0.3, "model.small_cnn_2.width": 5}
    assert TrainConfig.from_flat(flat, config.task, 28).flat == config.flat


def test_what_flat_names_leave_out_takes_its_default(configure: Callable[..., TrainConfig]) -> None:
    config = TrainConfig.from_flat({"model": "resnet18"}, configure().task, 28)
    assert config == TrainConfig(task=config.task, image_size=28, model=Chosen("resnet18"))


def test_a_configuration_cannot_be_changed(configure: Callable[..., TrainConfig]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        configure().lr = 1.0
