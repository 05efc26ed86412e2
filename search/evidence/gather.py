"""What the test films say of the training that is handed over."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_core.calibration import PlattScaling, reliability
from cxr_core.confusion import call_matrix, called, multilabel_confusion_matrix
from cxr_core.operating_points import REPORTED, OperatingPoint, operating_point
from cxr_core.roc import roc_curve
from cxr_core.thresholds import Rule
from search.evidence.groups import by_group, metadata_alone
from search.evidence.record import keep_evidence, read_evidence
from search.evidence.split import Array, Split, of_each
from search.finals.sealed_test import SealedTest
from search.study import Study

log = logging.getLogger(__name__)

RULES: tuple[tuple[Rule, float | None], ...] = (("youden", None), ("f1", None), ("sensitivity", 0.9))
"""Rules of the operating points, each with its level; the calls of groups and confusion matrices are by the first."""

_PROBABILITY = ("ece", "brier", "log_loss")


def gather_evidence(study: Study, record: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Write `evidence.json` of the training that a record of finals delivers, unless it is there.

    Takes a minute for 25,000 films with 14 findings. The films are those of the kept scores: nothing is opened.
    """
    if read_evidence(study.folder, record):
        return
    log.info("gathering evidence: what training %d makes of the test films", record["delivered"])
    training = study.trial(record["delivered"])
    films = pd.read_parquet(study.folder / "films.parquet")
    splits = (Split(table, scores, tuple(labels)) for table, scores in SealedTest(study).told_of(training))
    evidence = evidence_of(films[films["split"] == "train"], *splits)
    keep_evidence(study.folder, record, {"trial": training.number, **evidence})


def evidence_of(train: pd.DataFrame, validation: Split, test: Split) -> dict[str, Any]:
    """All that is told; train: the training films' table. NaN where undefined.

    Everything that is fitted (thresholds, calibration, metadata) is fitted on training or validation films.
    """
    points = [_point(validation, test, rule, level) for rule, level in RULES]
    first = points[0]
    return {
        "labels": list(test.labels),
        "films": {"validation": validation.count(), "test": test.count()},
        "positives": {"validation": validation.positives(), "test": test.positives()},
        "resamples": test.resamples,
        "discrimination": _discrimination(test),
        "calibration": _calibration(validation, test),
        "operating_points": {_name(point): _tell_point(test, point) for point in points},
        "confusion": _confusion(test, first.thresholds),
        "groups": by_group(test, first.thresholds),
        "metadata": metadata_alone(train, test),
    }


def _discrimination(test: Split) -> dict[str, Any]:
    """AUROC and AUPRC, and the curves that they are the areas under."""
    areas = test.estimate(("auroc_macro", "auprc_macro"))

    def curves(c: int) -> dict[str, Any]:
        curve = roc_curve(test.targets[:, c], test.scores[:, c])
        (fpr, tpr), (recall, precision) = curve.roc_points(), curve.pr_points()
        rates = {"fpr": fpr, "tpr": tpr, "recall": recall, "precision": precision}
        films = curve.positives + curve.negatives
        prevalence = curve.positives / films if films else float("nan")
        band = {name: np.round(values, 5) for name, values in test.roc_band(c).items()}
        return {
            **{name: np.round(values, 5) for name, values in rates.items()},
            "band": band,
            "prevalence": prevalence,
        }

    return {
        "auroc": test.tell("auroc_macro", areas["auroc_macro"]),
        "auprc": test.tell("auprc_macro", areas["auprc_macro"]),
        "curves": of_each(test.labels, curves),
    }


def _calibration(validation: Split, test: Split) -> dict[str, Any]:
    """How well the scores mean what they say, as they are and after Platt scaling that validation films fitted.

    Means before and after are over the findings that could be fitted.
    """
    scaling = PlattScaling.fit(validation.targets, validation.scores)
    splits = {"before": test, "after": test.scored(scaling(test.scores))}
    errors = {side: split.estimate(_PROBABILITY) for side, split in splits.items()}
    sides: dict[str, dict[str, Any]] = {}
    for side, split in splits.items():
        told: dict[str, Any] = {name: split.tell(name, errors[side][name]) for name in _PROBABILITY}
        for name in _PROBABILITY:
            told[name]["mean"] = split.tell(name, errors[side][name].where(errors["after"][name]))["mean"]
        _forget_intervals(told["ece"])
        sides[side] = told | {"bins": of_each(test.labels, lambda c, of=split: _bins(of, c))}  # type: ignore[misc]
    fitted = of_each(
        test.labels, lambda c: {"slope": float(scaling.slope[c]), "intercept": float(scaling.intercept[c])}
    )
    return {"method": "Platt scaling", "fitted": fitted, **sides}


def _forget_intervals(told: dict[str, Any]) -> None:
    """Of the calibration error: chance opens the gap of each bin, and once more in a resample, so that resamples lie
    above it (its plug-in estimate is biased: Kumar, Liang & Ma 2019, arXiv:1909.10155, sec. 5).
    """
    for one in (told["mean"], *told["labels"].values()):
        one |= {"low": float("nan"), "high": float("nan")}
        if not np.isnan(one["value"]):
            one.pop("why", None)


def _bins(split: Split, label: int) -> dict[str, Any]:
    found = reliability(split.targets[:, label], split.scores[:, label])
    return {"score": found.score, "share": found.share, "films": found.films}


def _point(validation: Split, test: Split, rule: Rule, level: float | None) -> OperatingPoint:
    known = (validation.targets, validation.scores), (test.targets, test.scores)
    return operating_point(*known, test.patients, rule, level, resamples=test.resamples)


def _name(point: OperatingPoint) -> str:
    return point.rule if point.level is None else f"{point.rule} {point.level:.2f}"


def _tell_point(test: Split, point: OperatingPoint) -> dict[str, Any]:
    ratios = {name: test.tell(name, point.ratios[name], point.thresholds) for name in REPORTED}

    def told(c: int) -> dict[str, Any]:
        threshold = float(point.thresholds[c])
        counts = {name: int(getattr(point.counts, name)[c]) for name in ("tp", "fp", "tn", "fn")}
        # JSON knows no infinity: such a threshold is none, and calls nothing.
        return {"threshold": threshold, "calls_nothing": threshold == np.inf, **counts}

    return {"labels": of_each(test.labels, told), **ratios}


def _confusion(test: Split, thresholds: Array) -> dict[str, Any]:
    """Matrices of several findings at the first rule's thresholds; None for one finding."""
    if len(test.labels) == 1:
        return {"rule": RULES[0][0], "calls": None, "calls_or_none": None, "mistakes": None}
    calls = called(test.scores, thresholds)
    return {
        "rule": RULES[0][0],
        "calls": call_matrix(test.targets, calls),
        "calls_or_none": call_matrix(test.targets, calls, no_finding=True),
        "mistakes": multilabel_confusion_matrix(test.targets, calls),
    }
