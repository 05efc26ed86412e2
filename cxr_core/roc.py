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

    def roc_points(self, cells: int = 200) -> tuple[Array, Array]:
        """False positive rate and sensitivity from (0, 0) to (1, 1), for a picture; both empty without either class.

        Of the points in one of `cells` x `cells` squares only the last one is kept: at most 2 `cells` + 2 are left, and
        each that is left out lies less than 1 / `cells` from one.
        """
        if not self.positives or not self.negatives:
            return np.empty(0), np.empty(0)
        fpr, tpr = (
            np.append(0, calls) / all_of for calls, all_of in ((self.fp, self.negatives), (self.tp, self.positives))
        )
        square = np.stack([np.floor(fpr * cells), np.floor(tpr * cells)])
        kept = np.append((square[:, 1:] != square[:, :-1]).any(axis=0), True)
        kept[0] = True
        return fpr[kept], tpr[kept]

    def pr_points(self, cells: int = 200) -> tuple[Array, Array]:
        """Recall and precision where recall grows, for a picture of steps to the left; both empty without positives.

        The first point stands for all that comes before it. Of the points in one of `cells` bands of recall only the
        last one is kept.
        """
        if not self.positives:
            return np.empty(0), np.empty(0)
        grows = np.diff(self.tp, prepend=0) > 0
        tp, fp = self.tp[grows], self.fp[grows]
        band = np.ceil(tp / self.positives * cells)
        kept = np.append(band[1:] != band[:-1], True)
        kept[0] = True
        return tp[kept] / self.positives, tp[kept] / (tp + fp)[kept]


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
