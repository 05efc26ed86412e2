"""What can be read as a table of learning curves, and what is said of what cannot."""

import json

import numpy as np
import pytest

from cxr_core.domains import Interval, OneOf
from search.curve_table import Neighbours, TableError, read_table, table_of_study
from search.trial import Outcome
from tests.search.conftest import drawn, epoch_record


def line(epochs=3, done=None, top=0.5, **parameters):
    points = [
        {
            "epoch": epoch,
            "time": 2.0 * (epoch + 1),
            "train_loss": 1.0 / (epoch + 1),
            "top_1": top * (epoch + 1) / epochs,
        }
        for epoch in range(epochs if done is None else done)
    ]
    return {"epochs": epochs, "lr": 0.1, **parameters, "learning_curve": points}


@pytest.fixture
def write(tmp_path):
    def to(*lines):
        path = tmp_path / "table.jsonl"
        path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
        return path

    return to


def test_a_line_becomes_a_configuration_a_curve_and_the_seconds_of_each_epoch(write):
    table = read_table(write(line(3, top=0.6, lr=0.2), line(2, top=0.4)))
    curve = table.curves[0]
    assert curve.flat == {"epochs": 3, "lr": 0.2}
    assert curve.values == pytest.approx((0.2, 0.4, 0.6))
    assert curve.seconds == (2.0, 2.0, 2.0)
    assert table.mean_seconds == 5.0


def test_the_metric_is_by_default_the_first_that_is_no_loss(write):
    path = write(line(), line(lr=0.2))
    assert (read_table(path).metric, read_table(path).maximize) == ("top_1", True)
    assert not read_table(path, "train_loss").maximize


def test_a_curve_shorter_than_its_schedule_diverged(write):
    table = read_table(write(line(top=0.3), line(lr=0.2, top=0.4), line(5, done=2, lr=9.0, top=0.9)))
    assert [curve.diverged for curve in table.curves] == [False, False, True]
    assert table.best(0) == pytest.approx(0.4)


def test_a_value_that_is_not_finite_ends_the_curve(write):
    broken = line(3, lr=9.0)
    broken["learning_curve"][1]["top_1"] = float("nan")
    table = read_table(write(line(), line(lr=0.2), broken))
    assert table.curves[2].diverged
    assert len(table.curves[2].values) == 1


def test_the_best_share_of_the_real_table_counts_diverged_trainings(real_data):
    table = read_table(real_data / "curves" / "alexnet_imagenet.jsonl")
    rows = [json.loads(text) for text in (real_data / "curves" / "alexnet_imagenet.jsonl").read_text().splitlines()]
    finals = sorted((r["learning_curve"][-1]["top_1"] for r in rows if not r["nan_train_loss"]), reverse=True)
    assert len(table.curves) == 512
    assert sum(curve.diverged for curve in table.curves) == 147
    assert table.best(0.01) == finals[4]  # 1 % of 512 are 5
    assert table.best(0.02) == finals[9]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{", "table.jsonl:2: "),
        ("[1]", "table.jsonl:2: is no JSON object"),
        ({"lr": 1.0, "learning_curve": []}, "table.jsonl:2: epochs: must be there"),
        ({"epochs": 3, "lr": 1.0}, "table.jsonl:2: learning_curve: must be there"),
        (line(2) | {"epochs": 1}, "table.jsonl:2: 2 epochs of a schedule of 1"),
        (line() | {"lr": [1, 2]}, "table.jsonl:2: lr: must be a number"),
        ({"epochs": 1, "learning_curve": [{"epoch": 0, "top_1": 0.1}]}, "table.jsonl:2: has no 'time'"),
        ({"epochs": 1, "learning_curve": [{"epoch": 0, "top_1": 0.1, "time": 0.0}]}, "time must rise"),
    ],
)
def test_a_line_that_is_no_training_is_named(write, wrong, said):
    with pytest.raises(TableError) as fault:
        read_table(write(line(), wrong, line()))
    assert said in str(fault.value)


def test_an_unknown_metric_is_told_with_the_nearest_known_one(write):
    with pytest.raises(TableError, match=r"table\.jsonl:1: .*'top1'; did you mean 'top_1'\?"):
        read_table(write(line(), line()), "top1")


def test_a_missing_or_empty_table_is_told(tmp_path):
    with pytest.raises(TableError, match="cannot be read"):
        read_table(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(TableError, match="is empty"):
        read_table(tmp_path / "empty.jsonl")


def test_of_trainings_with_one_configuration_the_first_is_kept(write):
    table = read_table(write(line(top=0.3), line(top=0.9), line(lr=0.2)))
    assert table.repeated == 1
    assert table.curves[0].values[-1] == pytest.approx(0.3)


def test_columns_become_ranges_and_choices(write):
    rates = [1e-4, 1e-3, 1e-2, 0.1]
    rows = [line(epochs=3 + i, lr=rate, batch=2 ** (i % 3), loss="bce") for i, rate in enumerate(rates)]
    domains = read_table(write(*rows)).domains
    assert domains["lr"] == Interval(1e-4, 0.1, log=True, whole=False)
    assert domains["batch"] == OneOf((1, 2, 4))
    assert domains["loss"] == OneOf(("bce",))


def test_a_space_file_beside_a_table_says_what_was_searched(write, make_space):
    path = write(line(), line(lr=0.2))
    path.with_suffix(".yaml").write_text(
        "name: x\ntask: {kind: binary, labels: [Pneumonia]}\ndata: {image_size: 28}\n"
        "objective: {metric: auroc_macro}\nspace: {model: small_cnn, lr: {float: [1e-3, 1.0], log: true}, epochs: 3}\n"
    )
    assert read_table(path).domains["lr"] == Interval(1e-3, 1.0, log=True, whole=False)
    path.with_suffix(".yaml").write_text("name: x\n")
    with pytest.raises(TableError, match=r"table\.yaml"):
        read_table(path)


def test_the_nearest_training_is_found_on_the_scale_of_each_range(write):
    table = read_table(write(*(line(lr=rate) for rate in (1e-4, 1e-2, 1e-1, 1.0))))
    near, free = Neighbours(table), np.ones(4, dtype=bool)
    assert near.nearest({"epochs": 3, "lr": 5e-4}, free) == 0  # on a linear scale 1e-2 is as near as 1e-4
    assert near.nearest({"epochs": 3, "lr": 0.05}, free) == 2
    free[2] = False
    assert near.nearest({"epochs": 3, "lr": 0.2}, free) == 3


def finished(study, space, number, outcome, epochs=10, lr_seconds=2.0):
    trial = drawn(study, space, seed=number)
    for epoch in range(1, epochs + 1):
        study.record(trial.number, epoch_record(epoch, 0.5 + 0.01 * number + 0.01 * epoch, lr_seconds))
    study.finish(trial.number, outcome, "because")


def test_a_study_gives_its_trainings_in_full_and_its_diverged_ones(make_space, make_study):
    space = make_space()
    study = make_study(space)
    finished(study, space, 0, Outcome.FULL)
    finished(study, space, 1, Outcome.PRUNED, epochs=1)
    finished(study, space, 2, Outcome.DIVERGED, epochs=4)
    finished(study, space, 3, Outcome.FULL)
    table = table_of_study(study.folder)
    assert [len(curve.values) for curve in table.curves] == [10, 4, 10]
    assert [curve.diverged for curve in table.curves] == [False, True, False]
    assert table.curves[0].seconds == (2.0,) * 10
    assert table.cut_short == 1
    assert table.domains == space.domains
    assert table.best(0) == pytest.approx(0.5 + 0.03 + 0.10)


def test_baselines_and_repeats_are_no_part_of_what_was_searched(make_space, make_study):
    space = make_space()
    study = make_study(space)
    finished(study, space, 0, Outcome.FULL)
    finished(study, space, 1, Outcome.FULL)
    again = study.add(study.trial(0).flat, 7, "again", repeats=0)
    study.record(again.number, epoch_record(1, 0.99))
    study.finish(again.number, Outcome.FULL)
    assert len(table_of_study(study.folder).curves) == 2


def test_a_study_can_be_searched_for_another_metric_that_it_kept(make_space, make_study):
    space = make_space()
    study = make_study(space)
    finished(study, space, 0, Outcome.FULL)
    finished(study, space, 1, Outcome.FULL)
    assert not table_of_study(study.folder, "log_loss").maximize
    with pytest.raises(TableError, match="trial 0: epoch 1 has no 'brier'"):
        table_of_study(study.folder, "brier")


def test_a_study_of_pruned_trials_says_how_to_record_a_table(make_space, make_study):
    space = make_space()
    study = make_study(space)
    finished(study, space, 0, Outcome.FULL)
    finished(study, space, 1, Outcome.PRUNED, epochs=1)
    with pytest.raises(TableError, match=r"1 were cut short.*--set asha\.mode=none"):
        table_of_study(study.folder)


def test_a_folder_without_a_study_is_told(tmp_path):
    with pytest.raises(TableError, match="there is no study here"):
        table_of_study(tmp_path)
