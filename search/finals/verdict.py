"""What repeated trainings say about the finalists: means, intervals, and which differences are more than noise."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr, ttest_ind_from_stats

from cxr_core.area_intervals import Support
from cxr_core.bootstrap import bootstrap, macro_samples, paired_difference, percentile_interval
from cxr_core.estimates import Estimate
from cxr_core.metrics import EPOCH_METRICS, defined_labels, macro, per_label
from search.finals.ties import TieBreaker, best_of, decision
from search.sentences import listed

Array = NDArray[np.floating]

_RESAMPLES = 2000
_CREDIBLE = 0.05
"""Probability, for all comparisons together, of calling a difference real that is none."""
_CEILING = 0.99
"""Of metrics whose best is 1: above it, what is left to gain is in few films."""
_BEST_IS_ONE = ("auroc_macro", "auprc_macro", "f1", "balanced_accuracy", "accuracy")
_RANKED = 3
"""Finalists from which on a rank correlation says anything."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One split and what the finalists' trainings make of it.

    targets: (N, C) in {0, 1, NaN}. patients: (N,). scores: by finalist, (S, N, C) probabilities of its S trainings.
    """

    targets: Array
    patients: NDArray
    scores: Mapping[int, Array]


@dataclass(frozen=True)
class Reached:
    """A finalist on one split: the metric of each training, their mean, and their standard deviation.

    low, high: 95 % interval of the mean over other patients, for these trainings. NaN where the metric is undefined.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A finalist's mean minus the winner's, on the same patients; low, high: 95 % interval.

    p: two-sided, from the bootstrap of the patients. p_seeds: of Welch's t-test over the seeds, NaN where one of the
    two has a single seed. p_holm: of both sources of noise, corrected for the finalists compared.
    """

    value: float
    low: float
    high: float
    p: float
    p_seeds: float
    p_holm: float

    @property
    def is_noise(self) -> bool:
        """Whether other patients or other seeds may well have given no difference, or the opposite one."""
        return not self.p_holm < _CREDIBLE


@dataclass(frozen=True)
class Standing:
    """The finalists on one split: what each reached, and how all but the winner differ from it.

    films: of the split. labels: over how many findings, of all, the metric is a mean.
    """

    films: int
    labels: int
    of_labels: int
    reached: Mapping[int, Reached]
    differences: Mapping[int, Difference]


@dataclass(frozen=True)
class Gap:
    """How much worse the winner is on test than on validation, over the findings that both splits define.

    low, high: 95 % interval. labels: how many findings these are, of all.
    """

    value: float
    low: float
    high: float
    labels: int
    of_labels: int


@dataclass(frozen=True)
class Verdict:
    """What is known of the finalists after the test split was opened.

    order: finalists by their mean on validation, the best first. winner: the best that may win; never chosen by test.
    tie: how a tie-breaker chose it among those that cannot be told from the best, empty if none did.
    spearman, kendall: of the means on validation and on test, NaN of fewer than three finalists. sentence: which
    differences on test are noise. warnings: why the choice may rest on chance.
    """

    metric: str
    order: tuple[int, ...]
    winner: int
    validation: Standing
    test: Standing
    gap: Gap
    spearman: float
    kendall: float
    sentence: str
    warnings: tuple[str, ...]
    tie: str = ""


def judge(
    validation: Scored,
    test: Scored,
    metric: str,
    may_win: Collection[int] | None = None,
    resamples: int = _RESAMPLES,
    breakers: Sequence[TieBreaker] = (),
) -> Verdict:
    """Choose the winner on validation and say how sure that is.

    may_win: finalists within the constraints; None is all. breakers: decide among those of them whose difference from
    the best on validation is within noise, of patients or of seeds. Raises ValueError if no finalist may win, or the
    splits are not of the same finalists.
    """
    if set(validation.scores) != set(test.scores):
        raise ValueError("validation and test are not of the same finalists")
    sign = 1 if EPOCH_METRICS[metric].direction == "maximize" else -1
    # Resamples of different patients must not run in step, or the interval of the gap would be of paired samples.
    on_validation, on_test = (_Resampled(of, metric, resamples, seed) for seed, of in enumerate((validation, test)))
    means = {number: reached.mean for number, reached in on_validation.reached.items()}
    order = tuple(sorted(means, key=lambda number: (-sign * means[number], number)))
    candidates = [number for number in order if may_win is None or number in may_win]
    if not candidates:
        raise ValueError("no finalist may win")
    winner, tie = _chosen(candidates, on_validation, metric, breakers)
    standings = [on.standing(winner) for on in (on_validation, on_test)]
    spearman, kendall = _rank_agreement(*({n: r.mean for n, r in of.reached.items()} for of in standings))
    return Verdict(
        metric=metric,
        order=order,
        winner=winner,
        validation=standings[0],
        test=standings[1],
        gap=_gap(on_validation, on_test, winner, sign),
        spearman=spearman,
        kendall=kendall,
        sentence=_sentence(winner, standings[1], sign),
        warnings=tuple(_warnings(metric, winner, standings[0], tie)),
        tie=tie,
    )


def _chosen(
    candidates: Sequence[int], validation: "_Resampled", metric: str, breakers: Sequence[TieBreaker]
) -> tuple[int, str]:
    """The winner, and how a tie-breaker chose it, if one did; candidates: the best on validation first."""
    leader = candidates[0]
    differences = validation.standing(leader).differences if breakers else {}
    always = any(breaker.always for breaker in breakers)
    tied = [n for n in candidates if n == leader or (breakers and (always or differences[n].is_noise))]
    if len(tied) == 1:
        return leader, ""
    winner = best_of(tied, breakers)
    return winner, decision(metric, winner, leader, tied, breakers)


def _gap(validation: "_Resampled", test: "_Resampled", winner: int, sign: int) -> Gap:
    """Finding by finding: means over different findings would differ though the network is equally good on both."""
    of_label = sign * (validation.of_label(winner) - test.of_label(winner))
    both = ~np.isnan(of_label)
    interval = percentile_interval(macro_samples(sign * (validation.drawn(winner) - test.drawn(winner))[:, both]))
    return Gap(macro(of_label), float(interval.low), float(interval.high), int(both.sum()), len(both))


class _Resampled:
    """One split's films, drawn again by patient: one bootstrap for all finalists and seeds."""

    def __init__(self, split: Scored, metric: str, resamples: int, seed: int):
        self.split = split
        self.numbers = list(split.scores)
        stacked = np.concatenate([split.scores[number] for number in self.numbers])
        samples = bootstrap(split.targets, stacked, split.patients, (metric,), resamples=resamples, seed=seed)[metric]
        ends = np.cumsum([len(split.scores[number]) for number in self.numbers])
        # Over the seeds first: then a finding is left out of a resample for all seeds alike. (R, F, C)
        self._means = np.stack([part.mean(axis=1) for part in np.split(samples, ends[:-1], axis=1)], axis=1)
        of_label = EPOCH_METRICS[metric]
        self._points = {n: [per_label(of_label, split.targets, one) for one in split.scores[n]] for n in self.numbers}
        self._support = Support.of(metric, split.targets, split.patients)
        self.labels = defined_labels(self._points[self.numbers[0]][0])
        self.reached = {number: self._reached(number) for number in self.numbers}

    def of_label(self, number: int) -> Array:
        """A finalist's metric of each finding, the mean over its seeds, (C,)."""
        return np.asarray(np.mean(self._points[number], axis=0))

    def drawn(self, number: int) -> Array:
        """The same in each resample, (R, C)."""
        return self._means[:, self.numbers.index(number)]

    def _reached(self, number: int) -> Reached:
        values = [macro(of) for of in self._points[number]]
        interval = Estimate.of(self.of_label(number).tolist(), self.drawn(number), self._support).mean_interval
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan  # `statistics` takes no NaN
        return Reached(tuple(values), fmean(values), sd, float(interval.low), float(interval.high))

    def standing(self, winner: int) -> Standing:
        """Against a winner."""
        others = [number for number in self.numbers if number != winner]
        samples = {number: self._difference(number, winner) for number in others}
        p = {number: bootstrap_p(of) for number, of in samples.items()}
        p_seeds = {n: _seeds_p(self.reached[n].values, self.reached[winner].values) for n in others}
        # A difference is real if neither patients nor seeds explain it: the larger p is that of both (Berger 1982).
        corrected = holm([np.fmax(p[n], p_seeds[n]) if not math.isnan(p[n]) else math.nan for n in others])
        differences = {}
        for number, p_holm in zip(others, corrected, strict=True):
            value = self.reached[number].mean - self.reached[winner].mean
            interval = percentile_interval(samples[number])
            low, high = float(interval.low), float(interval.high)
            differences[number] = Difference(value, low, high, p[number], p_seeds[number], p_holm)
        films, labels = self.split.targets.shape
        return Standing(films, self.labels, labels, self.reached, differences)

    def _difference(self, number: int, winner: int) -> Array:
        places = self.numbers.index(number), self.numbers.index(winner)
        return macro_samples(paired_difference(self._means, *places))


def bootstrap_p(differences: Array) -> float:
    """Two-sided p of no difference: twice the share of resamples beyond zero (Efron & Tibshirani 1993, ch. 15).

    differences: (R,); undefined resamples are left out, and NaN comes of none. Never 0, as R is finite (Davison &
    Hinkley 1997, eq. 4.11).
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return math.nan
    tails = [(1 + int(count)) / (1 + len(defined)) for count in ((defined <= 0).sum(), (defined >= 0).sum())]
    return min(1.0, 2 * min(tails))


def _seeds_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Welch's t-test; NaN where a spread is unknown. Spreads of 0 leave nothing to the seeds."""
    if min(len(one), len(other)) < 2 or np.isnan([*one, *other]).any():
        return math.nan
    if len(set(one)) == len(set(other)) == 1:
        return float(one[0] == other[0])
    spreads = [(np.mean(of), np.std(of, ddof=1), len(of)) for of in (one, other)]
    return float(ttest_ind_from_stats(*spreads[0], *spreads[1], equal_var=False).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in their order; NaN stays and counts as a comparison."""
    order = sorted(range(len(p)), key=lambda index: math.inf if math.isnan(p[index]) else p[index])
    corrected, largest = [math.nan] * len(p), 0.0
    for rank, index in enumerate(order):
        if not math.isnan(p[index]):
            largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
            corrected[index] = largest
    return corrected


def _rank_agreement(validation: Mapping[int, float], test: Mapping[int, float]) -> tuple[float, float]:
    """Spearman's and Kendall's correlation of two columns of means."""
    pairs = [(validation[number], test[number]) for number in validation]
    columns = np.array(pairs).T
    if len(pairs) < _RANKED or np.isnan(columns).any() or any(len(set(column)) == 1 for column in columns.tolist()):
        return math.nan, math.nan
    return float(spearmanr(*columns).statistic), float(kendalltau(*columns).statistic)


def _sentence(winner: int, test: Standing, sign: int) -> str:
    """Which differences on the test films are noise."""
    if not test.differences:
        return f"Trial {winner} is the only finalist: there is no difference to judge."
    groups: dict[str, list[int]] = {"noise": [], "worse": [], "better": []}
    for number, difference in test.differences.items():
        kind = "noise" if difference.is_noise else "better" if sign * difference.value > 0 else "worse"
        groups[kind].append(number)
    noise, worse, better = groups["noise"], groups["worse"], groups["better"]
    if not worse and not better:
        return (
            f"On the test films no finalist can be told from the winner, trial {winner}: "
            f"{_differences_from(noise)} within noise."
        )
    said = []
    if worse:
        said.append(f"the winner, trial {winner}, is better than {_named(worse)}")
    if better:
        said.append(f"{_named(better)} {_are(better)} better than the winner, trial {winner}")
    if noise:
        said.append(f"{_differences_from(noise)} within noise")
    return f"On the test films {listed(said)}."


def _differences_from(numbers: Sequence[int]) -> str:
    return f"its {'difference' if len(numbers) == 1 else 'differences'} from {_named(numbers)} {_are(numbers)}"


def _are(numbers: Sequence[int]) -> str:
    return "is" if len(numbers) == 1 else "are"


def _warnings(metric: str, winner: int, validation: Standing, tie: str) -> list[str]:
    said = [tie] if tie else []
    if not tie and (alike := [number for number, difference in validation.differences.items() if difference.is_noise]):
        said.append(
            f"On validation the winner, trial {winner}, cannot be told from {_named(alike)}: which of them is called "
            "the winner is left to chance."
        )
    if once := [number for number, reached in validation.reached.items() if len(reached.values) == 1]:
        was = "was" if len(once) == 1 else "were"
        said.append(f"{_named(once).capitalize()} {was} trained once: how far another seed would move that is unknown.")
    mean = validation.reached[winner].mean
    if metric in _BEST_IS_ONE and mean >= _CEILING:
        said.append(
            f"Validation is at the ceiling: the winner's {metric} there is {mean:.4f}, so few films tell the finalists "
            "apart, and their order on other films may be another one."
        )
    return said


def _named(numbers: Sequence[int]) -> str:
    return ("trial " if len(numbers) == 1 else "trials ") + listed([str(number) for number in numbers])
