"""The trainer against a bare training loop as one writes it by hand: same films, network, augmentation, optimizer.

    python benchmarks/trainer.py --data medmnist:../shared/data/pneumoniamnist.npz

Both train and validate whole epochs on one thread, in turn in one process. The bare loop holds all films in memory as
one tensor, averages weights with PyTorch's own class and scores with scikit-learn.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rounds import interleaved, machine, ratio, table
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, too

from cxr_core.augmentations import augmentations  # noqa: E402
from cxr_core.config import TrainConfig  # noqa: E402
from cxr_core.data import DataName, DataPolicy, TrainingData, prepare  # noqa: E402
from cxr_core.registry import Chosen  # noqa: E402
from cxr_core.train import Training  # noqa: E402

NETS = {"small_cnn, width 32": Chosen("small_cnn"), "small_cnn, width 8": Chosen("small_cnn", {"width": 8})}


def bare(config: TrainConfig, data: TrainingData) -> Iterator[float]:
    """A hand-written loop; yields the validation AUROC of each epoch."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    films, val = (torch.from_numpy(part.pixels(np.arange(len(part))))[:, None] for part in (data.train, data.val))
    targets = torch.from_numpy(data.train.targets)
    model = config.network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01, foreach=True)
    steps = -(-len(films) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * steps)
    statistics = data.pixel_statistics
    mean, std = statistics.mean, statistics.std
    for _ in range(config.epochs):
        model.train()
        for batch in torch.randperm(len(films), generator=generator).split(config.batch_size):
            moved = augmentations.call(config.augment, films[batch].float() / 255, generator)
            loss = binary_cross_entropy_with_logits(model((moved - mean) / std), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
        average.eval()
        with torch.inference_mode():
            scores = torch.cat([torch.sigmoid(average((part.float() / 255 - mean) / std)) for part in val.split(512)])
        average_precision_score(data.val.targets, scores)
        yield float(roc_auc_score(data.val.targets, scores))


def ours(config: TrainConfig, data: TrainingData) -> Iterator[float]:
    for epoch in Training(config, data).epochs():
        yield epoch.validation.metrics["auroc_macro"]


def epoch_of(training: Iterator[float], reached: list[float]) -> Callable[[], float]:
    """Seconds of the next epoch."""

    def run() -> float:
        start = time.perf_counter()
        reached.append(next(training))
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", default="phantom", help="a data set with one label, KIND:PATH")
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each, in turn")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("torch", "scikit-learn") + "\n")
    rows, ratios = [], []
    prepared = prepare(DataName.parse(args.data), DataPolicy(image_size=28))
    data = TrainingData.open(prepared.cache, prepared.development, prepared.task.labels)
    for name, model in NETS.items():
        config = TrainConfig(task=prepared.task, image_size=28, model=model, ema=0.99, epochs=args.rounds + 1)
        reached: dict[str, list[float]] = {"cxr_core": [], "bare loop": []}
        trainings = {"cxr_core": ours(config, data), "bare loop": bare(config, data)}
        ways = {way: epoch_of(training, reached[way]) for way, training in trainings.items()}
        interleaved(ways, 1)  # the first epoch warms up
        seconds = interleaved(ways, args.rounds)
        for way, values in seconds.items():
            rows.append((f"{name}, {way}", values, f"validation AUROC {reached[way][-1]:.4f}"))
        ratios.append(
            f"{name}: {ratio(seconds['cxr_core'], seconds['bare loop']):.3f} of the bare loop's time an epoch"
        )
    print(table("seconds an epoch", rows, digits=3) + "\n")
    print("\n".join(ratios))


if __name__ == "__main__":
    main()
