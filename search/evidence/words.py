"""The evidence's figures in words, for the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.sentences import listed


def in_words(told: Mapping[str, Any], signed: bool = False, digits: int = 3) -> str:
    """A value and its interval, such as `0.912 [0.880, 0.941]`, or why there is none."""
    if _is_unknown(told["value"]):
        return f"undefined ({told['why']})" if "why" in told else "undefined"
    value = f"{told['value']:{'+' if signed else ''}z.{digits}f}"
    if _is_unknown(told["low"]):
        return f"{value} ({told['why']})" if "why" in told else value
    low, high = (f"{told[end]:{'+' if signed else ''}z.{digits}f}" for end in ("low", "high"))
    return f"{value} [{low}, {high}]"


def _is_unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)


def delivered(evidence: Mapping[str, Any]) -> str:
    """What is handed over, and what it reaches by itself."""
    area, labels = evidence["discrimination"]["auroc"]["mean"], len(evidence["labels"])
    count = f"{labels}" if area["labels"] == labels else f"{area['labels']} of {labels}"
    of = f"macro AUROC over {count} findings" if labels > 1 else "AUROC"
    return f"Handed over is training {evidence['trial']}: test {of} {in_words(area)}."


def shortcut(evidence: Mapping[str, Any]) -> str:
    """What metadata alone would have told, and whether the network is better than that."""
    metadata = evidence["metadata"]
    if not metadata["columns"]:
        return "The data set does not tell age, sex or view, so what these alone would predict is unknown."
    alone, gained = metadata["auroc"]["alone"]["mean"], metadata["auroc"]["gained"]["mean"]
    who = listed(metadata["columns"]).capitalize()
    reach = "reach" if len(metadata["columns"]) > 1 else "reaches"
    said = f"{who} alone, without the film, {reach} a test AUROC of {in_words(alone)}"
    if gained["value"] is None or gained["low"] is None:
        return f"{said}; too few patients to compare it with the network."
    return f"{said}: the network is {compared(gained)}."


def compared(gained: Mapping[str, Any]) -> str:
    """A difference in favour of the first, with its interval and whether that leaves zero out."""
    if gained["low"] > 0:
        return f"better by {in_words(gained)}"
    if gained["high"] < 0:
        return f"worse by {in_words({**gained, **_turned(gained)})}"
    return f"not credibly better: the difference is {in_words(gained, signed=True)}"


def _turned(told: Mapping[str, Any]) -> dict[str, float]:
    return {"value": -told["value"], "low": -told["high"], "high": -told["low"]}


def calibrated(evidence: Mapping[str, Any]) -> str:
    """What calibration did to the errors of the probabilities."""
    before, after = (evidence["calibration"][side] for side in ("before", "after"))
    pairs = [(name, before[key]["mean"], after[key]["mean"]) for name, key in _ERRORS]
    if any(side["value"] is None for _, *sides in pairs for side in sides):
        return "Calibration is undefined: validation or test films lack a class."
    said = "; ".join(f"{name} {in_words(b)} before and {in_words(a)} after" for name, b, a in pairs)
    fitted, of = after[_ERRORS[0][1]]["mean"]["labels"], len(evidence["labels"])
    over = f", over the {fitted} of {of} findings that validation films could fit" if fitted < of else ""
    return f"{said[0].upper()}{said[1:]}{over}."


_ERRORS = (("calibration error (ECE)", "ece"), ("Brier score", "brier"), ("log loss", "log_loss"))


def spread(evidence: Mapping[str, Any]) -> str:
    """Between which groups AUROC differs most, of those known and with as many findings; empty if there are no two."""
    widest: tuple[float, str] = (0.0, "")
    groups = evidence["groups"]["groups"]
    for kind in dict.fromkeys(group["kind"] for group in groups):
        known = [g for g in groups if g["kind"] == kind and g["auroc"]["mean"]["low"] is not None]
        most = max((g["auroc"]["mean"]["labels"] for g in known), default=0)
        known = [g for g in known if g["auroc"]["mean"]["labels"] == most and g["name"] not in ("unknown", "other")]
        if len(known) > 1:
            low, high = (pick(known, key=lambda g: g["auroc"]["mean"]["value"]) for pick in (min, max))
            apart = high["auroc"]["mean"]["value"] - low["auroc"]["mean"]["value"]
            said = (
                f"Farthest apart by {kind}: {low['name']} {in_words(low['auroc']['mean'])}, "
                f"{high['name']} {in_words(high['auroc']['mean'])}."
            )
            widest = max(widest, (apart, said))
    return widest[1]


def untold(columns: Sequence[str]) -> str:
    """Which columns a data set lacks; empty if none."""
    return f"The data set does not tell {listed(columns, 'or')} of its test films." if columns else ""
