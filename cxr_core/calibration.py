"""Whether a score of 0.3 means 3 in 10: reliability of the scores, and Platt scaling, fitted on validation films."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr_core.metrics import CALIBRATION_BINS, calibration_bin
from cxr_core.roc import Array, labelled

_FARTHEST = 1e-7
"""Scores are kept this far from 0 and 1, as for the log loss: their logits are finite."""


@dataclass(frozen=True)
class Reliability:
    """The bins of the calibration error that hold a film, lowest first; all arrays are (B,).

    score: mean score of the bin's films. share: share of them that have the finding. films: how many they are.
    """

    score: Array
    share: Array
    films: NDArray[np.int64]


def reliability(targets: Array, scores: Array) -> Reliability:
    """The reliability diagram of one finding (DeGroot & Fienberg 1983), in the bins of `expected_calibration_error`.

    targets, scores: (N,); without a labelled film, or with a NaN score, there are no bins.
    """
    targets, scores = labelled(targets, scores)
    if np.isnan(scores).any():
        targets, scores = targets[:0], scores[:0]
    bins = calibration_bin(scores)
    films = np.bincount(bins, minlength=CALIBRATION_BINS)
    held = films > 0
    sums = (np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[held] for values in (scores, targets))
    score, share = (of / films[held] for of in sums)
    return Reliability(score, share, films[held])


@dataclass(frozen=True)
class PlattScaling:
    """Calibrated score = sigmoid(slope * logit + intercept), of each finding (Platt 1999, eq. 1).

    slope, intercept: (C,); NaN for a finding that the validation films lack, or have on all of them.

    Two parameters a finding, because class weights and oversampling move all logits of a finding by a constant, which a
    temperature (Guo et al. 2017) cannot take back, while isotonic regression wants more positives than rare findings
    have (Niculescu-Mizil & Caruana 2005). A positive slope leaves the order of the films, and so AUROC, as it was.
    """

    slope: Array
    intercept: Array

    @classmethod
    def fit(cls, targets: Array, scores: Array) -> "PlattScaling":
        """Maximum likelihood on validation films; targets, scores: (N, C), NaN targets are left out.

        Targets are (P + 1) / (P + 2) and 1 / (Q + 2) of P positives and Q negatives (Platt 1999, sec. 2.2), not 1 and
        0: so the fit is finite where the scores separate the classes.
        """
        fitted = [_fit(*labelled(targets[:, c], scores[:, c])) for c in range(targets.shape[1])]
        slope, intercept = np.array(fitted, np.float64).reshape(-1, 2).T
        return cls(slope, intercept)

    def __call__(self, scores: Array) -> Array:
        """Calibrated scores, (N, C); NaN for findings that could not be fitted."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * _logits(scores) + self.intercept))))


def _fit(targets: Array, scores: Array) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression  # a second to import

    positives = int((targets == 1).sum())
    negatives = len(targets) - positives
    if not positives or not negatives or np.isnan(scores).any():
        return float("nan"), float("nan")
    likely = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A film with target t is t of a positive one and 1 - t of a negative one.
    logits = _logits(np.append(scores, scores))[:, None]
    classes = np.repeat([1, 0], len(scores))
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(logits, classes, sample_weight=np.append(likely, 1 - likely))
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _logits(scores: Array) -> Array:
    p = np.clip(scores.astype(np.float64), _FARTHEST, 1 - _FARTHEST)
    return np.asarray(np.log(p / (1 - p)))
