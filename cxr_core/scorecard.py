"""What a network reached on a split, in full and as JSON takes it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr_core.confusion import RATIOS, count
from cxr_core.metrics import EPOCH_METRICS, macro, per_label


def scorecard(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Every metric, as the mean over the findings where it is defined and of each finding; None where undefined.

    targets: (N, C) in {0, 1, NaN}. probabilities: (N, C). Calls are at 0.5 and, under `at_thresholds`, at those of each
    rule; thresholds: by rule, of each finding.
    """
    values = {name: per_label(metric, targets, probabilities) for name, metric in EPOCH_METRICS.items()}
    counts = {rule: count(targets, probabilities, np.array(scores)) for rule, scores in thresholds.items()}
    return {
        "films": len(targets),
        **_tell(values, labels),
        "at_thresholds": {
            rule: _tell({ratio: getattr(of_rule, ratio).tolist() for ratio in RATIOS}, labels)
            for rule, of_rule in counts.items()
        },
    }


def _tell(values: Mapping[str, Sequence[float]], labels: Sequence[str]) -> dict[str, Any]:
    return {
        "macro": {name: finite(macro(of_labels)) for name, of_labels in values.items()},
        "labels": {
            label: {name.removesuffix("_macro"): finite(of_labels[c]) for name, of_labels in values.items()}
            for c, label in enumerate(labels)
        },
    }


def finite(value: float) -> float | None:
    """The value as JSON takes it: None in place of NaN and infinity."""
    return value if math.isfinite(value) else None
