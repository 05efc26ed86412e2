"""Calls against the truth: counts of each finding, the ratios made of them, and which finding is called which."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Calls = NDArray[np.bool_]
Matrix = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """True and false positives and negatives: arrays of one shape, films on none of their axes.

    A ratio is NaN where its denominator is 0: nothing was called (precision), everything was (npv), no film has the
    finding (sensitivity), all have it (specificity), none is labelled (all ratios). It is not set to 0, which would
    pull a mean over findings down for a question that was not asked.
    """

    tp: Array
    fp: Array
    tn: Array
    fn: Array

    @property
    def accuracy(self) -> Array:
        """Share of the labelled films that are called rightly."""
        return _ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn)

    @property
    def precision(self) -> Array:
        """Share of the called films that have the finding, also named positive predictive value."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> Array:
        """Negative predictive value: share of the films that are not called that do not have the finding."""
        return _ratio(self.tn, self.tn + self.fn)

    @property
    def sensitivity(self) -> Array:
        """Share of the films with the finding that are called, also named recall."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Array:
        """Share of the films without the finding that are not called."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def f1(self) -> Array:
        """Harmonic mean of precision and recall; 0, not undefined, if the finding exists and nothing is called."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def bcr(self) -> Array:
        """(P + R) / 2 with P precision and R recall, as studies of ChestX-ray14 report it; NaN if either is.

        Others give this name, balanced classification rate, to what is `balanced_accuracy` here.
        """
        return (self.precision + self.sensitivity) / 2

    @property
    def balanced_accuracy(self) -> Array:
        """Mean of sensitivity and specificity; NaN if either is."""
        return (self.sensitivity + self.specificity) / 2


RATIOS = ("accuracy", "precision", "npv", "sensitivity", "specificity", "f1", "bcr", "balanced_accuracy")
"""The ratios of `Counts` by name."""


def called(scores: Array, thresholds: Array | float = 0.5) -> Calls:
    """Whether each score is a call, which it is from its threshold on; thresholds: one, or one of each finding."""
    return np.asarray(scores >= np.asarray(thresholds, np.float64))


def count(targets: Array, scores: Array, thresholds: Array | float = 0.5) -> Counts:
    """Counts over the labelled films; targets, scores: (N, C) or (N,), thresholds: (C,) or one for all.

    A finding whose threshold, or one of whose labelled films' scores, is NaN has counts of 0, so undefined ratios.
    """
    thresholds = np.asarray(thresholds, np.float64)
    known = ~np.isnan(targets)
    usable = ~(np.isnan(scores) & known).any(axis=0) & ~np.isnan(thresholds)
    calls, known = called(scores, thresholds), known & usable
    truth = targets == 1
    tp, positives, calls_made, films = ((m & known).sum(axis=0) for m in (truth & calls, truth, calls, known))
    return Counts(tp=tp, fp=calls_made - tp, tn=films - positives - calls_made + tp, fn=positives - tp)


def call_matrix(targets: Array, calls: Calls, no_finding: bool = False) -> Matrix:
    """Films with finding i (row) on which finding j (column) is called; targets, calls: (N, C).

    Each true finding of a film counts against each called one, so a film with several is in several cells, and cell
    (i, i) over the films with i is the sensitivity. With no_finding a last row and column count films without any true
    and without any called finding: 15 x 15 for ChestX-ray14. Entries that are not labelled are neither true nor called;
    a film without a labelled entry is left out.
    """
    truth, calls = _labelled_films(targets, calls)
    if no_finding:
        truth, calls = (np.column_stack([m, ~m.any(axis=1)]) for m in (truth, calls))
    return _products(truth, calls)


def multilabel_confusion_matrix(targets: Array, calls: Calls) -> Matrix:
    """MLCM (Heydarian, Doyle & Samavi 2022, IEEE Access 10:19083): mistakes only, (C + 1, C + 1).

    Rows are true findings and, last, films without any; columns are called findings and, last, none. A finding that is
    true and called counts in its diagonal cell only. What is left of a film counts once for each pair of a missed and a
    wrongly called finding. With nothing wrongly called, each missed finding counts in the last column; with
    nothing missed, each wrong call counts in the row of every true finding, or in the last row of a film that has none.
    So the rows of findings do not add up to their films. (The authors' own program pairs each missed finding with one
    wrong call instead, in the order of the labels.)
    targets, calls: (N, C). Entries that are not labelled are neither true nor called; a film without a labelled entry
    is left out.
    """
    truth, calls = _labelled_films(targets, calls)
    missed, wrong = truth & ~calls, calls & ~truth
    healthy, silent = ~truth.any(axis=1), ~calls.any(axis=1)
    blamed = np.where(missed.any(axis=1, keepdims=True), missed, truth)
    nothing_instead = missed & ~wrong.any(axis=1, keepdims=True)

    findings = _products(blamed, wrong) + np.diag((truth & calls).sum(axis=0))
    last_column = np.append(nothing_instead.sum(axis=0), (healthy & silent).sum())
    last_row = wrong[healthy].sum(axis=0)
    return np.column_stack([np.vstack([findings, last_row]), last_column]).astype(np.int64)


def _labelled_films(targets: Array, calls: Calls) -> tuple[Calls, Calls]:
    known = ~np.isnan(targets)
    films = known.any(axis=1)
    return np.asarray(targets == 1)[films], np.asarray(calls & known)[films]


def _products(rows: Calls, columns: Calls) -> Matrix:
    # In floating point, where a product of matrices is fast, and exact up to 2^53 films.
    return np.rint(rows.T.astype(np.float64) @ columns.astype(np.float64)).astype(np.int64)


def _ratio(part: Array | Matrix, whole: Array | Matrix) -> Array:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))
