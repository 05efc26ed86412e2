"""Operating points: thresholds fitted on validation films, and what they make of other films."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from cxr_core.confusion import Counts, count
from cxr_core.estimates import Estimate, estimate
from cxr_core.roc import Array
from cxr_core.thresholds import Rule, fit_thresholds

REPORTED = ("sensitivity", "specificity", "precision", "npv")
"""What is told of a threshold; precision is the positive predictive value."""


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """The thresholds of one rule, and what is called rightly and wrongly there.

    thresholds: (C,); infinity calls nothing, NaN could not be fitted. counts: of each finding. ratios: by the names in
    REPORTED.
    """

    rule: Rule
    level: float | None
    thresholds: Array
    counts: Counts
    ratios: dict[str, Estimate]


def operating_point(
    validation: tuple[Array, Array],
    test: tuple[Array, Array],
    patients: Sequence[object] | NDArray,
    rule: Rule,
    level: float | None = None,
    *,
    resamples: int = 2000,
) -> OperatingPoint:
    """Fit a rule's thresholds on validation films and judge them on the test films.

    validation, test: targets and scores, (N, C) each. patients: of the test films, over which the intervals are; the
    thresholds stay as they are fitted. rule, level, ValueError: as `fit_thresholds`.
    """
    thresholds = fit_thresholds(*validation, rule, level)
    targets, scores = test
    ratios = estimate(targets, scores, patients, REPORTED, thresholds=thresholds, resamples=resamples)
    return OperatingPoint(rule, level, thresholds, count(targets, scores, thresholds), ratios)
