"""A film cache of any number of films, from a few: for what depends on a data set's size, not on its pictures."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, too

from cxr_core.data import open_cache
from cxr_core.data.cache.folder import FACTS, MANIFEST, PIXELS, cache_facts
from cxr_core.labels import CHESTXRAY14

WHOLE_SET, PATIENTS = 112_120, 30_805  # ChestX-ray14


def make_cache(folder: Path, few: Path, films: int) -> None:
    """A cache of many films, and their table in `films.parquet`, from a cache of few whose pixels are repeated."""
    images, _ = open_cache(few)
    folder.mkdir()
    out = np.lib.format.open_memmap(folder / PIXELS, "w+", np.uint8, (films, *images.shape[1:]))
    for start in range(0, films, len(images)):
        out[start : start + len(images)] = images[: films - start]
    out.flush()  # else it is written to the disk while others are measured
    del out
    names = [f"{film:08d}_000.png" for film in range(films)]
    manifest = pd.DataFrame({"image": names, "stamp": names, "pixels": [f"{film:016x}" for film in range(films)]})
    manifest.to_parquet(folder / MANIFEST, index=False)
    (folder / FACTS).write_text(json.dumps(asdict(cache_facts(few)) | {"films": films}))
    patient = np.arange(films) * PATIENTS // WHOLE_SET
    rng = np.random.default_rng(0)
    labels = pd.DataFrame((rng.random((films, 14)) < 0.05).astype(np.float32), columns=list(CHESTXRAY14))
    rows = {"image": names, "patient": [f"{number:05d}" for number in patient]}
    rows["split"] = np.where(patient % 10 == 0, "val", "train")
    pd.DataFrame(rows).join(labels).to_parquet(folder / "films.parquet", index=False)
