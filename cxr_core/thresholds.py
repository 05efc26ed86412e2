"""Thresholds: the score from which on a finding is called, fitted on validation films."""

import math
from typing import Literal, get_args

import numpy as np

from cxr_core.roc import Array, RocCurve, roc_curve

Rule = Literal["half", "youden", "f1", "sensitivity", "specificity"]


def fit_thresholds(targets: Array, scores: Array, rule: Rule, level: float | None = None) -> Array:
    """The threshold of each finding, (C,); a film is called if its score is at or above it.

    targets, scores: (N, C) of the validation split, never of the films that the calls are then judged on.
    A fitted threshold is a score of the split, or infinity, which calls nothing.

    - half: 0.5, whatever the films.
    - youden: greatest sensitivity + specificity - 1 (Youden 1950); of equal ones the highest, with the fewest calls.
    - f1: greatest F1; of equal ones the highest.
    - sensitivity: the highest with at least `level` of the films with the finding called.
    - specificity: the lowest with at least `level` of the films without the finding not called.

    NaN where the rule has nothing to go by: without positives (youden, f1, sensitivity), without negatives (youden,
    specificity), or with a NaN score. ValueError: an unknown rule, or a level missing, needless or outside (0, 1].
    """
    if rule not in get_args(Rule):
        raise ValueError(f"there is no threshold rule {rule!r}; rules are {', '.join(get_args(Rule))}")
    if (level is not None) != (rule in ("sensitivity", "specificity")):
        raise ValueError(f"the threshold rule {rule!r} {'takes no' if level is not None else 'needs a'} level")
    if level is not None and not 0 < level <= 1:
        raise ValueError(f"{rule} cannot be kept at {level}: a level is above 0 and at most 1")
    if rule == "half":
        return np.full(targets.shape[1], 0.5)
    curves = [roc_curve(targets[:, c], scores[:, c]) for c in range(targets.shape[1])]
    return np.array([_fitted(curve, rule, level or 0.0) for curve in curves])


def _fitted(curve: RocCurve, rule: Rule, level: float) -> float:
    positives, negatives = curve.positives, curve.negatives
    if (rule != "specificity" and not positives) or (rule in ("youden", "specificity") and not negatives):
        return float("nan")
    thresholds = np.append(np.inf, curve.thresholds)
    tp, fp = np.append(0, curve.tp), np.append(0, curve.fp)
    match rule:
        case "youden":
            # In whole numbers, so that equal ones are equal; argmax takes the first, which is the highest threshold.
            best = np.argmax(tp * negatives - fp * positives)
        case "f1":
            best = np.argmax(2 * tp / (tp + fp + positives))
        case "sensitivity":
            best = np.argmax(tp / positives >= level)
        case _:
            best = np.flatnonzero((negatives - fp) / negatives >= level)[-1]
    return float(thresholds[best])


def in_json(threshold: float) -> float | None:
    """A threshold for JSON, which lacks infinity: 2 calls nothing, either; None if none could be fitted."""
    return None if math.isnan(threshold) else min(threshold, 2.0)
