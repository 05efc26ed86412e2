"""Reader of NIH ChestX-ray14 in its published layout (Wang et al. 2017, arXiv:1705.02315)."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_core.data.data_sets.tables import (
    first_line,
    nearest_hint,
    note_odd_ages,
    read_table,
    read_text,
    refuse_repeats,
    years,
)
from cxr_core.data.source import DataError, FilmFolder, Source, readers
from cxr_core.labels import CHESTXRAY14

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = {"Image Index": "image", "Finding Label": "label", "Bbox [x": "x", "y": "y", "w": "width", "h]": "height"}
"""Columns of BBox_List_2017.csv, whose header has commas within a name."""
_PUBLISHED_SIDE = 1024  # pixels


class Nih(FilmFolder):
    """ChestX-ray14: `Data_Entry_2017*.csv`, the official lists, and films in `images/` or `images_001..012/images/`."""

    kind = "nih"
    labels = CHESTXRAY14

    def __init__(self, root: str):
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; nih: takes the folder that holds {_TABLES[0]}")
        table = self._entries()
        self.paths = self._files()
        on_disk = table["image"].isin(list(self.paths))
        if not on_disk.any():
            raise DataError(
                f"{root}: none of the {len(table):,} films of the table is in images/ or images_001/images/ and so on "
                f"(the first is {table['image'].iloc[0]}); unpack the archives of films here"
            )
        self.missing = tuple(table.loc[~on_disk, "image"])
        self.films = table[on_disk].reset_index(drop=True)

    def _files(self) -> dict[str, str]:
        """The file of each film; the first, where several folders hold a film of that name."""
        first: dict[str, str] = {}
        again = []
        for folder in [*sorted(self.root.glob("images*")), *sorted(self.root.glob("images*/images"))]:
            for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
                if name.endswith(".png") and first.setdefault(name, f"{folder}/{name}") != f"{folder}/{name}":
                    again.append(name)
        if again:
            self.notes += (
                f"films that lie in two folders: {len(again):,}, first {again[0]}; "
                f"{Path(first[again[0]]).relative_to(self.root)} is read",
            )
        return first

    def _entries(self) -> pd.DataFrame:
        path = next((self.root / name for name in _TABLES if (self.root / name).exists()), None)
        if path is None:
            raise DataError(f"{self.root}: holds neither {' nor '.join(_TABLES)}")
        filled = ("Image Index", "Finding Labels", "Patient ID")
        cells = read_table(path, ("Patient Age", "View Position"), filled)
        sex = "Patient Sex" if "Patient Sex" in cells else "Patient Gender"  # renamed between releases
        if sex not in cells:
            raise DataError(
                f"{path}: column {sex!r} is missing; {nearest_hint(sex, list(cells.columns))}"
                f"found: {', '.join(cells.columns)}"
            )
        refuse_repeats(path, cells["Image Index"])
        age, odd = years(cells["Patient Age"])
        self.notes += note_odd_ages(path, cells["Patient Age"], odd)
        table = pd.DataFrame(
            {
                "image": cells["Image Index"],
                "patient": cells["Patient ID"],
                "split": self._official_split(path, cells["Image Index"]),
                "view": cells["View Position"].where(cells["View Position"] != ""),
                "sex": cells[sex].where(cells[sex].isin(["F", "M"])),
                "age": age,
            }
        )
        table[list(self.labels)] = self._findings(path, cells["Finding Labels"])
        return table

    def _findings(self, path: Path, cells: pd.Series) -> pd.DataFrame:
        found = cells.str.get_dummies("|")
        if unknown := sorted(set(found.columns) - {*self.labels, "No Finding"}):
            line = first_line(found[unknown[0]] == 1)
            raise DataError(
                f"{path}: line {line}: unknown finding {unknown[0]!r}; known: {', '.join(self.labels)}, No Finding"
            )
        return found.reindex(columns=list(self.labels), fill_value=0).astype(np.float32)

    def _official_split(self, table: Path, images: pd.Series) -> pd.Series:
        """The lists' split of each film; None for all where neither list is there."""
        split = pd.Series([None] * len(images), index=images.index, dtype=object)
        absent = [name for name in _LISTS.values() if not (self.root / name).exists()]
        if len(absent) == len(_LISTS):
            self.notes += ("the official lists are missing; test and validation films are drawn by patient",)
            return split
        if absent:
            raise DataError(f"{self.root / absent[0]}: the official list is missing; it comes with the data set")
        lists = {part: set(read_text(self.root / name).split()) for part, name in _LISTS.items()}
        if both := sorted(lists["train_val"] & lists["test"]):
            raise DataError(f"{self.root}: {both[0]} is in both official lists; remove it from one")
        for part, names in lists.items():
            split[images.isin(names)] = part
        if (neither := split.isna()).any():
            raise DataError(
                f"{table}: line {first_line(neither)}: {images[first_line(neither)]} is in neither official list; "
                "use the lists that came with this table"
            )
        listed = lists["train_val"] | lists["test"]
        if extra := sorted(listed - set(images)):
            self.notes += (
                f"{table.name} lacks {len(extra):,} of the {len(listed):,} films in the official lists, first "
                f"{extra[0]}; it is a part of the data set, or was cut off",
            )
        return split

    @cached_property
    def boxes(self) -> pd.DataFrame | None:  # type: ignore[override]  # it opens a film for each box
        path = self.root / "BBox_List_2017.csv"
        if not path.exists():
            return None
        rows = read_table(path, (), tuple(_BOXES))[list(_BOXES)].rename(columns=_BOXES)
        rows["label"] = rows["label"].replace("Infiltrate", "Infiltration")
        if (unknown := ~rows["label"].isin(self.labels)).any():
            line = first_line(unknown)
            raise DataError(f"{path}: line {line}: unknown finding {rows.at[line, 'label']!r}")
        for side in ("x", "y", "width", "height"):
            pixels = pd.to_numeric(rows[side], errors="coerce")
            if (wrong := ~np.isfinite(pixels)).any():
                line = first_line(wrong)
                raise DataError(f"{path}: line {line}: {side} is {rows.at[line, side]!r}; a number is expected")
            rows[side] = pixels.astype(float)
        # In pixels of the published films; the films of a copy may be smaller.
        scales = {image: self._scale(image) for image in rows["image"].unique()}
        across, down = (rows["image"].map({image: scale[axis] for image, scale in scales.items()}) for axis in (0, 1))
        rows[["x", "width"]] = rows[["x", "width"]].mul(across, axis=0)
        rows[["y", "height"]] = rows[["y", "height"]].mul(down, axis=0)
        return rows.reset_index(drop=True)

    def _scale(self, image: str) -> tuple[float, float]:
        """Width and height of a film in the published ones."""
        try:
            with Image.open(self.paths[image]) as film:
                return film.width / _PUBLISHED_SIDE, film.height / _PUBLISHED_SIDE
        except (OSError, KeyError, ValueError, Image.DecompressionBombError):
            return 1.0, 1.0  # unreadable or not there: nobody will look at its boxes


@readers.register("nih")
def nih(path: str | None) -> Source:
    """Read `nih:FOLDER`."""
    if path is None:
        raise DataError("nih: needs the data set's folder: --data nih:FOLDER")
    return Nih(path)
