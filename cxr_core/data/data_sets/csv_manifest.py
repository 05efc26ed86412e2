"""Reader of a user's own films, listed in a CSV file."""

import os
from pathlib import Path

import pandas as pd

from cxr_core.data.data_sets.tables import findings, first_line, nearest_hint, read_table, refuse_repeats, years
from cxr_core.data.source import DataError, FilmFolder, Source, readers

_NOT_FINDINGS = {"image", "patient", "split", "view", "sex", "age"}
_SPLITS = ("train", "val", "test", "train_val")
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M", "": None}


class CsvManifest(FilmFolder):
    """Films listed in a CSV file (commas, UTF-8), a row each, whose columns stand in any order.

    image: path of the film (PNG, JPEG, DICOM), absolute or relative to the CSV's folder.
    patient: any text, leading zeros included; films of one patient are never split.
    split (optional): train, val and test, or train_val and test; on all rows, or empty on all.
    view, sex, age (optional): such as PA; F or M; years, or with a unit as in 058Y, 006M, 012D. A cell may be empty.
    Every other column is a label if it holds nothing but 0, 1, -1 (uncertain) and empty cells (not mentioned).
    not_labels: the other columns, each with the reason why it is no label.
    """

    kind = "csv"

    def __init__(self, path: str):
        self.path = Path(path).absolute()
        if not self.path.exists():
            raise DataError(f"{path}: no such file; csv: takes the path of a table with the columns image and patient")
        cells = read_table(self.path, (), ("image", "patient"))
        images = cells["image"].str.replace("\\", "/").map(os.path.normpath)  # backslashes come from Windows
        refuse_repeats(self.path, images)
        files = {image: str(self.path.parent / image) for image in images}
        labels = self._labels(cells)
        table = pd.DataFrame(
            {
                "image": images,
                "patient": cells["patient"],
                "split": self._split(cells),
                **self._demographics(cells),
                **labels,
            }
        )
        self.labels = tuple(labels)
        on_disk = images.map(lambda image: os.path.isfile(files[image]))
        if not on_disk.any():
            raise DataError(
                f"{path}: none of its {len(images):,} films is there; the first is looked for at "
                f"{files[images.iloc[0]]}: paths must be absolute or start at the folder of the CSV file"
            )
        self.missing = tuple(images[~on_disk])
        self.films = table[on_disk].reset_index(drop=True)
        self.paths = {image: files[image] for image in self.films["image"]}

    def _labels(self, cells: pd.DataFrame) -> dict[str, pd.Series]:
        labels, self.not_labels = {}, {}
        for column in cells.columns.difference(list(_NOT_FINDINGS), sort=False):
            values, wrong = findings(cells[column])
            if wrong.any():
                line = first_line(wrong)
                self.not_labels[column] = f"line {line} holds {cells.at[line, column]!r}, not 0, 1, -1 or nothing"
            elif values.isna().all():
                self.not_labels[column] = "all its cells are empty"
            else:
                labels[column] = values
        self.notes = tuple(f"column {column!r} is no label: {why}" for column, why in self.not_labels.items())
        if not labels:
            reasons = "".join(f"; {note}" for note in self.notes)
            raise DataError(f"{self.path}: no column is a label, which holds only 0, 1, -1 and empty cells{reasons}")
        return labels

    def _split(self, cells: pd.DataFrame) -> pd.Series:
        if "split" not in cells or (cells["split"] == "").all():
            return pd.Series([None] * len(cells), index=cells.index, dtype=object)
        split = cells["split"]
        if (wrong := ~split.isin(_SPLITS)).any():
            line, name = first_line(wrong), split[first_line(wrong)]
            if not name:
                raise DataError(f"{self.path}: line {line}: the split is empty; fill it on all rows or on none")
            raise DataError(
                f"{self.path}: line {line}: unknown split {name!r}; {nearest_hint(name, _SPLITS)}"
                f"known: {', '.join(_SPLITS)}"
            )
        if (pooled := split == "train_val").any() and (apart := split.isin(["train", "val"])).any():
            raise DataError(
                f"{self.path}: line {first_line(pooled)} is in train_val, line {first_line(apart)} in "
                f"{split[first_line(apart)]}; use either train_val or train and val"
            )
        return split

    def _demographics(self, cells: pd.DataFrame) -> dict[str, pd.Series]:
        """The columns view, sex and age, as far as they are there."""
        known = {}
        if "view" in cells:
            known["view"] = cells["view"].where(cells["view"] != "")
        if "sex" in cells:
            if (wrong := ~cells["sex"].str.lower().isin(list(_SEXES))).any():
                line = first_line(wrong)
                raise DataError(f"{self.path}: line {line}: sex {cells.at[line, 'sex']!r}; give F, M or nothing")
            known["sex"] = cells["sex"].str.lower().map(_SEXES)
        if "age" in cells:
            known["age"], wrong = years(cells["age"])
            if wrong.any():
                line = first_line(wrong)
                raise DataError(
                    f"{self.path}: line {line}: age {cells.at[line, 'age']!r}; give years up to 120, or nothing"
                )
        return known


@readers.register("csv")
def csv_manifest(path: str | None) -> Source:
    """Read `csv:FILE.csv`."""
    if path is None:
        raise DataError("csv: needs the path of a table: --data csv:FILE.csv")
    return CsvManifest(path)
