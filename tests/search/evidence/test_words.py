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
    expected = "Age and sex alone, without the film, reach 0.600 [0.550, 0.650]: the network is better by 0.200"
    assert shortcut(both).startswith(expected)
    assert shortcut(metadata(["view"], told(0.6, 0.5, 0.7), told(0.1, 0, 0.2))).startswith(
        "View alone, without the film, reaches"
    )
    assert "is unknown" in shortcut(metadata([]))
    assert "too few patients" in shortcut(metadata(["sex"], told(0.6), told(0.1)))


def test_the_area_of_several_findings_says_over_how_many_it_is_a_mean():
    area = {"discrimination": {"auroc": {"mean": told(0.8, 0.7, 0.9, labels=12)}}, "trial": 7}
    assert "macro AUROC over 12 of 14 findings 0.800 [" in delivered({**area, "labels": ["x"] * 14})
    assert delivered({**area, "labels": ["x"]}) == "Handed over is training 7: test AUROC 0.800 [0.700, 0.900]."


def test_the_groups_that_lie_farthest_apart_are_named():
    values = {"sex": {"female": 0.8, "male": 0.82}, "view": {"AP": 0.7, "PA": 0.9}, "age": {"80 and over": 0.1}}
    groups = [
        {"kind": kind, "name": name, "auroc": {"mean": told(area, area - 0.05, area + 0.05)}}
        for kind, named in values.items()
        for name, area in named.items()
    ]
    said = spread({"groups": {"groups": groups}})
    assert said == "Farthest apart by view: AP 0.700 [0.650, 0.750], PA 0.900 [0.850, 0.950]."
    assert spread({"groups": {"groups": groups[-1:]}}) == ""


def test_columns_that_a_data_set_lacks_are_named():
    assert untold(["age", "view"]) == "The data set does not tell age or view of its test films."
    assert untold([]) == ""
