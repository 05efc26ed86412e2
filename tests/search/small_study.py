"""A study of films that a program draws, and real trainings of a second each, without Ray."""

import numpy as np

from cxr_core.data import DataName, TrainingData, prepare
from cxr_core.train import Training
from search.kept_scores import save_scores, scores_path
from search.study import Study
from search.trial import EpochRecord, Outcome

SMALL = {"model": "small_cnn", "epochs": 1, "batch_size": 32}


def new_study(folder, space, brighter=25):
    """A study of 300 films of three splits, with its `prepared` data, its `space` and the `arrays` of its films.

    brighter: grey levels that those with the finding have more; the mean of a film without it varies by 2.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 150), ("val", 70), ("test", 80)):
        labels = (rng.random((count, 1)) < 0.4).astype(np.uint8)
        films = rng.integers(0, 200, (count, 28, 28)) + brighter * labels[:, :, None]
        arrays |= {f"{part}_images": films.astype(np.uint8), f"{part}_labels": labels}
    np.savez(folder / "pneumoniamnist.npz", **arrays)
    name = DataName.parse(f"medmnist:{folder / 'pneumoniamnist.npz'}")
    prepared = prepare(name, space.header.data.policy, space.task)
    facts = {"seed": 0, "mlflow": f"sqlite:///{folder}/mlflow.db", "versions": {}, **prepared.facts}
    study = Study.create(folder / "studies" / "sealed", space, facts, prepared.development)
    study.prepared, study.space, study.arrays = prepared, space, arrays
    return study


def train(study, seed=0, repeats=None):
    """A training in full, as a worker leaves it."""
    kind = {} if repeats is None else {"repeats": repeats}
    trial = study.add(SMALL, seed, "for a test", **kind)
    data = TrainingData.open(study.prepared.cache, study.prepared.development, study.prepared.task.labels)
    training = Training(study.space.config(SMALL, seed), data, "cpu")
    (epoch,) = training.epochs()
    path = study.trial_folder(trial.number) / "epoch-0001.pt"
    path.parent.mkdir()
    training.save(path)
    metrics, name = {**epoch.validation.metrics, **training.stressed()}, str(path.relative_to(study.folder))
    if study.objective.tie_breakers:
        save_scores(scores_path(study.folder, trial.number, 1), data.val.table["image"], training.probabilities)
    known = {key: value for key, value in metrics.items() if not np.isnan(value)}
    record = EpochRecord(
        1, metrics[study.objective.metrics[0]], 0.5, known, epoch.validation.auroc, 1.0, 1.0, 0, name, 1.0
    )
    study.record(trial.number, record)
    return study.finish(trial.number, Outcome.FULL)
