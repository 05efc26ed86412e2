"""Whether heat maps find what radiologists framed: the pointing game and the energy in the boxes, against chance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from cxr_core.explanation.placement import Rectangle, contains, coverage

_RESAMPLES = 2000


@dataclass(frozen=True)
class Located:
    """How a heat map and the boxes of one finding on one film agree.

    called: whether the probability reaches the threshold; None without one. hit: whether the map's brightest point lies
    in a box. energy: share of the map's sum that does. Of a map that is zero everywhere neither does. area: share of
    the film that lies in a box, which is what chance gives on both. centre: whether the film's centre lies in a box.
    """

    image: str
    patient: str
    label: str
    probability: float
    called: bool | None
    is_empty: bool
    hit: bool
    energy: float
    area: float
    centre: bool


def locate(
    heat: np.ndarray,
    boxes: Sequence[Rectangle],
    image: str,
    patient: str,
    label: str,
    probability: float,
    threshold: float,
) -> Located:
    """Judge one map of (S, S), 0 or above, by the boxes, in pixels of the square.

    The pointing game is that of Zhang et al. 2018 (Top-down neural attention by excitation backprop, Int. J. Comput.
    Vis. 126), without their tolerance of 15 px; the energy that of Wang et al. 2020 (Score-CAM, arXiv:1910.01279).
    """
    size = len(heat)
    covered, total = coverage(boxes, size), float(heat.sum())
    return Located(
        image=image,
        patient=patient,
        label=label,
        probability=probability,
        called=None if np.isnan(threshold) else bool(probability >= threshold),
        is_empty=total <= 0,
        hit=total > 0 and contains(boxes, *brightest(heat)),
        energy=float((heat * covered).sum() / total) if total > 0 else 0.0,
        area=float(covered.mean()),
        centre=contains(boxes, size / 2, size / 2),
    )


def brightest(heat: np.ndarray) -> tuple[float, float]:
    """X and y of the brightest point; of several, the one nearest to their mean: the middle of a plateau."""
    rows, columns = np.nonzero(heat == heat.max())
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5


def localisation(located: Sequence[Located], labels: Sequence[str]) -> dict[str, Any]:
    """Rates over all pairs of a film and a finding, over those whose finding was called, and of each finding."""
    called = [one for one in located if one.called]
    return {
        "overall": _rates(located),
        "called": _rates(called),
        "labels": {label: _rates(of) for label in labels if (of := [one for one in located if one.label == label])},
        "pairs": [asdict(one) for one in located],
    }


def _rates(located: Sequence[Located]) -> dict[str, Any]:
    """Counts, rates, 95 % intervals, and what chance gives; rates are None where there is no pair."""
    counts = {"pairs": len(located), "films": len({one.image for one in located})}
    counts |= {"patients": len({one.patient for one in located}), "empty_maps": sum(one.is_empty for one in located)}
    if not located:
        return {**counts, "pointing": None, "energy": None}
    hits = sum(one.hit for one in located)
    # Wilson: a bootstrap of a few films without a hit would say that none will ever come.
    wilson = binomtest(hits, len(located)).proportion_ci(0.95, method="wilson")
    area = float(np.mean([one.area for one in located]))
    energy, low, high = _mean_over_patients(located)
    return {
        **counts,
        "pointing": {
            "hits": hits,
            "rate": hits / len(located),
            "low": float(wilson.low),
            "high": float(wilson.high),
            "chance": area,
            "centre": float(np.mean([one.centre for one in located])),
        },
        "energy": {"mean": energy, "low": low, "high": high, "chance": area},
    }


def _mean_over_patients(located: Sequence[Located]) -> tuple[float, float | None, float | None]:
    """Mean energy and its interval over other patients (bootstrap of the patients); no interval for one patient."""
    patients, of = np.unique([one.patient for one in located], return_inverse=True)
    energies = np.array([one.energy for one in located])
    if len(patients) < 2:
        return float(energies.mean()), None, None
    sums, counts = np.bincount(of, weights=energies), np.bincount(of)
    drawn = np.random.default_rng(0).multinomial(len(patients), np.full(len(patients), 1 / len(patients)), _RESAMPLES)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), [2.5, 97.5])
    return float(energies.mean()), float(low), float(high)


def in_words(rates: Mapping[str, Any]) -> str:
    """What the overall rates say, in two sentences; empty without a pair."""
    if not rates["pairs"]:
        return ""
    pointing, energy = rates["pointing"], rates["energy"]
    seen = f"in {pointing['hits']} of {rates['pairs']} cases ({pointing['rate']:.0%}, 95 % interval "
    seen += f"{pointing['low']:.0%} to {pointing['high']:.0%})"
    chance = f"A point at random would in {pointing['chance']:.0%}, the film's centre does in {pointing['centre']:.0%}"
    baseline = max(pointing["chance"], pointing["centre"])
    if pointing["low"] > baseline:
        verdict = "the maps do better than both"
    elif pointing["high"] < baseline:
        verdict = "the maps do worse than the better of these"
    else:
        verdict = "the maps may do no better than these"
    first = f"The brightest point of the heat map lies in a box {seen}. {chance}: {verdict}."
    interval = "" if energy["low"] is None else f" (95 % interval {energy['low']:.0%} to {energy['high']:.0%})"
    second = f"The boxes hold {energy['mean']:.0%} of the maps' energy{interval} on {energy['chance']:.0%} of the area."
    return f"{first} {second}"
