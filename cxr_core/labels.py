"""What is predicted: names of radiographic findings, tasks made of them, and what unclear labels count as."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

CHESTXRAY14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The 14 findings of ChestX-ray14 in the published order (Wang et al. 2017, arXiv:1705.02315)."""

CHEXPERT14 = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 observations of CheXpert in the published order (Irvin et al. 2019, arXiv:1901.07031)."""

CHEXPERT5 = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five observations of CheXpert's competition."""

LABEL_SETS: dict[str, tuple[str, ...]] = {
    "chestxray14": CHESTXRAY14,
    "chexpert14": CHEXPERT14,
    "chexpert5": CHEXPERT5,
}
"""Label sets that a space file may name instead of listing their labels."""

NO_FINDING = "No Finding"
"""Label of films without any of a data set's findings; every data set of several labels has it."""


@dataclass(frozen=True)
class Task:
    """What is predicted: several findings at once, or one.

    against: what a binary task's negatives are: all other films, or only those without any finding.
    """

    kind: Literal["multilabel", "binary"]
    labels: tuple[str, ...]
    against: Literal["rest", "no_finding"] = "rest"


def resolve_labels(
    films: pd.DataFrame,
    labels: tuple[str, ...],
    uncertain: Literal["ignore", "zeros", "ones"],
    blank: Literal["zero", "nan"],
) -> pd.DataFrame:
    """Replace uncertain (-1) and not mentioned (NaN) labels by what they count as: a table of 0, 1 and NaN (masked).

    The policies are those of CheXpert (Irvin et al. 2019, arXiv:1901.07031, sec. 3); blanks are replaced first, so an
    uncertain finding that is ignored stays masked.
    """
    values = films[list(labels)].to_numpy(np.float32)
    if blank == "zero":
        values = np.where(np.isnan(values), 0, values)
    values = np.where(values == -1, {"ignore": np.nan, "zeros": 0, "ones": 1}[uncertain], values)
    films = films.copy()
    films[list(labels)] = values.astype(np.float32)
    return films


def add_no_finding(films: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    """Add the column `No Finding` where a data set has none: 1 without any finding, NaN where that is not known."""
    if NO_FINDING in films.columns or len(labels) < 2:
        return films
    values = films[list(labels)].to_numpy(np.float32)
    unknown = np.where(np.isnan(values).any(axis=1), np.nan, 1)
    return films.assign(**{NO_FINDING: np.where((values == 1).any(axis=1), 0, unknown).astype(np.float32)})


def mask_for_task(films: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Mask the negatives that a binary task does not count; other tasks take the labels as they are."""
    if task.against == "rest":
        return films
    (label,) = task.labels
    other = (films[label] == 0) & (films[NO_FINDING] != 1)
    return films.assign(**{label: films[label].mask(other)})
