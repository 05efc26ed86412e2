"""Sections on the training that is handed over: what the test films say of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.evidence import words
from search.evidence.words import in_words
from search.report import evidence_figures as figures
from search.report.drawing import draw
from search.report.evidence_figures import name_of
from search.report.reading import Reading
from search.sentences import listed

_RATIOS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "positive predictive value",
    "npv": "negative predictive value",
}
_RULES = {
    "youden": "Greatest sensitivity + specificity (Youden)",
    "f1": "Greatest F1",
    "sensitivity 0.90": "Sensitivity of 0.90",
}
"""As a heading says them; a rule that is not here is told by its name."""


def performance(reading: Reading) -> dict[str, Any] | None:
    """ROC and precision-recall curves, and the areas under them with intervals."""
    evidence = reading.evidence
    if not evidence:
        return None
    found, positives = evidence["discrimination"], evidence["positives"]["test"]
    rows = [
        {
            "label": name_of(label),
            "auroc": in_words(found["auroc"]["labels"][label]),
            "auprc": in_words(found["auprc"]["labels"][label]),
            "positives": positives[label],
            "prevalence": found["curves"][label]["prevalence"],
        }
        for label in evidence["labels"]
    ]
    means = {area: found[area]["mean"] for area in ("auroc", "auprc")}
    return {
        "trial": evidence["trial"],
        "films": evidence["films"]["test"],
        "rows": rows,
        "means": {area: in_words(mean) for area, mean in means.items()},
        "averaged": means["auroc"]["labels"],
        "banded": len(rows) == 1 and bool(found["curves"][evidence["labels"][0]]["band"]["fpr"]),
        "roc": draw(figures.roc(found)),
        "precision_recall": draw(figures.precision_recall(found)),
    }


def operating_points(reading: Reading) -> dict[str, Any] | None:
    """What is called at the thresholds of each rule."""
    evidence = reading.evidence
    if not evidence:
        return None
    points = [
        {
            "rule": _RULES.get(rule, rule),
            "rows": [_point(label, point) for label in evidence["labels"]],
            "means": [in_words(point[ratio]["mean"]) for ratio in _RATIOS],
        }
        for rule, point in evidence["operating_points"].items()
    ]
    return {"points": points, "ratios": list(_RATIOS.values())}


def _point(label: str, point: Mapping[str, Any]) -> dict[str, Any]:
    told = point["labels"][label]
    threshold = "none called" if told["calls_nothing"] else "none fitted"
    return {
        "label": name_of(label),
        "threshold": threshold if told["threshold"] is None else f"{told['threshold']:.3g}",
        "ratios": [in_words(point[ratio]["labels"][label]) for ratio in _RATIOS],
    }


def calibration(reading: Reading) -> dict[str, Any] | None:
    """Reliability diagrams and errors before and after Platt scaling."""
    evidence = reading.evidence
    if not evidence:
        return None
    before, after = (evidence["calibration"][side] for side in ("before", "after"))
    labels = evidence["labels"]
    return {
        "sentence": words.calibrated(evidence),
        "tiles": [
            (name_of(label), draw(figures.reliability(before["bins"][label], after["bins"][label])))
            for label in labels
            if before["bins"][label]["films"]
        ],
        "rows": [
            {
                "label": name_of(label),
                "sides": [
                    in_words(side[error]["labels"][label]) for error in ("ece", "brier") for side in (before, after)
                ],
                **evidence["calibration"]["fitted"][label],
            }
            for label in labels
        ],
    }


def confusion(reading: Reading) -> dict[str, Any] | None:
    """Right and wrong calls of each finding, and which finding is called which."""
    evidence = reading.evidence
    if not evidence:
        return None
    found, labels = evidence["confusion"], list(map(name_of, evidence["labels"]))
    point, none = evidence["operating_points"][found["rule"]], [*labels, "none"]
    matrices = (
        ("True finding (row) and called finding (column)", "calls", labels),
        ("The same, with films without any", "calls_or_none", none),
        ("Mistakes only (MLCM)", "mistakes", none),
    )
    return {
        "rule": found["rule"],
        "tables": [(name_of(label), point["labels"][label]) for label in evidence["labels"]],
        "matrices": [(title, _shaded(found[key], names)) for title, key, names in matrices if found[key]],
    }


def _shaded(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, Any]:
    """Rows of counts with each one's share of its row, which shades it."""
    rows = [
        (name, [(count, count / sum(row) if sum(row) else 0.0) for count in row])
        for name, row in zip(names, matrix, strict=True)
    ]
    return {"names": names, "rows": rows}


def groups(reading: Reading) -> dict[str, Any] | None:
    """Results by sex, age and view."""
    evidence = reading.evidence
    if not evidence:
        return None
    found, labels = evidence["groups"]["groups"], evidence["labels"]
    single = labels[0] if len(labels) == 1 else None
    return {
        "untold": words.untold(evidence["groups"]["unknown"]),
        "spread": words.spread(evidence),
        "single": single and name_of(single),
        "figure": draw(figures.group_areas(found)) if found else None,
        "rows": [_group(group, single) for group in found],
        "details": [] if single else [(name_of(label), [_of_label(g, label) for g in found]) for label in labels],
    }


def _group(group: Mapping[str, Any], single: str | None) -> dict[str, Any]:
    """A line of the table; of one finding, with its own figures, so that their reasons are told."""
    measured = ("auroc", "sensitivity", "specificity")
    sides = [group[name]["labels"][single] if single else group[name]["mean"] for name in measured]
    return {
        **{key: group[key] for key in ("kind", "name", "films", "patients")},
        "positives": sum(group["positives"].values()),
        "values": [in_words(side) for side in sides],
        "averaged": group["auroc"]["mean"]["labels"],
    }


def _of_label(group: Mapping[str, Any], label: str) -> dict[str, Any]:
    measured = ("auroc", "sensitivity", "specificity")
    return {
        "name": f"{group['kind']}: {group['name']}",
        "positives": group["positives"][label],
        "values": [in_words(group[name]["labels"][label]) for name in measured],
    }


def shortcuts(reading: Reading) -> dict[str, Any] | None:
    """What age, sex and view alone would have told."""
    evidence = reading.evidence
    if not evidence:
        return None
    metadata, labels = evidence["metadata"], evidence["labels"]
    told: dict[str, Any] = {"sentence": words.shortcut(evidence), "figure": None, "rows": []}
    if metadata["columns"]:
        sides = [metadata["auroc"][side] for side in ("alone", "network", "gained")]
        told["figure"] = draw(figures.alone_and_network(metadata))
        told["rows"] = [
            (name_of(label), [in_words(side["labels"][label], signed=side is sides[-1]) for side in sides])
            for label in labels
        ]
        told["columns"] = listed(metadata["columns"])
        told["untold"] = words.untold(metadata["missing"])
    return told
