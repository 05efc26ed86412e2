"""The peer of `orchestration.py`: a search as one would glue it from Ray Tune, Optuna and MLflow, with their defaults.

Tuner + OptunaSearch + ASHAScheduler + MLflowLoggerCallback around a function trainable. What is trained, its space and
what a checkpoint holds are the same as in our search; so is the number of threads.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from cxr_core.config import Task, TrainConfig
from cxr_core.data import TrainingData
from cxr_core.train import Training

_MAX_EPOCHS = 16


def space(trial: optuna.Trial) -> dict[str, Any]:
    """Define-by-run: the parameters of `orchestration.SPACE`."""
    trial.suggest_int("model.small_cnn.width", 16, 64, step=16)
    if trial.suggest_categorical("schedule", ["cosine", "step"]) == "cosine":
        trial.suggest_float("schedule.cosine.warmup", 0.0, 0.2)
    else:
        trial.suggest_float("schedule.step.gamma", 0.05, 0.5, log=True)
    if trial.suggest_categorical("loss", ["bce", "weighted_bce"]) == "weighted_bce":
        trial.suggest_float("loss.weighted_bce.cap", 1.0, 10.0, log=True)
    if trial.suggest_categorical("sampler", ["uniform", "oversample"]) == "oversample":
        trial.suggest_float("sampler.oversample.threshold", 0.1, 0.6, log=True)
    trial.suggest_float("dropout", 0.0, 0.6)
    trial.suggest_float("lr", 3e-4, 1e-2, log=True)
    trial.suggest_int("epochs", 4, _MAX_EPOCHS)
    return {"model": "small_cnn"}


def trainable(config: dict[str, Any], cache: str, films: str, records: str) -> None:
    """Train one configuration; each epoch is saved, written down for the benchmark, and reported."""
    torch.set_num_threads(1)
    task = Task("binary", ("Pneumonia",))
    data = TrainingData.open(Path(cache), pd.read_parquet(films), task.labels)
    training = Training(TrainConfig.from_flat(config, task, data.image_size), data)
    record = Path(records) / f"{tune.get_context().get_trial_id()}.jsonl"
    record.write_text(json.dumps({"config": config}) + "\n")
    for epoch in training.epochs():
        with tempfile.TemporaryDirectory() as folder:
            training.save(Path(folder) / "model.pt")
            # As `at` in our study: after the checkpoint is written, before the result is reported.
            line = {"seconds": epoch.seconds, "at": time.time()}
            with record.open("a") as file:
                file.write(json.dumps(line) + "\n")
            metrics = {**epoch.validation.metrics, "train_loss": epoch.train_loss, "seconds": epoch.seconds}
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where Ray and MLflow write")
    parser.add_argument("--cache", required=True, help="the films' cache")
    parser.add_argument("--films", required=True, help="the table of films, splits and labels")
    parser.add_argument(
        "--records", required=True, help="folder for a file per trial: its configuration, then its epochs"
    )
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--concurrent", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    ray.init(num_cpus=args.concurrent)
    given = tune.with_parameters(trainable, cache=args.cache, films=args.films, records=args.records)
    results = tune.Tuner(
        tune.with_resources(given, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric="auroc_macro",
            mode="max",
            num_samples=args.trials,
            max_concurrent_trials=args.concurrent,
            search_alg=OptunaSearch(space, metric="auroc_macro", mode="max", seed=args.seed),
            scheduler=ASHAScheduler(
                time_attr="training_iteration", max_t=_MAX_EPOCHS, grace_period=1, reduction_factor=4
            ),
        ),
        run_config=tune.RunConfig(
            name="naive",
            storage_path=str(args.folder / "ray_results"),
            callbacks=[
                MLflowLoggerCallback(tracking_uri=f"sqlite:///{args.folder / 'mlflow.db'}", experiment_name="naive")
            ],
        ),
    ).fit()
    best = results.get_best_result()
    print(f"best auroc_macro {best.metrics['auroc_macro']:.4f} of {len(results)} trials")


if __name__ == "__main__":
    main()
