"""Who learns and who judges: splits by patient, because follow-up films of one patient are near-duplicates."""

import hashlib

import numpy as np
import pandas as pd

from cxr_core.data.source import DataError


def split_by_patient(films: pd.DataFrame, labels: tuple[str, ...], validation: float, seed: int = 0) -> pd.DataFrame:
    """Turn the official split into train, val and test, cutting validation from train_val by patient.

    films: a source's table; its split is train_val/test or already train/val/test, which is kept.
    validation: share of the train_val patients, drawn at even distances from the patients sorted by their rarest
    finding, so that every finding keeps its share.
    Returns a copy whose `split` is train, val or test. Raises DataError if a split is empty or a patient is in two.
    """
    films = films.copy()
    pool = films["split"] == "train_val"
    if pool.any():
        chosen = _validation_patients(films[pool], labels, validation, np.random.default_rng([seed, 0x5B117]))
        films.loc[pool, "split"] = np.where(films.loc[pool, "patient"].isin(chosen), "val", "train")
    check_disjoint(films)
    for part in ("train", "val"):
        if not (films["split"] == part).any():
            raise DataError(f"the {part} split is empty ({films['patient'].nunique()} patients in all)")
    return films


def _validation_patients(
    films: pd.DataFrame, labels: tuple[str, ...], share: float, rng: np.random.Generator
) -> pd.Index:
    positive = films.groupby("patient", sort=True)[list(labels)].max().fillna(0) > 0
    from_rarest = positive.sum().sort_values(kind="stable").index
    has_finding = positive[from_rarest].to_numpy()
    rarest = np.where(has_finding.any(axis=1), has_finding.argmax(axis=1), len(labels))
    order = np.lexsort([rng.random(len(positive)), rarest])
    count = max(1, round(share * len(positive)))
    picks = ((np.arange(count) + rng.random()) * len(positive) / count).astype(int)
    chosen: pd.Index = positive.index[order[picks]]
    return chosen


def check_disjoint(films: pd.DataFrame) -> None:
    """Raise DataError, naming the patients, if a patient's films lie in two splits."""
    if (nobody := films["patient"].isna()).any():
        raise DataError(f"{films.loc[nobody, 'image'].iloc[0]} has no patient; each film needs one")
    parts = films.groupby("patient")["split"].nunique()
    shared = parts.index[parts > 1]
    if len(shared):
        raise DataError(
            f"{len(shared)} patients have films in two splits: {', '.join(map(str, shared[:5]))}"
            f"{' ...' if len(shared) > 5 else ''}; a patient must be in one split only"
        )


def split_hash(films: pd.DataFrame) -> str:
    """Short fingerprint of who is in which split; the order of rows does not matter."""
    rows = films[["image", "patient", "split"]].sort_values("image").to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]
