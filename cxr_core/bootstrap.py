"""Patient bootstrap: how far a metric would move with other patients (Efron & Tibshirani 1993, ch. 6 and 13).

Patients are drawn with replacement, never films: films of one patient are near-duplicates, and drawing them singly
makes intervals too narrow. A film weighs as often as its patient was drawn, so scores are sorted once for all
resamples.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr_core.confusion import RATIOS, Counts, called
from cxr_core.metrics import CALIBRATION_BINS, EPOCH_METRICS, calibration_bin, log_losses
from cxr_core.roc import Array

BOOTSTRAPPED = tuple(dict.fromkeys([*EPOCH_METRICS, *RATIOS]))
"""Metrics that can be drawn again."""

_RANKED_AT_ONCE = 16
"""Resamples whose weights are summed at a time: with 25,596 films two arrays of 1.6 MB, which a core's cache holds."""

_SUMMED_AT_ONCE = 256
"""Resamples whose weights are double precision at a time: with 2,797 patients 6 MB."""


@dataclass(frozen=True)
class Interval:
    """Bounds that should hold the truth as often as their level says; defined: how many resamples they are from."""

    low: Array
    high: Array
    defined: NDArray[np.int64]


def bootstrap(
    targets: Array,
    scores: Array,
    patients: Sequence[object] | NDArray,
    metrics: Sequence[str] = ("auroc_macro",),
    *,
    thresholds: Array | float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Array]:
    """Each metric of each finding in each resample, by the metric's name: (R, C), or (R, M, C) of several models.

    targets: (N, C). scores: (N, C), or (M, N, C) of M models on the same films; the resamples are the same for all
    models, findings and metrics. patients: (N,), equal for films of one patient. metrics: names of EPOCH_METRICS or
    RATIOS; `macro_samples` takes the mean over findings. thresholds: of the calls, (C,) or one for all.
    threads: cores to use; all of this process's if None. The result does not depend on it.

    NaN where a metric is undefined in a resample, as when it holds no positive film. Holds 4 bytes for each patient in
    each resample (22 MB for 2,000 x 2,797), 8 for each result, and some MB a thread. ValueError: a metric of another
    name, or arrays that do not belong together.
    """
    if unknown := set(metrics) - set(BOOTSTRAPPED):
        raise ValueError(f"there is no metric {min(unknown)!r}; metrics are {', '.join(BOOTSTRAPPED)}")
    models = scores if scores.ndim == 3 else scores[None]
    if models.shape[1:] != targets.shape or len(patients) != len(targets):
        shapes = f"targets {targets.shape}, scores {scores.shape}, patients ({len(patients)},)"
        raise ValueError(f"not of the same films and findings: {shapes}")
    weights = _Weights.draw(np.asarray(patients), resamples, seed)
    thresholds = np.broadcast_to(np.asarray(thresholds, np.float64), targets.shape[1:])

    def of_one(task: tuple[int, int]) -> dict[str, Array]:
        model, label = task
        films = _Films.of_label(targets[:, label], models[model, :, label], weights.patient, thresholds[label])
        return _samples(films, metrics, weights.of_patient)

    tasks = [(model, label) for model in range(len(models)) for label in range(targets.shape[1])]
    with ThreadPoolExecutor(threads or _cores()) as pool:
        results = list(pool.map(of_one, tasks))
    shape = (resamples, len(models), targets.shape[1])
    stacked = {name: np.stack([of[name] for of in results], axis=1).reshape(shape) for name in metrics}
    return stacked if scores.ndim == 3 else {name: samples[:, 0] for name, samples in stacked.items()}


def sensitivity_samples(
    targets: Array,
    scores: Array,
    patients: Sequence[object] | NDArray,
    rates: Array,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Array:
    """One finding's sensitivity at given false positive rates in each resample of the patients: (R, G).

    For pointwise bands of a ROC curve (vertical averaging: Fawcett 2006, Pattern Recognition Letters 27:861, sec. 8.1).
    targets, scores, patients: (N,), NaN targets are left out. rates: (G,) in 0..1. Between two thresholds the curve is
    straight; where it rises at a rate, its upper end counts. The resamples are those of `bootstrap`. NaN in those
    without both classes, and everywhere if a score is NaN.
    """
    weights = _Weights.draw(np.asarray(patients), resamples, seed)
    films = _Films.of_label(targets, scores, weights.patient, float("nan"))
    found = np.full((resamples, len(rates)), np.nan)
    if not len(films.scores) or np.isnan(films.scores).any():
        return found
    patient, positive, ranked = films.ranked()
    last_of_tie = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    for row, drawn in zip(found, weights.of_patient, strict=True):
        weight = drawn[patient]
        tp = np.append(0, np.cumsum(weight * positive)[last_of_tie])
        fp = np.append(0, np.cumsum(weight)[last_of_tie]) - tp
        if tp[-1] and fp[-1]:
            # Rounded, as .29 of 100 is less than 29.
            row[:] = _upper_line(np.round(rates * fp[-1], 9), fp, tp) / tp[-1]
    return found


def _upper_line(at: Array, x: NDArray, y: NDArray) -> Array:
    """A line through points whose x never falls; where several lie at one x, the last."""
    before = np.searchsorted(x, at, side="right") - 1
    after = np.minimum(before + 1, len(x) - 1)
    run = x[after] - x[before]
    share = np.divide(at - x[before], run, out=np.zeros(len(at)), where=run > 0)
    return np.asarray(y[before] + share * (y[after] - y[before]))


def macro_samples(samples: Array) -> Array:
    """Mean over the findings, the last axis, that are defined in each resample; NaN where none is."""
    defined = ~np.isnan(samples)
    found = defined.sum(axis=-1)
    total = np.where(defined, samples, 0.0).sum(axis=-1)
    return divide(total, found)


def paired_difference(samples: Array, first: int, second: int) -> Array:
    """First model minus second on the same resamples; samples: (R, M, C) or (R, M).

    Difference first, mean over findings second: then the mean is over findings that are defined for both.
    """
    return np.asarray(samples[:, first] - samples[:, second])


def percentile_interval(samples: Array, level: float = 0.95) -> Interval:
    """The central `level` of the resamples, the first axis, among those where the metric is defined.

    NaN bounds where it is defined in none.
    """
    defined = np.asarray((~np.isnan(samples)).sum(axis=0))
    tail = (1 - level) / 2
    ordered = np.sort(samples, axis=0)  # NaN is last
    low, high = (_quantile(ordered, defined, q) for q in (tail, 1 - tail))
    return Interval(low, high, defined)


def _quantile(ordered: Array, defined: NDArray[np.int64], q: float) -> Array:
    place = q * np.maximum(defined - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(defined - 1, 0))
    values = [np.take_along_axis(ordered, index[None], axis=0)[0] for index in (below, above)]
    return np.asarray(values[0] + (place - below) * (values[1] - values[0]))


@dataclass(frozen=True)
class _Weights:
    """patient: (N,) index of each film's patient. of_patient: (R, P) int32, how often each is in each resample."""

    patient: NDArray[np.intp]
    of_patient: NDArray[np.int32]

    @staticmethod
    def draw(patients: NDArray, resamples: int, seed: int) -> "_Weights":
        names, patient = np.unique(patients, return_inverse=True)
        rng, count = np.random.default_rng(seed), len(names)
        of_patient = np.empty((resamples, count), np.int32)
        for row in of_patient:
            row[:] = np.bincount(rng.integers(count, size=count), minlength=count)
        return _Weights(patient, of_patient)


@dataclass(frozen=True)
class _Films:
    """The labelled films of one finding."""

    positive: NDArray[np.bool_]
    scores: Array
    patient: NDArray[np.intp]
    threshold: float

    @staticmethod
    def of_label(targets: Array, scores: Array, patient: NDArray[np.intp], threshold: float) -> "_Films":
        known = ~np.isnan(targets)
        return _Films(targets[known] == 1, scores[known].astype(np.float64), patient[known], float(threshold))

    def ranked(self) -> tuple[NDArray[np.intp], NDArray[np.bool_], Array]:
        """Patient, truth and score of each film, the highest score first."""
        order = np.argsort(-self.scores)
        return self.patient[order], self.positive[order], self.scores[order]


def _samples(films: _Films, metrics: Sequence[str], of_patient: NDArray[np.int32]) -> dict[str, Array]:
    if not len(films.scores) or np.isnan(films.scores).any():
        return {name: np.full(len(of_patient), np.nan) for name in metrics}
    samples: dict[str, Array] = {}
    if set(metrics) & _RANKED:
        samples |= _rank_samples(films, of_patient)
    if set(metrics) - _RANKED:
        samples |= _sum_samples(films, of_patient)
    return {name: samples[name] for name in metrics}


_RANKED = {"auroc_macro", "auprc_macro"}
"""Metrics of the order of the scores; all others are functions of sums over films."""


def _rank_samples(films: _Films, of_patient: NDArray[np.int32]) -> dict[str, Array]:
    auroc, auprc = np.full((2, len(of_patient)), np.nan)
    patient, positive, ranked = films.ranked()
    if not positive.any():
        return {"auroc_macro": auroc, "auprc_macro": auprc}

    # Only ties (runs of equal scores) with a positive film change either area.
    is_start = np.append(True, ranked[1:] != ranked[:-1])
    positives = np.flatnonzero(positive)
    tie, last = np.unique(np.cumsum(is_start)[positives], return_index=True)
    last_positive = np.append(last[1:], len(positives)) - 1
    bounds = np.append(np.flatnonzero(is_start), len(ranked))
    start, end = bounds[tie - 1], bounds[tie]

    films_above = np.zeros((_RANKED_AT_ONCE, len(ranked) + 1), np.int32)
    for first in range(0, len(of_patient), _RANKED_AT_ONCE):
        rows = slice(first, first + _RANKED_AT_ONCE)
        weight = of_patient[rows].take(patient, axis=1)
        above = films_above[: len(weight)]
        np.cumsum(weight, axis=1, out=above[:, 1:])
        tp = np.cumsum(weight.take(positives, axis=1), axis=1, dtype=np.int64)[:, last_positive]
        auroc[rows], auprc[rows] = _areas(tp, above[:, start], above[:, end], above[:, -1])
    return {"auroc_macro": auroc, "auprc_macro": auprc}


def _areas(tp: NDArray, above: NDArray, to_here: NDArray, films: NDArray) -> tuple[Array, Array]:
    """AUROC and AUPRC of b resamples from their K ties, highest first.

    tp: (b, K) weight of the positives down to each tie. above, to_here: (b, K) weight of all films above the tie, and
    with it. films: (b,) weight of all.
    """
    positives = tp[:, -1]
    negatives = films - positives
    gained = np.diff(tp, axis=1, prepend=0)
    fp_above, fp = above - (tp - gained), to_here - tp
    twice = (gained * (2 * negatives[:, None] - fp_above - fp)).sum(axis=1)
    auroc = divide(twice, 2 * positives * negatives)
    precision = np.divide(tp, to_here, out=np.zeros(tp.shape), where=to_here > 0)
    return auroc, divide((gained * precision).sum(axis=1), positives)


def _sum_samples(films: _Films, of_patient: NDArray[np.int32]) -> dict[str, Array]:
    targets, calls = films.positive.astype(np.float64), called(films.scores, films.threshold)
    judged = not np.isnan(films.threshold)
    counts = [films.positive & calls, ~films.positive & calls, ~films.positive & ~calls, films.positive & ~calls]
    columns = [np.ones(len(targets)), log_losses(targets, films.scores), np.square(targets - films.scores)]
    sums = _patient_sums([*columns, *(judged * c for c in counts)], films.patient, of_patient.shape[1])
    gaps = _calibration_gaps(films, of_patient.shape[1])

    terms = np.concatenate([sums, gaps], axis=1)
    rows = range(0, len(of_patient), _SUMMED_AT_ONCE)
    drawn = np.concatenate([of_patient[row : row + _SUMMED_AT_ONCE].astype(np.float64) @ terms for row in rows])
    total, loss, square, tp, fp, tn, fn, *gap = drawn.T
    ratios = Counts(tp, fp, tn, fn)
    return {
        "log_loss": divide(loss, total),
        "brier": divide(square, total),
        "ece": divide(np.abs(gap).sum(axis=0), total),
        **{name: getattr(ratios, name) for name in RATIOS},
    }


def _patient_sums(columns: list[NDArray], patient: NDArray[np.intp], patients: int) -> Array:
    return np.stack([np.bincount(patient, weights=column, minlength=patients) for column in columns], axis=1)


def _calibration_gaps(films: _Films, patients: int) -> Array:
    cell = films.patient * CALIBRATION_BINS + calibration_bin(films.scores)
    gaps = np.bincount(cell, weights=films.positive - films.scores, minlength=patients * CALIBRATION_BINS)
    return np.asarray(gaps.reshape(patients, CALIBRATION_BINS), np.float64)


def divide(part: NDArray, whole: NDArray) -> Array:
    """NaN where the divisor is not positive."""
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def _cores() -> int:
    """Cores this process may use, which on a cluster are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
