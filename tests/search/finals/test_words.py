"""The figures of finals in words."""

from search.finals.words import headline, reached

UNKNOWN = {"low": None, "high": None}
GAP = {"value": None, "low": None, "high": None, "labels": 0, "of_labels": 1}


def test_an_interval_that_is_unknown_is_not_told_as_one():
    """As where a single test patient has the only finding."""
    side = {"mean": 0.8, "sd": 0.01, **UNKNOWN}
    assert reached(side) == "0.8000 ± 0.0100"
    record = {"winner": 3, "metric": "auroc_macro", "sentence": "", "warnings": [], "gap": GAP}
    record["finalists"] = [{"trial": 3, "test": side, "trainings": [{}]}]
    first = headline(record, "3", "AUROC")[0]
    assert first == "The only finalist: trial 3, test AUROC 0.8000 (95 % interval unknown)."


def test_an_interval_that_is_known_is_in_brackets():
    assert reached({"mean": 0.8, "sd": None, "low": 0.7, "high": 0.9}) == "0.8000 [0.7000, 0.9000]"
