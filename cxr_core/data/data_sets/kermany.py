"""Reader of the paediatric pneumonia films of Kermany et al. 2018 (doi:10.1016/j.cell.2018.02.010)."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_core.data.source import DataError, FilmFolder, Source, readers

_PARTS = {"train": "train_val", "val": "train_val", "test": "test"}
_CLASSES = {"NORMAL": 0.0, "PNEUMONIA": 1.0}
_SUFFIXES = {".jpeg", ".jpg", ".png"}

# Two batches of normal films count on their own (IM-0383 and NORMAL2-IM-0383 are both there), so the prefix is part of
# the patient. A child with bacterial and viral films is one patient: no document says that the two count on their own.
_NAMES = (
    re.compile(r"(?P<patient>person\d+)_(?P<finding>bacteria|virus)_\d+"),
    re.compile(r"(?P<patient>(NORMAL2-)?IM-\d+)(-\d+)+"),
    re.compile(r"(?P<finding>NORMAL|BACTERIA|VIRUS)-(?P<patient>\d+)-\d+"),  # Mendeley Data, version 3
)
_UNNAMED = {0.0: (0.0, 0.0), 1.0: (np.nan, np.nan)}
_NAMED = {"normal": (0.0, 0.0), "bacteria": (1.0, 0.0), "virus": (0.0, 1.0)}


class _Film(NamedTuple):
    """A row of the table; the columns after `Pneumonia` tell its cause."""

    image: str
    patient: str
    split: str
    Pneumonia: float
    Bacterial: float
    Viral: float


class Kermany(FilmFolder):
    """Films in `train/`, `test/` and perhaps `val/`, each with `NORMAL/` and `PNEUMONIA/`.

    An image's name is its path from the folder of `train/`. `val` joins `train`: its 16 films are too few to judge by.
    """

    kind = "kermany"
    labels = ("Pneumonia", "Bacterial", "Viral")

    def __init__(self, root: str):
        self.root, self.notes = _data_folder(Path(root))
        paths = sorted(path for part in _PARTS if (self.root / part).is_dir() for path in _films(self.root / part))
        self.paths = {path.relative_to(self.root).as_posix(): str(path) for path in paths}
        table = pd.DataFrame([_row(path, image) for path, image in zip(paths, self.paths, strict=True)])
        table[list(self.labels)] = table[list(self.labels)].astype(np.float32)
        self.films = table.assign(view="AP")  # the paper: anterior-posterior


def _data_folder(root: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that holds train and test, and a note if the archive's copy of them lies inside."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; kermany: takes the folder that holds train/ and test/")
    nested = [root, root / "chest_xray", root / "chest_xray" / "chest_xray"]
    found = [folder for folder in nested if (folder / "train").is_dir() and (folder / "test").is_dir()]
    if not found:
        raise DataError(
            f"{root}: neither it nor chest_xray/ in it holds both train/ and test/; "
            "kermany: takes the folder into which the archive was unpacked"
        )
    return found[0].resolve(), tuple(f"{copy}: a second copy of the data set, not read" for copy in found[1:])


def _films(part: Path) -> list[Path]:
    """The films of train, val or test."""
    films: list[Path] = []
    folders = {folder: _visible(folder) for folder in _visible(part) if folder.is_dir()}
    for folder, files in {part: _visible(part), **folders}.items():
        stray = folder == part or folder.name.upper() not in _CLASSES
        found = [file for file in files if file.suffix.lower() in _SUFFIXES or (file.is_dir() and folder != part)]
        if stray and found:
            raise DataError(f"{found[0]}: in neither NORMAL/ nor PNEUMONIA/; move it, or list your films with csv:")
        if inner := next((file for file in found if file.is_dir()), None):
            raise DataError(f"{inner}: a folder among films; move its films to {folder.name}/")
        films += found
    held = {film.parent.name.upper() for film in films}
    if empty := next((name for name in _CLASSES if name not in held), None):
        raise DataError(f"{part / empty}: holds no film; finish the download, or remove {part.name}/ if it is val")
    return films


def _visible(folder: Path) -> list[Path]:
    """Without what macOS and notebooks leave behind."""
    return [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]


def _row(path: Path, image: str) -> _Film:
    part, folder, _ = image.split("/")
    name = next(filter(None, (form.fullmatch(path.stem) for form in _NAMES)), None)
    if name is None:
        raise DataError(
            f"{path}: the name does not tell the patient (as person1_virus_6.jpeg, IM-0115-0001.jpeg or "
            "VIRUS-1008087-0001.jpeg do); rename it, or list your films and their patients with csv:"
        )
    pneumonia, finding = _CLASSES[folder.upper()], name.groupdict().get("finding")
    if finding and (finding.lower() == "normal") == bool(pneumonia):
        raise DataError(f"{path}: named {finding} but filed under {folder}/; move or rename it")
    cause = _NAMED[finding.lower()] if finding else _UNNAMED[pneumonia]
    # Numbers start again in test, for other children; val has gaps of train's numbers.
    count = "test" if part == "test" else "train"
    return _Film(image, f"{count}/{name['patient']}", _PARTS[part], pneumonia, *cause)


@readers.register("kermany")
def kermany(path: str | None) -> Source:
    """Read `kermany:FOLDER`."""
    if path is None:
        raise DataError("kermany: needs the data set's folder: --data kermany:FOLDER")
    return Kermany(path)
