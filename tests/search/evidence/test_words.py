"""The evidence in words: what is undefined, what is better, and what cannot be told."""

import pytest

from search.evidence.words import compared, delivered, in_words, shortcut, spread, untold


def told(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high, **more}


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (told(0.9, 0.85, 0.94), "0.900 [0.850, 0.940]"),
        (told(0.9, why="fewer than 5 patients"), "0.900 (fewer than 5 patients)"),
        (told(None, why="no film has it"), "undefined (no film has it)"),
        (told(None), "undefined"),
    ],
)
def test_a_figure_has_its_interval_or_why_there_is_none(figure, said):
    assert in_words(figure) == said


@pytest.mark.parametrize(
    ("gained", "said"),
    [
        (told(0.1, 0.05, 0.15), "better by 0.100 [0.050, 0.150]"),
        (told(-0.1, -0.15, -0.05), "worse by 0.100 [0.050, 0.150]"),
        (told(0.1, -0.05, 0.25), "not credibly better: the difference is +0.100 [-0.050, +0.250]"),
    ],
)
def test_a_difference_is_called_one_only_if_its_interval_leaves_zero_out(gained, said):
    assert compared(gained) == said


def metadata(columns, alone=None, gained=None):
    return {"metadata": {"columns": columns, "auroc": {"alone": {"mean": alone}, "gained": {"mean": gained}}}}


def test_metadata_alone_are_told_with_what_the_network_adds():
    both = metadata(["age", "sex"], told(0.6, 0.55, 0.65), told(0.2, 0.1, 0.3))
    alone, gained = "Age and sex alone, without the film, reach a test AUROC of 0.600 [0.550, 0.650]", "better by 0.200"
    assert shortcut(both).startswith(f"{alone}: the network is {gained} [")
    assert shortcut(metadata(["view"], told(0.6, 0.5, 0.7), told(0.1, 0, 0.2))).startswith(
        "View alone, without the film, reaches"
    )
    assert "is unknown" in shortcut(metadata([]))
    assert "too few patients" in shortcut(metadata(["sex"], told(0.6), told(0.1)))


def test_the_area_of_several_findings_says_over_how_many_it_is_a_mean():
    area = {"discrimination": {"auroc": {"mean": told(0.8, 0.7, 0.9, labels=12)}}, "trial": 7}
    assert "macro AUROC over 12 of 14 findings 0.800 [" in delivered({**area, "labels": ["x"] * 14})
    assert "macro AUROC over 12 findings 0.800 [" in delivered({**area, "labels": ["x"] * 12})
    assert delivered({**area, "labels": ["x"]}) == "Handed over is training 7: test AUROC 0.800 [0.700, 0.900]."


def group(kind, name, area, labels=3):
    return {"kind": kind, "name": name, "auroc": {"mean": told(area, area - 0.05, area + 0.05, labels=labels)}}


def test_the_groups_that_lie_farthest_apart_are_named():
    known = [
        group("sex", "female", 0.8),
        group("sex", "male", 0.82),
        group("view", "AP", 0.7),
        group("view", "PA", 0.9),
    ]
    said = "Farthest apart by view: AP 0.700 [0.650, 0.750], PA 0.900 [0.850, 0.950]."
    assert spread({"groups": {"groups": known}}) == said
    not_comparable = [group("view", "unknown", 0.1), group("sex", "other", 0.1), group("age", "80 and over", 0.1)]
    fewer_findings = [group("view", "LATERAL", 0.2, labels=1)]
    assert spread({"groups": {"groups": [*known, *not_comparable, *fewer_findings]}}) == said
    assert spread({"groups": {"groups": not_comparable}}) == ""


def test_columns_that_a_data_set_lacks_are_named():
    assert untold(["age", "view"]) == "The data set does not tell age or view of its test films."
    assert untold([]) == ""
