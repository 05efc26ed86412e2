"""Reader of CheXpert in its published layout (Irvin et al. 2019, arXiv:1901.07031)."""

import os
from pathlib import Path

import pandas as pd

from cxr_core.data.data_sets.tables import findings, first_line, note_odd_ages, read_table, refuse_repeats, years
from cxr_core.data.source import DataError, FilmFolder, Source, readers
from cxr_core.labels import CHEXPERT14

_TABLES = {"train": ("train.csv",), "val": ("valid.csv", "val_labels.csv"), "test": ("test.csv", "test_labels.csv")}
_FOLDERS = {"train": ("train", "../*(train *)"), "valid": ("valid", "val"), "val": ("val", "valid"), "test": ("test",)}
"""Where films lie beside train.csv, by the first folder of their name; the full download has train in batches."""
_FILM = r"(?:^|/)((?:train|valid|val|test)/(patient\d+)/study\d+/[^/]+)$"


class Chexpert(FilmFolder):
    """CheXpert-v1.0 or CheXpert-v1.0-small: the folder with train.csv, or its parent, whatever their names.

    Labels are as published: 1, 0, -1 (uncertain) and empty (not mentioned, which the data set's authors count as 0).
    The splits depend on the tables beside train.csv. With valid.csv (200 patients) and a labelled test (500 patients;
    test.csv, or test_labels.csv and test/ as they come with CheXlocalize) all three are kept as published. With one of
    the two it is the test split, and validation is cut from train. With train.csv alone there is no official split.
    `image` is a film's path from the folder, such as train/patient00001/study1/view1_frontal.jpg. `view` is AP, PA and
    so on for frontal films, Frontal where the table does not say which (as in the labelled test), else Lateral.
    """

    kind = "chexpert"
    labels = CHEXPERT14
    blank = "zero"

    def __init__(self, root: str):
        self.root = _folder(root)
        parts = {part: table for part in _TABLES if (table := self._table(part)) is not None}
        _name_splits(parts)
        if len(parts) == 1:
            self.notes += ("there is neither valid.csv nor a labelled test; all splits are drawn by patient",)
        films = pd.concat(parts.values(), ignore_index=True)
        tables = films[["patient", "table"]].drop_duplicates().set_index("patient")["table"]
        if (shared := tables.index.duplicated()).any():
            patient = tables.index[shared][0]
            raise DataError(f"{self.root}: {patient} is in both {' and '.join(tables[patient][:2])}")
        files = self._files(films["image"])
        on_disk = films["image"].isin(list(files))
        if not on_disk.any():
            raise DataError(
                f"{root}: none of the {len(films):,} films of the tables is there, the first {films['image'].iloc[0]}; "
                f"train/ and valid/ belong into {self.root}"
            )
        self.missing = tuple(films.loc[~on_disk, "image"])
        self.films = films[on_disk].drop(columns="table").reset_index(drop=True)
        self.paths = files

    def _table(self, part: str) -> pd.DataFrame | None:
        """The rows of a part's table; None if there is none, or if it has no labels."""
        path = next((self.root / name for name in _TABLES[part] if (self.root / name).exists()), None)
        if path is None:
            return None
        if part == "test" and not set(CHEXPERT14) & set(read_table(path, (), ("Path",)).columns):
            self.notes += (f"{path.name} has no labels and is left out",)
            return None
        cells = read_table(path, CHEXPERT14, ("Path",))
        names = cells["Path"].str.replace("\\", "/").str.extract(_FILM)
        if (other := names[0].isna()).any():
            line = first_line(other)
            raise DataError(
                f"{path}: line {line}: {cells.at[line, 'Path']!r} is no path such as "
                "train/patient00001/study1/view1_frontal.jpg"
            )
        refuse_repeats(path, names[0])
        table = pd.DataFrame({"image": names[0], "patient": names[1], "split": part, "table": path.name})
        return table.assign(view=_views(cells, names[0]), **self._patients(path, cells), **_labels(path, cells))

    def _patients(self, path: Path, cells: pd.DataFrame) -> dict[str, pd.Series]:
        """Sex and age; the labelled test does not say them."""
        unknown = pd.Series("", index=cells.index)
        age, odd = years(cells.get("Age", unknown))
        self.notes += note_odd_ages(path, cells.get("Age", unknown), odd)
        return {"sex": cells.get("Sex", unknown).map({"Female": "F", "Male": "M"}).astype(object), "age": age}

    def _files(self, images: pd.Series) -> dict[str, str]:
        """The file of each film that is on disk."""
        folders = {
            first: [str(folder) for pattern in patterns for folder in sorted(self._glob(pattern))]
            for first, patterns in _FOLDERS.items()
        }
        files = {}
        for image in images:
            first, rest = image.split("/", 1)
            for folder in folders[first]:
                if os.path.isfile(path := f"{folder}/{rest}"):
                    files[image] = path
                    break
        return files

    def _glob(self, pattern: str) -> list[Path]:
        base = self.root.parent if pattern.startswith("../") else self.root
        return list(base.glob(pattern.removeprefix("../")))


def _folder(root: str) -> Path:
    """The folder that holds train.csv: the given one or the only one in it."""
    given = Path(root).resolve()
    if not given.is_dir():
        raise DataError(f"{root}: no such folder; chexpert: takes the folder that holds train.csv")
    if (given / "train.csv").exists():
        return given
    below = sorted(table.parent for table in given.glob("*/train.csv"))
    if not below:
        raise DataError(f"{root}: neither it nor a folder in it holds train.csv")
    if len(below) > 1:
        raise DataError(f"{root}: {' and '.join(folder.name for folder in below)} hold train.csv; name one of them")
    return below[0]


def _name_splits(parts: dict[str, pd.DataFrame]) -> None:
    """Turn the tables' parts into splits, by how many of them there are."""
    if len(parts) == 3:
        return
    for part, table in parts.items():
        table["split"] = None if len(parts) == 1 else "train_val" if part == "train" else "test"


def _views(cells: pd.DataFrame, images: pd.Series) -> pd.Series:
    """Lateral, or the projection of a frontal film, or Frontal where it is not known."""
    lateral = images.str.contains("lateral", regex=False)
    if "Frontal/Lateral" in cells:
        lateral = cells["Frontal/Lateral"] == "Lateral"
    projection = cells.get("AP/PA", pd.Series("", index=cells.index))
    return projection.where(projection != "", "Frontal").mask(lateral, "Lateral")


def _labels(path: Path, cells: pd.DataFrame) -> dict[str, pd.Series]:
    labels = {}
    for name in CHEXPERT14:
        labels[name], wrong = findings(cells[name])
        if wrong.any():
            line = first_line(wrong)
            raise DataError(
                f"{path}: line {line}: {name} is {cells.at[line, name]!r}; 1.0, 0.0, -1.0 and nothing are known"
            )
    return labels


@readers.register("chexpert")
def chexpert(path: str | None) -> Source:
    """Read `chexpert:FOLDER`."""
    if path is None:
        raise DataError("chexpert: needs the data set's folder: --data chexpert:FOLDER")
    return Chexpert(path)
