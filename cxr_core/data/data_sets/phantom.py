"""The built-in data set: 600 invented patients, whose frontal chest films show the 14 ChestX-ray14 findings."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxr_core.data.data_sets import phantom_chest, phantom_signs
from cxr_core.data.data_sets.phantom_chest import Box, Chest, Exposure, Film
from cxr_core.data.data_sets.phantom_signs import SIGNS
from cxr_core.data.source import DataError, Source, readers
from cxr_core.labels import CHESTXRAY14

PATIENTS = 600
_SEED = 20_171_110
_TEST_EVERY = 5  # each fifth patient is in the official test split
_MOST_FILMS = 8
_MOST_FINDINGS = 5
_WRONG_LABELS = 0.03  # share of signs that the report misses, and of labels that no sign stands behind

_INCIDENCE = {
    "Infiltration": 0.08,
    "Effusion": 0.065,
    "Atelectasis": 0.058,
    "Nodule": 0.034,
    "Mass": 0.03,
    "Pneumothorax": 0.044,
    "Consolidation": 0.035,
    "Pleural_Thickening": 0.022,
    "Cardiomegaly": 0.017,
    "Emphysema": 0.021,
    "Edema": 0.032,
    "Fibrosis": 0.022,
    "Pneumonia": 0.024,
    "Hernia": 0.02,
}
"""Chance that a finding is new on a film of a patient of burden 1, in the order of ChestX-ray14's counts.

The rare ones are inflated, so that each has some positives; the chronic ones are lower, as they last for many films.
"""

_COMPANIONS = {
    "Effusion": {"Atelectasis": 0.3, "Infiltration": 0.15, "Cardiomegaly": 0.1, "Edema": 0.06, "Consolidation": 0.06},
    "Atelectasis": {"Effusion": 0.2, "Infiltration": 0.1},
    "Cardiomegaly": {"Effusion": 0.25, "Edema": 0.12},
    "Edema": {"Effusion": 0.25, "Infiltration": 0.2, "Cardiomegaly": 0.2},
    "Pneumonia": {"Infiltration": 0.35, "Consolidation": 0.2, "Effusion": 0.1},
    "Consolidation": {"Infiltration": 0.2, "Effusion": 0.15, "Pneumonia": 0.1},
    "Emphysema": {"Pneumothorax": 0.3},
    "Mass": {"Nodule": 0.15, "Effusion": 0.1},
    "Fibrosis": {"Pleural_Thickening": 0.2, "Infiltration": 0.1},
}
"""Chance that one finding brings another along on the same film."""

_CHRONIC = {"Cardiomegaly", "Emphysema", "Fibrosis", "Hernia", "Pleural_Thickening", "Mass", "Nodule"}
_STAYS_CHRONIC, _STAYS_ACUTE = 0.85, 0.5  # chance that a finding is still there on the patient's next film

View = Literal["PA", "AP"]


@dataclass(frozen=True)
class Patient:
    """Who stands before the detector; `burden` multiplies the chance of every finding."""

    sex: Literal["F", "M"]
    age: int  # years
    burden: float
    chest: Chest


@dataclass(frozen=True)
class Visit:
    """One film of a patient: `findings` maps each sign on it to the number of the film on which it first appeared."""

    patient: int
    number: int
    view: View
    findings: Mapping[str, int]


def _stream(*key: int) -> np.random.Generator:
    """Random numbers of their own for each key, so that no film depends on what was drawn before it."""
    return np.random.default_rng(np.random.SeedSequence(_SEED, spawn_key=key))


def patient(index: int) -> Patient:
    """The patient with this number, 0 <= index < PATIENTS."""
    rng = _stream(index, 0)
    female = bool(rng.random() < 0.45)
    age = int(np.clip(rng.normal(50, 16), 18, 92))
    dome = rng.normal(0.42, 0.04)
    chest = Chest(
        width=rng.normal(0.63 if female else 0.68, 0.03),
        dome_right=dome - 0.03,
        dome_left=dome + rng.normal(0.01, 0.02),
        arch=rng.uniform(1.0, 1.7),
        ctr=float(np.clip(rng.normal(0.445, 0.035), 0.36, 0.54)),
        midline=rng.normal(0, 0.012),
        rib_spacing=rng.normal(0.17, 0.012),
        rib_phase=rng.uniform(0, 1),
        bone=1.25 - 0.006 * (age - 18) + rng.normal(0, 0.1),
        fat=rng.uniform(0.08, 0.2),
        breast=rng.uniform(0.05, 0.16) if female else rng.uniform(0, 0.03),
        aorta=0.07 + 0.0006 * (age - 18) + rng.uniform(0, 0.02),
        stomach=rng.uniform(0.02, 0.09),
    )
    return Patient("F" if female else "M", age, rng.gamma(0.7, 1.25), chest)


def visits(index: int) -> list[Visit]:
    """All films of one patient in order of time; the sick have more of them, and more often lying down (AP)."""
    rng, burden = _stream(index, 1), patient(index).burden
    films: list[Visit] = []
    findings: dict[str, int] = {}
    for number in range(min(_MOST_FILMS, 1 + int(rng.exponential(1 + 1.2 * burden)))):
        stayed = [name for name in findings if rng.random() < (_STAYS_CHRONIC if name in _CHRONIC else _STAYS_ACUTE)]
        present = (stayed + [name for name in _new_findings(rng, burden) if name not in stayed])[:_MOST_FINDINGS]
        findings = {name: findings.get(name, number) for name in present}
        bedridden = rng.random() < min(0.85, 0.15 + 0.17 * len(findings))
        films.append(Visit(index, number, "AP" if bedridden else "PA", findings))
    return films


def _new_findings(rng: np.random.Generator, burden: float) -> list[str]:
    first = [name for name, chance in _INCIDENCE.items() if rng.random() < burden * chance]
    brought = [other for name in first for other, chance in _COMPANIONS.get(name, {}).items() if rng.random() < chance]
    return list(dict.fromkeys(first + brought))


def draw(visit: Visit) -> tuple[np.ndarray, list[tuple[str, Box]]]:
    """Draw one film, (256, 256) uint8, and say where its signs are.

    The exposure and the noise depend on patient and number only: without a finding the rest of the film stays the same.
    """
    film, rng, boxes = _prepare(visit)
    return film.develop(rng), boxes


def _prepare(visit: Visit) -> tuple[Film, np.random.Generator, list[tuple[str, Box]]]:
    """The film with its signs, not yet developed, and the random numbers to develop it with."""
    rng = _stream(visit.patient, 2, visit.number)
    film = Film(_posed(patient(visit.patient).chest, visit.view, rng), _exposure(rng))
    boxes = []
    for which, (finding, sign) in enumerate(SIGNS.items()):
        if finding in visit.findings:
            look = _stream(visit.patient, 3, visit.findings[finding], which)
            boxes += [(finding, box) for box in sign(film, look)]
    return film, rng, boxes


def _posed(chest: Chest, view: View, rng: np.random.Generator) -> Chest:
    """The chest as it is seen on one film: a shallow breath lifts the diaphragm, lying down magnifies the heart."""
    shallow = rng.normal(0.05 if view == "AP" else 0, 0.03)
    return replace(
        chest,
        dome_right=chest.dome_right - shallow,
        dome_left=chest.dome_left - shallow,
        ctr=chest.ctr * (1.07 if view == "AP" else 1) * (1 + 0.5 * shallow),
        midline=chest.midline + rng.normal(0, 0.015),
    )


def _exposure(rng: np.random.Generator) -> Exposure:
    return Exposure(
        gain=rng.normal(1.5, 0.2),
        noise=rng.uniform(1.5, 5),
        zoom=rng.normal(1, 0.04),
        tilt=rng.normal(0, 0.03),
        dx=rng.normal(0, 0.03),
        dy=rng.normal(0, 0.03),
    )


class Phantom(Source):
    """About 1,500 films of 256 x 256 pixels, drawn when they are read and the same on every machine.

    The processor's way to round may change a few pixels in a million by one grey level.
    Each film shows what its row says, but for about 3 % wrong labels. `boxes` frames the signs of positive labels.
    """

    kind = "phantom"
    labels = CHESTXRAY14

    def __init__(self) -> None:
        self._visits = {_name(visit): visit for index in range(PATIENTS) for visit in visits(index)}
        self.films = pd.DataFrame([_row(name, visit) for name, visit in self._visits.items()])
        self.films[list(self.labels)] = _reported(list(self._visits.values()))

    @cached_property
    def boxes(self) -> pd.DataFrame:  # type: ignore[override]  # made only when somebody asks: it takes a second
        positive = self.films.set_index("image")[list(self.labels)] == 1
        rows = [
            (name, finding, *box)
            for name, visit in self._visits.items()
            for finding, box in (_prepare(visit)[2] if visit.findings else [])
            if positive.at[name, finding]
        ]
        return pd.DataFrame(rows, columns=["image", "label", *Box._fields])

    def read(self, image: str) -> np.ndarray:
        if image not in self._visits:
            raise ValueError(f"phantom has no film {image!r}")
        return draw(self._visits[image])[0]

    def stamp(self, image: str) -> str:
        return _CODE


def _code() -> str:
    """Hash of the modules that draw: a film's pixels may have changed when they have."""
    modules = (__file__, phantom_chest.__file__, phantom_signs.__file__)
    return hashlib.sha256(b"".join(Path(module).read_bytes() for module in modules)).hexdigest()[:16]


_CODE = _code()


def _name(visit: Visit) -> str:
    return f"{visit.patient:04d}_{visit.number:02d}"


def _row(name: str, visit: Visit) -> dict[str, object]:
    who = patient(visit.patient)
    return {
        "image": name,
        "patient": f"{visit.patient:04d}",
        "split": "test" if visit.patient % _TEST_EVERY == 0 else "train_val",
        "view": visit.view,
        "sex": who.sex,
        "age": who.age,
    }


def _reported(films: list[Visit]) -> np.ndarray:
    """Labels as a report's reader finds them, (N, 14) float32 in {0, 1}: some signs missed, as many added elsewhere."""
    shown = np.array([[name in visit.findings for name in CHESTXRAY14] for visit in films])
    chance = np.stack([_stream(visit.patient, 4, visit.number).random(len(CHESTXRAY14)) for visit in films])
    return np.where(shown, chance >= _WRONG_LABELS, chance < _WRONG_LABELS * shown.mean(axis=0)).astype(np.float32)


@readers.register("phantom")
def phantom(path: str | None) -> Source:
    """Read `phantom`, which has no path."""
    if path is not None:
        raise DataError(f"phantom: is built in and has no path, but {path!r} was given")
    return Phantom()
