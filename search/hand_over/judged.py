"""What a training reaches on a split, as rows of a table: metrics of each finding with their intervals."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from search.evidence.split import Array, Split
from search.evidence.words import in_words

METRICS = {
    "auroc_macro": "AUROC",
    "auprc_macro": "AUPRC",
    "brier": "Brier score",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
"""What is told, by the names of EPOCH_METRICS, and how a reader knows it; the last two are of calls at a threshold."""


def rows(split: Split, thresholds: Array) -> Iterator[tuple[str, ...]]:
    """The finding, its films, and each of METRICS; of several findings a last row of their means.

    thresholds: (C,), NaN where none could be fitted.
    """
    found = split.estimate(tuple(METRICS), thresholds)
    told = [split.tell(name, found[name], thresholds) for name in METRICS]
    positives, labelled = split.positives(), (~np.isnan(split.targets)).sum(axis=0)
    for label, films in zip(split.labels, labelled, strict=True):
        yield label, f"{positives[label]:,} of {films:,}", *(in_words(of["labels"][label]) for of in told)
    if len(split.labels) > 1:
        yield "mean", "", *(_mean(of["mean"], len(split.labels)) for of in told)


def _mean(told: Mapping[str, Any], labels: int) -> str:
    over = f" over {told['labels']} of {labels}" if 0 < told["labels"] < labels else ""
    return in_words(told) + over
