"""A leg's process, and what it makes of a lack of memory, caused for real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

CHECKOUT = Path(__file__).parents[2]

LEGS = """
import gc, json, os, sys, threading
from pathlib import Path
from cxr_core.config import Task, TrainConfig
from cxr_core.data import DataName, build_cache
from cxr_core.registry import Chosen
from search.leg import Leg
from search.trial import Outcome
from search.worker import LegTrainable, Workplace

folder, configs = Path(sys.argv[1]), json.loads(sys.argv[2])
data = DataName.parse(f"medmnist:{folder / 'few.npz'}")
films = __import__("pandas").read_parquet(folder / "films.parquet")
cache = build_cache(data.open(), films["image"].tolist(), 28, "squash", folder / "cache")
place = Workplace(str(folder), data, ((28, str(cache)),), "squash", "auroc_macro", 1, "cpu")

def leg(number, model, **rest):
    config = TrainConfig(task=Task("binary", ("Pneumonia",)), image_size=28, model=Chosen(*model), **rest)
    return {"leg": Leg(number, config, None), "workplace": place, "gpus": 0}

worker = None
for number, config in enumerate(configs):
    if worker is None:
        worker = LegTrainable(leg(number, **config))
    else:
        worker.reset(leg(number, **config))
    result = worker.train()
    told = {"outcome": result.get("outcome"), "reason": result.get("reason"), "memory": result.get("memory")}
    told["part"] = worker._training.micro_batch if worker._training else None
    told["files"], told["threads"] = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    print("TOLD", json.dumps(told))
"""


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    """A folder with 260 small films of two patients' worth of noise, and what a leg needs beside them."""
    folder = tmp_path_factory.mktemp("worker")
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 200), ("val", 60), ("test", 10)):
        labels = np.arange(count, dtype=np.uint8)[:, None] % 2
        arrays[f"{part}_images"] = rng.integers(0, 90, (count, 28, 28), dtype=np.uint8) + 90 * labels[:, :, None]
        arrays[f"{part}_labels"] = labels
    np.savez(folder / "pneumoniamnist.npz", **arrays)
    (folder / "pneumoniamnist.npz").rename(folder / "few.npz")
    from cxr_core.data import DataName

    films = DataName.parse(f"medmnist:{folder / 'few.npz'}").open().films
    label = next(column for column in films.columns if column.lower() == "pneumonia")
    films = films.rename(columns={label: "Pneumonia"})
    films = films[films["split"] != "test"].reset_index(drop=True)
    pd.DataFrame(films).to_parquet(folder / "films.parquet", index=False)
    (folder / "trials").mkdir()
    return folder


def legs(folder, configs, **env):
    """Train an epoch of each configuration, one after the other in one process; what each told."""
    command = [sys.executable, "-c", LEGS, str(folder), json.dumps(configs)]
    settings = {**os.environ, **env, "PYTHONPATH": str(CHECKOUT)}
    settings.pop("CXR_CACHE", None)
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("TOLD ")]


def test_a_batch_that_does_not_fit_is_halved_within_the_training(study_folder):
    """A layer's output for the whole batch takes 200 x 64 x 28 x 28 x 4 bytes, 40 MB, and there are several."""
    (told,) = legs(study_folder, [{"model": ["small_cnn", {"width": 64}], "batch_size": 200}], CXR_MEMORY_LIMIT="100M")
    assert told["outcome"] is None
    assert told["part"] < 200
