"""Reader of NIH ChestX-ray14 in its published layout (Wang et al. 2017, arXiv:1705.02315)."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_core.data.source import DataError, Source, readers
from cxr_core.labels import CHESTXRAY14

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_COLUMNS = {"Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"}
_PUBLISHED_SIDE = 1024  # pixels
_MISSING_SHARE = 0.01
"""Share of films that may be missing on disk before the folder is taken for an incomplete download."""


class Nih(Source):
    """ChestX-ray14: `Data_Entry_2017*.csv`, the official lists, and films in `images/` or `images_001..012/images/`."""

    kind = "nih"
    labels = CHESTXRAY14

    def __init__(self, root: str):
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; nih: takes the folder that holds Data_Entry_2017_v2020.csv")
        self._paths = {path.name: str(path) for path in sorted(self.root.glob("images*/**/*.png"))}
        table = self._entries()
        on_disk = table["image"].isin(list(self._paths))
        self.missing = int((~on_disk).sum())
        if self.missing > _MISSING_SHARE * len(table):
            raise DataError(
                f"{root}: {self.missing:,} of the {len(table):,} films in the table are not in images*/ "
                f"(the first is {table.loc[~on_disk, 'image'].iloc[0]}); finish the download"
            )
        self.films = table[on_disk].reset_index(drop=True)

    def _entries(self) -> pd.DataFrame:
        path = next((self.root / name for name in _TABLES if (self.root / name).exists()), None)
        if path is None:
            raise DataError(f"{self.root}: holds neither {' nor '.join(_TABLES)}")
        try:
            entries = pd.read_csv(path).rename(columns={"Patient Sex": "Patient Gender"})  # renamed between releases
        except ValueError as fault:  # also pandas' own and those of the encoding
            raise DataError(f"{path}: cannot be read as a table ({fault})") from None
        if absent := _COLUMNS - set(entries.columns):
            raise DataError(f"{path}: column {sorted(absent)[0]!r} is missing; found: {', '.join(entries.columns)}")
        for column in ("Image Index", "Patient ID", "Finding Labels"):
            if (empty := entries[column].isna()).any():
                raise DataError(f"{path}: line {int(empty.argmax()) + 2}: {column!r} is empty")
        if (again := entries["Image Index"].duplicated()).any():
            raise DataError(f"{path}: {entries.loc[again, 'Image Index'].iloc[0]} is listed twice")
        findings = entries["Finding Labels"].str.get_dummies("|")
        if unknown := set(findings.columns) - {*self.labels, "No Finding"}:
            raise DataError(f"{path}: unknown finding {sorted(unknown)[0]!r} in column 'Finding Labels'")
        table = pd.DataFrame(
            {
                "image": entries["Image Index"],
                "patient": entries["Patient ID"].astype(str),
                "split": self._official_split(entries["Image Index"]),
                "view": entries["View Position"],
                "sex": entries["Patient Gender"],
                "age": pd.to_numeric(entries["Patient Age"].astype(str).str.rstrip("YMD"), errors="coerce"),
            }
        )
        table[list(self.labels)] = findings.reindex(columns=list(self.labels), fill_value=0).astype(np.float32)
        return table

    def _official_split(self, images: pd.Series) -> pd.Series:
        split = pd.Series(pd.NA, index=images.index, dtype="object")
        for part, name in (("train_val", "train_val_list.txt"), ("test", "test_list.txt")):
            path = self.root / name
            if not path.exists():
                raise DataError(f"{path}: the official list is missing; it comes with the data set")
            split[images.isin(path.read_text().split())] = part
        if split.isna().any():
            raise DataError(f"{self.root}: {images[split.isna()].iloc[0]} is in neither official list")
        return split

    @cached_property
    def boxes(self) -> pd.DataFrame | None:  # type: ignore[override]  # it opens a film for each box
        path = self.root / "BBox_List_2017.csv"
        if not path.exists():
            return None
        rows = pd.read_csv(path).iloc[:, :6]
        rows.columns = pd.Index(["image", "label", "x", "y", "width", "height"])
        rows["label"] = rows["label"].replace("Infiltrate", "Infiltration")
        # In pixels of the published films; the films of a copy may be smaller.
        scale = rows["image"].map(self._width) / _PUBLISHED_SIDE
        sides = ["x", "y", "width", "height"]
        rows[sides] = rows[sides].mul(scale, axis=0)
        return rows

    def _width(self, image: str) -> int:
        try:
            with Image.open(self._paths[image]) as film:
                return int(film.width)
        except (OSError, KeyError):  # unreadable or not there: nobody will look at its boxes
            return _PUBLISHED_SIDE

    def read(self, image: str) -> np.ndarray:
        with Image.open(self._paths[image]) as film:
            return np.asarray(film.convert("L"))

    def stamp(self, image: str) -> str:
        status = os.stat(self._paths[image])
        return f"{status.st_size}:{status.st_mtime_ns}"


@readers.register("nih")
def nih(path: str | None) -> Source:
    """Read `nih:FOLDER`."""
    if path is None:
        raise DataError("nih: needs the data set's folder: --data nih:FOLDER")
    return Nih(path)
