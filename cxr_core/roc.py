"""The operating points of one finding: what each threshold calls right and wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class RocCurve:
    """Calls of one finding at each distinct score, highest first, where a score at the threshold is a call.

    thresholds, tp, fp: (K,). All are empty, and both classes 0, if no film is labelled or a labelled film's score is
    NaN: whatever is computed from the curve is then undefined.
    """

    thresholds: Array
    tp: Integers
    fp: Integers
    positives: int
    negatives: int

    @property
    def area(self) -> float:
        """Area under the ROC curve, ties counted half (Mann & Whitney 1947); NaN without either class."""
        if not self.positives or not self.negatives:
            return float("nan")
        # Whole numbers until the division: the area is the nearest float to the exact one.
        twice = np.diff(self.fp, prepend=0) * (self.tp + np.append(0, self.tp[:-1]))
        return int(twice.sum()) / (2 * self.positives * self.negatives)

    @property
    def average_precision(self) -> float:
        """Area under the precision-recall curve as a step function; NaN without positives."""
        if not self.positives:
            return float("nan")
        return float((np.diff(self.tp, prepend=0) * self.tp / (self.tp + self.fp)).sum() / self.positives)


def roc_curve(targets: Array, scores: Array) -> RocCurve:
    """The curve of one finding; targets, scores: (N,), NaN targets are left out."""
    targets, scores = labelled(targets, scores)
    if np.isnan(scores).any():
        targets, scores = targets[:0], scores[:0]
    order = np.argsort(-scores)
    ranked = scores[order]
    last_of_tie = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    tp = np.cumsum(targets[order] == 1, dtype=np.int64)[last_of_tie]
    fp = last_of_tie + 1 - tp
    return RocCurve(ranked[last_of_tie], tp, fp, int(tp[-1]) if len(tp) else 0, int(fp[-1]) if len(fp) else 0)


def labelled(targets: Array, scores: Array) -> tuple[Array, Array]:
    """The labelled films' targets and scores in double precision; both (N,)."""
    known = ~np.isnan(targets)
    return targets[known].astype(np.float64), scores[known].astype(np.float64)
