"""A clinic's films with several findings, and with the patients' age, sex and view, in real files; and its finals."""

import numpy as np
import pandas as pd
from PIL import Image

from cxr_core.data import DataName, prepare
from search.finalize import main
from search.space import load_space
from search.study import Study
from tests.search.small_study import train

LABELS = ("Mass", "Pleural_Thickening", "Hernia")
"""Of which no test film has the last one; the first one is more frequent among the old, the second in AP views."""

SPACE = """
name: clinic
task: {kind: multilabel, labels: [Mass, Pleural_Thickening, Hernia]}
data: {image_size: 28}
objective: {metric: auroc_macro, direction: maximize}
budget: {trials: 2}
space: {model: {choice: [small_cnn]}, lr: {float: [1e-4, 1e-2], log: true}, epochs: 1}
"""


def write_clinic(folder):
    """300 films of 150 patients as PNGs, and their table; returns its path."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(150):
        person = {"patient": f"p{patient:03d}", "split": ("train", "train", "val", "test")[patient % 4]}
        person |= {"sex": "FM"[rng.integers(2)], "age": int(rng.integers(20, 90))}
        for visit in range(2):
            view = ("PA", "AP")[rng.integers(2)]
            risks = (0.1 + 0.5 * (person["age"] >= 55), 0.2 + 0.4 * (view == "AP"), 0.05 * (person["split"] != "test"))
            findings = dict(zip(LABELS, (rng.random(3) < risks).astype(int), strict=True))
            film = rng.integers(0, 170, (28, 28)) + 3 * findings["Mass"] + 5 * findings["Pleural_Thickening"]
            name = f"{patient:03d}-{visit}.png"
            Image.fromarray(film.astype(np.uint8)).save(folder / name)
            rows.append({"image": name, **person, "view": view, **findings})
    pd.DataFrame(rows).to_csv(folder / "films.csv", index=False)
    return folder / "films.csv"


def finalized_clinic(folder):
    """The study of two trainings on the clinic's films after its finals, as the command leaves it."""
    (folder / "clinic.yaml").write_text(SPACE)
    space = load_space(folder / "clinic.yaml", [])
    prepared = prepare(DataName.parse(f"csv:{write_clinic(folder)}"), space.header.data.policy, space.task)
    facts = {"seed": 0, "mlflow": f"sqlite:///{folder}/mlflow.db", "versions": {"torch": "2"}, **prepared.facts}
    study = Study.create(folder / "studies" / "clinic", space, facts, prepared.development)
    study.prepared, study.space = prepared, space
    for seed in (0, 1):
        train(study, seed)
    assert main([str(study.folder), "--seeds", "1", "--json"]) == 0
    return study
