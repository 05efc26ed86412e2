"""The films that an explanation is made of: those of one split, as the network's training drew it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from cxr_core.checkpoint import Checkpoint
from cxr_core.data import DataError, DataName, DataPolicy, Films, Source, build_cache, prepare
from cxr_core.data.progress_bar import film_bar

log = logging.getLogger(__name__)

Split = Literal["val", "test"]
_TABLE = "films.parquet"


@dataclass(frozen=True, eq=False)
class SplitFilms:
    """Films of a split, and their data set, which has them in their own size and may have boxes."""

    name: str
    split: Split
    films: Films
    source: Source


def open_split(checkpoint: Checkpoint, name: DataName, split: Split) -> SplitFilms:
    """The films of a split, made square as the network's training had them.

    Which films are in it says the `films.parquet` of the training's folder or study, where there is one; else the data
    set's own splits. Raises DataError.
    """
    table = _split_table(checkpoint.path, split)
    return _drawn_anew(checkpoint, name, split) if table is None else _as_trained(checkpoint, name, split, table)


def _split_table(model: Path, split: Split) -> pd.DataFrame | None:
    """The table, beside the network or in its study, that has the split's films; None if there is no table at all.

    A study keeps its networks one folder further down (`model/model.pt`), or two (`trials/00003/epoch-0012.pt`).
    """
    found = [path for folder in model.resolve().parents[:3] if (path := folder / _TABLE).is_file()]
    if not found:
        return None
    tables = [found[0], found[0].parent / "test" / _TABLE]
    for path in tables if split == "test" else tables[:1]:
        if path.is_file() and (films := pd.read_parquet(path))["split"].eq(split).any():
            return films
    sealed = "; a study's test split is sealed until python -m search.finalize opens it" if split == "test" else ""
    raise DataError(f"{found[0]}: the training of this network has no film in its {split} split{sealed}")


def _as_trained(checkpoint: Checkpoint, name: DataName, split: Split, table: pd.DataFrame) -> SplitFilms:
    source, labels = name.open(), checkpoint.config.task.labels
    if absent := [label for label in labels if label not in table.columns]:
        raise DataError(f"{checkpoint.path}: the label {absent[0]!r} is not in the {_TABLE} of its training")
    # With the films that share its cache, so that the cache of the training serves again.
    rows = table[table["split"].eq("test") == (split == "test")]
    known = rows["image"].isin(source.films["image"])
    if not known.all():
        raise DataError(
            f"--data {name}: {(~known).sum():,} of the {len(rows):,} films of the network's training are not in this "
            f"data set (the first is {rows.loc[~known, 'image'].iloc[0]}); name the one it was trained on"
        )
    size = checkpoint.config.image_size
    with film_bar(f"{split} films") as on_film:
        cache = build_cache(source, rows["image"].tolist(), size, checkpoint.aspect, on_film=on_film)
    return SplitFilms(str(name), split, Films.open(cache, rows[rows["split"] == split], labels), source)


def _drawn_anew(checkpoint: Checkpoint, name: DataName, split: Split) -> SplitFilms:
    config, source = checkpoint.config, name.open()
    if split == "val" or not source.films["split"].eq("test").any():
        log.warning(
            "%s: there is no %s of its training beside it; it may have been trained on films that count as %s films "
            "here",
            checkpoint.path,
            _TABLE,
            {"val": "validation", "test": "test"}[split],
        )
    policy = DataPolicy(image_size=config.image_size, aspect=checkpoint.aspect)
    prepared = prepare(name, policy, config.task, config.seed)
    cache = prepared.test_cache if split == "test" else prepared.cache
    rows = prepared.films[prepared.films["split"] == split]
    if cache is None or rows.empty:
        raise DataError(f"--data {name}: has no {split} split")
    return SplitFilms(str(name), split, Films.open(cache, rows, config.task.labels), source)
