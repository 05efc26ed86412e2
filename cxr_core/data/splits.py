"""Who learns and who judges: splits by patient, because follow-up films of one patient are near-duplicates."""

import hashlib

import numpy as np
import pandas as pd

from cxr_core.data.policy import DataPolicy
from cxr_core.data.source import DataError

_AUTHORITY = {"train": 0, "val": 1, "test": 2}
"""Of identical films in two splits, the one in the split with the greater number stays."""
_NAMED = 5
"""Patients or films that a message names."""


def split_by_patient(films: pd.DataFrame, labels: tuple[str, ...], policy: DataPolicy, seed: int = 0) -> pd.DataFrame:
    """Say of each film whether it is for training, validation or the test; a patient's films stay together.

    films: a source's table; its split is train_val/test, train/val/test, or None throughout (nothing official).
    An official split is kept unless the policy draws anew; validation is cut from train_val. What is drawn is
    stratified: at even distances from the patients sorted by their rarest finding, so that each finding keeps its
    share.
    Returns a copy whose `split` is train, val or test. Raises DataError if a split is empty or a patient is in two.
    """
    films, rng = films.copy(), np.random.default_rng([seed, 0x5B117])
    official = films["split"].notna()
    if official.any() and not official.all():
        raise DataError(f"{films.loc[~official, 'image'].iloc[0]} has no split, but other films have")
    if (nobody := films["patient"].isna()).any():
        raise DataError(f"{films.loc[nobody, 'image'].iloc[0]} has no patient; each film needs one")
    validation = policy.validation
    if policy.split == "random" or not official.any():
        films["split"] = "train_val"
        if policy.test:
            films.loc[films["patient"].isin(_draw(films, labels, policy.test, rng)), "split"] = "test"
        validation /= 1 - policy.test  # of all patients, as the test's share is
    if policy.folds:
        films.loc[films["split"] != "test", "split"] = "train_val"
    pool = films["split"] == "train_val"
    if pool.any():
        chosen = (
            _fold(films[pool], labels, policy.folds, policy.fold, rng)
            if policy.folds
            else _draw(films[pool], labels, validation, rng)
        )
        films.loc[pool, "split"] = np.where(films.loc[pool, "patient"].isin(chosen), "val", "train")
    check_disjoint(films)
    for part in ("train", "val"):
        if not (films["split"] == part).any():
            remedy = (
                "there must be more patients outside the test split, and no more folds than these"
                if pool.any() or policy.split == "random" or not official.any()
                else "call the films for training train_val, of which validation is cut, or set data.split=random"
            )
            raise DataError(f"the {part} split is empty ({films['patient'].nunique()} patients in all); {remedy}")
    return films


def _draw(films: pd.DataFrame, labels: tuple[str, ...], share: float, rng: np.random.Generator) -> pd.Index:
    patients = _by_rarest_finding(films, labels, rng)
    count = max(1, round(share * len(patients)))
    return patients[((np.arange(count) + rng.random()) * len(patients) / count).astype(int)]


def _fold(films: pd.DataFrame, labels: tuple[str, ...], folds: int, fold: int, rng: np.random.Generator) -> pd.Index:
    patients = _by_rarest_finding(films, labels, rng)
    return patients[fold::folds]


def parts_by_patient(
    films: pd.DataFrame, labels: tuple[str, ...], parts: int, pixels: pd.Series | None = None
) -> pd.Series:
    """In which of several parts of equal size each patient is, stratified as a split is.

    films: rows of image, patient and the labels in {0, 1, NaN}. pixels: fingerprints of the films' pixels by image;
    patients who share a picture share a part. Returns the part, from 0 on, by patient: the same wherever the same films
    are divided, in whatever order they lie. Raises DataError if there are fewer patients than parts.
    """
    patients = _by_rarest_finding(films, labels, np.random.default_rng([parts, 0xF01D5]))
    if len(patients) < parts:
        raise DataError(
            f"{_count(len(patients), 'training patient', 'training patients')} cannot be divided into {parts} parts; "
            "take fewer folds (objective.folds)"
        )
    part = pd.Series(np.arange(len(patients)) % parts, index=patients)
    return part if pixels is None else _with_copies(part, films, pixels)


def _with_copies(part: pd.Series, films: pd.DataFrame, pixels: pd.Series) -> pd.Series:
    """Patients who share a picture are put into the first part of theirs, and so on until none is in two."""
    pictures = films["image"].map(pixels)
    copied = pictures.duplicated(keep=False)
    sharing = [names for names in films.loc[copied, "patient"].groupby(pictures[copied]).unique() if len(names) > 1]
    while apart := [names for names in sharing if part[names].nunique() > 1]:
        for names in apart:
            part[names] = part[names].min()
    return part


def _by_rarest_finding(films: pd.DataFrame, labels: tuple[str, ...], rng: np.random.Generator) -> pd.Index:
    """Patients sorted by the rarest of their findings, in random order among those who share it."""
    positive = films.groupby("patient", sort=True)[list(labels)].max() == 1
    from_rarest = positive.sum().sort_values(kind="stable").index
    has_finding = positive[from_rarest].to_numpy()
    rarest = np.where(has_finding.any(axis=1), has_finding.argmax(axis=1), len(labels))
    patients: pd.Index = positive.index[np.lexsort([rng.random(len(positive)), rarest])]
    return patients


def check_disjoint(films: pd.DataFrame) -> None:
    """Raise DataError, naming the patients, if a patient's films lie in two splits."""
    parts = films.groupby("patient")["split"].nunique()
    shared = parts.index[parts > 1]
    if len(shared):
        raise DataError(
            f"{_count(len(shared), 'patient has', 'patients have')} films in two splits: "
            f"{', '.join(map(str, shared[:_NAMED]))}{' ...' if len(shared) > _NAMED else ''}; "
            "a patient must be in one split only: correct the split column, or draw another with data.split=random"
        )


def copies_across_splits(films: pd.DataFrame, pixels: pd.Series) -> pd.DataFrame:
    """Films that are identical to a film of another split, those of one picture together.

    pixels: fingerprints of the films' pixels by image name. Returns rows of image, patient, split and pixels.
    """
    films = films[["image", "patient", "split"]].assign(pixels=films["image"].map(pixels))
    shared = films.groupby("pixels")["split"].transform("nunique") > 1
    return films[shared].sort_values(["pixels", "split", "image"])


def check_copies(films: pd.DataFrame, pixels: pd.Series) -> None:
    """Raise DataError, naming a film and its patient of each split, if the same picture lies in two."""
    copies = copies_across_splits(films, pixels)
    if not len(copies):
        return
    pictures = [group.drop_duplicates("split") for _, group in copies.groupby("pixels")]
    named = "; ".join(
        " = ".join(f"{film.image} (patient {film.patient}, {film.split})" for film in group.itertuples())
        for group in pictures[:_NAMED]
    )
    raise DataError(
        f"{_count(len(pictures), 'picture is', 'pictures are')} in two splits: {named}"
        f"{' ...' if len(pictures) > _NAMED else ''}; remove one of each, or set data.duplicates=drop to leave them "
        "out of the split that learns"
    )


def drop_copies(films: pd.DataFrame, pixels: pd.Series) -> pd.DataFrame:
    """Leave out films that a split with more authority also has: test before validation before training."""
    copies = copies_across_splits(films, pixels)
    rank = copies["split"].map(_AUTHORITY)
    lesser = copies[rank < rank.groupby(copies["pixels"]).transform("max")]
    return films[~films["image"].isin(lesser["image"])]


def split_hash(films: pd.DataFrame) -> str:
    """Short fingerprint of who is in which split; the order of rows does not matter."""
    rows = films[["image", "patient", "split"]].sort_values("image").to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
