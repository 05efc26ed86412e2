"""Ensembles: which networks to take together, and how their opinions become one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr_core.confusion import called
from cxr_core.metrics import EPOCH_METRICS, macro, per_label
from cxr_core.roc import Array

_ROUNDING = 1e-12
"""Two metrics that differ by less are equal: the mean of a model and itself is the model only nearly."""


@dataclass(frozen=True)
class Selection:
    """Models that were selected. counts: (M,), how often each one was taken. value: the metric of their mean."""

    counts: tuple[int, ...]
    value: float


def select_models(
    targets: Array,
    scores: Array,
    metric: str,
    *,
    best: int = 5,
    steps: int = 25,
    bags: int = 0,
    share: float = 0.5,
    seed: int = 0,
) -> Selection:
    """Greedy forward selection with replacement (Caruana et al. 2004, ICML, sec. 2) on films that no model has seen.

    targets: (N, C) in {0, 1, NaN}. scores: (M, N, C) probabilities. metric: a name of EPOCH_METRICS, whose mean over
    the findings is improved.
    It begins with as many of the `best` models as are best together, added from the best one down (sorted
    initialisation, sec. 2.2), then adds, `steps` times, the model with which the mean of the probabilities is best; one
    may be added again (sec. 2.1). Of all ensembles on the way the best is the result, and of equal ones the smallest.
    Of models that are equally good to add, the one that is better alone is added; of those, the first.
    bags: with more than 0, each of so many searches knows a random `share` of the models, and their counts are added
    up (bagged selection, sec. 2.3), against the luck of the films. The result is the same for the same seed.

    Raises ValueError if the metric is undefined for every model.
    """
    of_label = EPOCH_METRICS[metric]
    sign = 1 if of_label.direction == "maximize" else -1

    def quality(of_films: Array) -> float:
        value = sign * macro(per_label(of_label, targets, of_films))
        return -np.inf if np.isnan(value) else value

    scores = scores.astype(np.float64)
    alone = [quality(model) for model in scores]
    ranked = sorted(range(len(scores)), key=lambda model: (-alone[model], model))
    if not ranked or alone[ranked[0]] == -np.inf:
        raise ValueError(f"{metric} is undefined for every model on these films")
    counts = np.zeros(len(scores), np.int64)
    for known in _bags(ranked, bags, share, seed):
        np.add.at(counts, _climb(quality, scores, known, best, steps), 1)
    value = macro(per_label(of_label, targets, mean_probability(scores, counts)))
    return Selection(tuple(counts.tolist()), value)


def _bags(ranked: Sequence[int], bags: int, share: float, seed: int) -> list[list[int]]:
    """The models that each search knows, from the best down."""
    if not bags:
        return [list(ranked)]
    rng, size = np.random.default_rng(seed), max(1, round(share * len(ranked)))
    return [[ranked[place] for place in sorted(rng.permutation(len(ranked))[:size])] for _ in range(bags)]


def _climb(quality: Callable[[Array], float], scores: Array, ranked: Sequence[int], best: int, steps: int) -> list[int]:
    """The models taken, in their order; one may be there several times."""
    total, begun = np.zeros(scores.shape[1:]), []
    for count, model in enumerate(ranked[: max(1, best)], 1):
        total = total + scores[model]
        begun.append(quality(total / count))
    first = 1 + _first_best(begun)
    path, values = list(ranked[:first]), begun[:first]
    total = scores[path].sum(axis=0)
    for _ in range(steps):
        reached = [quality((total + scores[model]) / (len(path) + 1)) for model in ranked]
        winner = _first_best(reached)
        path.append(ranked[winner])
        values.append(reached[winner])
        total = total + scores[path[-1]]
    return path[: 1 + _first_best(values)]


def _first_best(values: Sequence[float]) -> int:
    """Place of the greatest value; of those that differ by rounding, the first."""
    return int(np.argmax(np.array(values) >= max(values) - _ROUNDING))


def mean_probability(scores: Array, weights: Sequence[float] | NDArray) -> Array:
    """Weighted mean of the models' probabilities, (N, C); scores: (M, N, C), weights: (M,), of any sum above 0."""
    return np.asarray(np.average(scores.astype(np.float64), axis=0, weights=np.asarray(weights)))


def majority_vote(scores: Array, thresholds: Array) -> Array:
    """Hard voting: what most models call, finding by finding: (N, C) of 1 (called), 0 (not) or NaN (nobody votes).

    scores: (M, N, C). thresholds: (M, C), each model's own; from it on the model's vote is a call, as in
    `confusion.called`. A model whose threshold for a finding is NaN does not vote on it, nor one whose score is NaN.
    A tie says that the votes do not know; the probabilities behind them may: a tied film is called if the mean of
    the voters' probabilities is at or above the mean of their thresholds. (To call all ties, or none, would shift the
    operating point of every ensemble of even size.)
    """
    thresholds = np.asarray(thresholds, np.float64)[:, None, :]
    votes = ~np.isnan(thresholds) & ~np.isnan(scores)
    voters, calls = votes.sum(axis=0), (called(scores, thresholds) & votes).sum(axis=0)
    probabilities, points = (np.where(votes, of, 0.0).sum(axis=0) for of in (scores, thresholds))
    majority = np.where(2 * calls == voters, probabilities >= points, 2 * calls > voters)
    return np.where(voters > 0, majority.astype(np.float64), np.nan)
