"""Space files: what is read, and how mistakes are told."""

import math
from pathlib import Path

import pytest

from cxr_core.domains import Branches, Fixed, Interval, OneOf
from cxr_core.labels import CHESTXRAY14
from cxr_core.located_yaml import SpaceError
from search.space import load_space
from tests.search.conftest import SPACE

SPACES = Path(__file__).parents[2] / "spaces"


@pytest.fixture
def mistakes(tmp_path):
    """The messages about a space file, without the folder."""

    def read(text, *overrides):
        path = tmp_path / "broken.yaml"
        path.write_text(text)
        with pytest.raises(SpaceError) as refused:
            load_space(path, list(overrides))
        return [str(mistake).replace(f"{tmp_path}/", "") for mistake in refused.value.mistakes]

    return read


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_searches_the_six_things(path):
    space = load_space(path)
    models = space.domains["model"].branches
    assert {"model", "schedule", "dropout", "loss", "sampler"} <= set(space.domains)
    assert len(models) >= 2
    assert "residual_scale" in models["inception_resnet"]


@pytest.mark.parametrize("path", sorted(SPACES.glob("recipes/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_leaves_nothing_to_search(path):
    space = load_space(SPACES / "multilabel.yaml", [f"baselines=[{path}]"])
    assert space.baselines[0].flat["model"]


def test_a_label_set_may_be_named(make_space):
    text = SPACE.replace("binary", "multilabel").replace("[Pneumonia]", "chestxray14")
    assert make_space(text).task.labels == CHESTXRAY14


def test_the_data_section_is_a_data_policy(make_space):
    space = make_space(
        SPACE, "data.aspect=pad", "data.views=[PA]", "data.folds=5", "data.fold=4", "data.uncertain=ones"
    )
    policy = space.header.data.policy
    assert (policy.aspect, policy.views, policy.folds, policy.fold) == ("pad", ("PA",), 5, 4)
    assert (policy.uncertain, policy.duplicates, policy.allow_missing) == ("ones", "refuse", False)


def test_keys_of_the_data_section_that_cannot_hold_together_are_a_mistake(mistakes):
    (mistake,) = mistakes(SPACE, "data.fold=3")
    assert mistake.endswith(": data: fold 3 does not exist; there are no folds, counted from 0")


def test_a_binary_task_may_choose_its_negatives(make_space):
    assert make_space(SPACE, "task.against=no_finding").task.against == "no_finding"
    assert make_space(SPACE).task.against == "rest"


def test_only_a_binary_task_chooses_its_negatives(mistakes):
    text = SPACE.replace("binary", "multilabel").replace("[Pneumonia]", "[Pneumonia, Mass]")
    (mistake,) = mistakes(text, "task.against=no_finding")
    assert "task.against: only a binary task chooses its negatives" in mistake


def test_every_form_of_a_domain_is_read(make_space):
    space = make_space(
        SPACE,
        "space.batch_size={choice: [16, 32]}",
        "space.loss={choice: [bce, weighted_bce]}",
        "space.sampler=uniform",
        "space.optimizer={sgd: {momentum: 0.9}}",
        "space.epochs={int: [2, 8], step: 2}",
    )
    assert space.domains["lr"] == Interval(1e-4, 1e-2, log=True)
    assert space.domains["batch_size"] == OneOf((16, 32))
    assert space.domains["loss"] == Branches({"bce": {}, "weighted_bce": {}})
    assert space.domains["sampler"] == Branches({"uniform": {}})
    assert space.domains["optimizer"] == Branches({"sgd": {"momentum": Fixed(0.9)}})
    assert space.domains["epochs"] == Interval(2, 8, step=2, whole=True)


def test_numbers_are_those_of_yaml_1_2(make_space):
    assert make_space(SPACE, "space.lr=1e-4").domains["lr"] == Fixed(1e-4)
    assert math.isclose(make_space(SPACE, "space.lr={float: [1e-5, 1E-2]}").domains["lr"].low, 1e-5)


def test_no_is_not_false(mistakes):
    assert mistakes(SPACE, "space.dropout=no") == ["--set space.dropout=no: space.dropout: must be a number, not 'no'"]


def test_all_mistakes_are_told_at_once_with_line_and_remedy(mistakes):
    text = """name: broken
task: {kind: multilable, labels: chestxray41}
data: {image_size: 4, validaton: 0.1}
objective: {metric: auroc_macro, direction: minimize}
asha: {rungs: [0.2, 0.05]}
space:
  modle: {choice: {small_cnn: {}}}
  loss: {choice: {weighted_bce: {capp: 3, cap: {float: [50, 1]}}, fokal: {}}}
  lr: {float: [0.0, 1e-2], log: true}
  epochs: {int: [1, 5], stp: 2}
"""
    known = "did you mean 'chestxray14'?"
    assert mistakes(text) == [
        "broken.yaml:2: task.kind: should be 'multilabel' or 'binary'",
        f"broken.yaml:2: task.labels: there is no label set 'chestxray41'; {known}, or list the labels",
        "broken.yaml:3: data.image_size: should be greater than or equal to 8",
        "broken.yaml:3: data.validaton: there is no key 'validaton' here; did you mean 'validation'?",
        "broken.yaml:4: objective.direction: auroc_macro is better when it is maximized",
        "broken.yaml:5: asha.rungs: rungs are rising fractions of a schedule, between 0 and 1",
        "broken.yaml:7: space.modle: there is nothing named 'modle' to search; did you mean 'model'?",
        "broken.yaml:8: space.loss.weighted_bce.capp: weighted_bce has no parameter 'capp'; did you mean 'cap'?",
        "broken.yaml:8: space.loss.weighted_bce.cap: the lowest value 50 is not below the highest 1",
        "broken.yaml:8: space.loss.fokal: there is no loss 'fokal'; did you mean 'focal'?",
        "broken.yaml:9: space.lr: must lie in [1e-08, 10], not be 0.0",
        "broken.yaml:10: space.epochs.stp: unknown; did you mean 'step'?",
        "broken.yaml:6: space.model: is missing: name an architecture family, or a choice of several",
    ]


def test_a_key_given_twice_is_refused_with_both_lines(mistakes):
    told = mistakes(SPACE + "  epochs: 12\n")
    line = SPACE.count("\n") + 1
    assert told == [f"broken.yaml:{line}: space.epochs: given twice; the first is at broken.yaml:{line - 1}"]


@pytest.mark.parametrize(
    ("domain", "complaint"),
    [
        ("{float: [0.1, 0.9], log: 1}", "log must be true or false, not 1"),
        ("{float: [0.1, 0.9], step: -1}", "step must be a number above 0, not -1"),
        ("{float: [0.1, 0.9], log: true, step: 0.1}", "log and step exclude each other"),
        ("{float: [0.0, 0.5], log: true}", "a log range must start above 0, not at 0.0"),
        ("{float: [0.5]}", "float must give a lowest and a highest value: {float: [LOW, HIGH]}"),
        ("{flaot: [0, 1]}", "must be a value, {float: [LOW, HIGH]}, {int: [LOW, HIGH]} or {choice: [VALUE, ...]}"),
        ("{choice: []}", "choice must list its values: {choice: [VALUE, ...]}"),
        ("0.99", "must lie in [0, 0.95], not be 0.99"),
        (".nan", "must be finite, not nan"),
        ("true", "must be a number, not True"),
    ],
)
def test_a_bad_range_says_what_is_wrong_with_it(mistakes, domain, complaint):
    assert mistakes(SPACE, f"space.dropout={domain}") == [f"--set space.dropout={domain}: space.dropout: {complaint}"]


def test_a_number_that_must_be_whole_takes_no_range_of_floats(mistakes):
    (told,) = mistakes(SPACE, "space.epochs={float: [1, 9]}")
    assert told.endswith("space.epochs: takes int values, not a range of float")


def test_accuracy_is_no_objective_for_several_labels(mistakes):
    text = SPACE.replace("binary, labels: [Pneumonia]", "multilabel, labels: [Mass, Nodule]")
    (told,) = mistakes(text, "objective={metric: accuracy}")
    assert "accuracy is no objective for several labels" in told


def test_a_binary_task_has_one_label(mistakes):
    (told,) = mistakes(SPACE, "task.labels=[Mass, Nodule]")
    assert told.endswith("task.labels: a binary task has one label, not 2")


def test_text_that_is_no_yaml_is_told_with_its_line(mistakes):
    (told,) = mistakes("name: tiny\ntask: {kind: binary\n")
    assert told.startswith("broken.yaml:3: not YAML:")


def test_an_empty_file_is_told(mistakes):
    assert mistakes("") == ["broken.yaml: a space file is a mapping: name, task, data, objective, space"]


def test_a_missing_file_is_told_with_the_nearest_name():
    with pytest.raises(SpaceError, match=r"multilable.yaml: no such file; did you mean .*multilabel.yaml"):
        load_space(SPACES / "multilable.yaml")


def test_an_override_reaches_any_key(make_space):
    space = make_space(SPACE, "data.image_size=64", "budget.time=1h30m", "space.model.choice.small_cnn.width=16")
    assert space.header.data.image_size == 64
    assert space.header.budget.time == 5400
    assert space.domains["model"].branches["small_cnn"] == {"width": Fixed(16)}


def test_an_override_of_an_unknown_key_is_a_mistake(mistakes):
    (told,) = mistakes(SPACE, "data.image_sise=64")
    assert told.endswith("data.image_sise: there is no key 'image_sise' here; did you mean 'image_size'?")


def test_a_mistake_in_a_baseline_is_told_in_its_own_file(mistakes, tmp_path):
    (tmp_path / "bad.yaml").write_text("name: bad\nspace: {model: small_cnn}\n")
    told = mistakes(SPACE, "baselines=[bad.yaml]")
    assert told == [f"bad.yaml:1: {key}: is missing" for key in ("task", "data", "objective")]


def test_a_baseline_that_leaves_something_to_search_is_refused(mistakes, tmp_path):
    (tmp_path / "open.yaml").write_text(SPACE)
    (told,) = mistakes(SPACE, "baselines=[open.yaml]")
    assert told.endswith("a recipe leaves nothing to search; fix every parameter")


def test_a_saved_space_reads_back_the_same(make_space, tmp_path):
    space = make_space(SPACE, "data.image_size=64", f"baselines=[{SPACES / 'recipes' / 'three_conv.yaml'}]")
    folder = tmp_path / "saved"
    folder.mkdir()
    space.save(folder)
    again = load_space(folder / "space.yaml")
    assert again.header.data == space.header.data
    assert again.domains == space.domains
    assert again.baselines == space.baselines
