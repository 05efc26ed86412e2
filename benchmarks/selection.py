"""Which validation metric ranks networks as the test films do, where validation is saturated? On PneumoniaMNIST.

    python -m benchmarks.selection --data medmnist:../shared/data/pneumoniamnist.npz --trainings 40 --out rows.jsonl

Draws configurations of selection.yaml at random, trains each in full, and writes what it reaches on validation, under
stress (`cxr_core.stress`) and on test, a line a training; given again it adds what is missing. It prints, for each
criterion, Spearman's correlation with the test AUROC over the trainings, and the test AUROC of the training that it
would choose; 95 % intervals by a bootstrap over trainings. The test films judge criteria here and choose no network.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from cxr_core.batches import Batches
from cxr_core.data import DataName, Films, PreparedData, TrainingData, prepare
from cxr_core.evaluate import predict
from cxr_core.metrics import auroc
from cxr_core.train import Training
from search.objectives import direction
from search.proposals import propose
from search.proposer import complete
from search.space import Space, load_space

CRITERIA = ("auroc_macro", "log_loss", "brier", "stressed_auroc_macro", "stressed_log_loss")
_RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.selection")
    parser.add_argument("--data", required=True)
    parser.add_argument("--trainings", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    space = load_space(Path(__file__).with_name("selection.yaml"))
    prepared = prepare(DataName.parse(args.data), space.header.data.policy, space.task)
    done = args.out.read_text().splitlines() if args.out.exists() else []
    with args.out.open("a") as file:
        for number in range(len(done), args.trainings):
            row = json.dumps(_train(space, prepared, number))
            print(row, file=file, flush=True)
            done.append(row)
    _tell([json.loads(row) for row in done])


def _train(space: Space, prepared: PreparedData, number: int) -> dict[str, object]:
    drawn = propose(space.domains, "random", [], seed=0, number=number, maximize=[True])
    config = space.config(complete(drawn.flat), number)
    data = TrainingData.open(prepared.cache, prepared.development, space.task.labels)
    training = Training(config, data)
    *_, last = training.epochs()
    model = training.average.model if training.average else training.model
    assert prepared.test_cache
    test = Films.open(prepared.test_cache, prepared.films[prepared.films["split"] == "test"], space.task.labels)
    scores = predict(model, Batches(test, torch.device("cpu")), training.normalise)[:, 0]
    validation = {**last.validation.metrics, **training.stressed()}
    return {
        "flat": config.flat,
        "validation": {name: value for name, value in validation.items() if np.isfinite(value)},
        "test": auroc(test.targets[:, 0], scores),
    }


def _tell(rows: list[dict[str, dict[str, float]]]) -> None:
    test = np.array([row["test"] for row in rows], float)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(rows), size=(_RESAMPLES, len(rows)))
    validation = [row["validation"]["auroc_macro"] for row in rows]
    print(f"{len(rows)} trainings; validation AUROC median {np.median(validation):.4f}, best {max(validation):.4f}")
    print(f"test AUROC median {np.median(test):.4f}, best {test.max():.4f}")
    print("| criterion | Spearman with test AUROC | test AUROC of its choice |\n|---|---|---|")
    for name in CRITERIA:
        sign = 1 if direction(name) == "maximize" else -1
        values = sign * np.array([row["validation"][name] for row in rows])
        told = [_interval(_rank(values, test), [_rank(values[draw], test[draw]) for draw in draws])]
        told.append(_interval(test[values.argmax()], [test[draw][values[draw].argmax()] for draw in draws]))
        print(f"| {name} | {' | '.join(told)} |")


def _rank(values: np.ndarray, test: np.ndarray) -> float:
    return float(spearmanr(values, test).statistic)


def _interval(value: float, samples: list[float]) -> str:
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
