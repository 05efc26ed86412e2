"""The trainer against a bare training loop as one writes it by hand: same films, network, augmentation, optimizer.

    python -m benchmarks.trainer --data medmnist:../shared/data/pneumoniamnist.npz

Both train and validate whole epochs on one thread, in turn in one process. The bare loop holds all films in memory as
one tensor, in the memory format that is faster, averages weights with PyTorch's own class and scores with
scikit-learn: two metrics an epoch, where the trainer gives twelve and fits thresholds.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.rounds import Seconds, interleaved, machine, publish, ratio, table
from cxr_core.augmentations import augmentations
from cxr_core.config import TrainConfig
from cxr_core.data import DataName, DataPolicy, TrainingData, prepare
from cxr_core.registry import Chosen
from cxr_core.train import Training

NETS = {f"width {width}": Chosen("small_cnn", {"width": width}) for width in (32, 8)}


def bare(config: TrainConfig, data: TrainingData) -> Iterator[float]:
    """A hand-written loop; yields the validation AUROC of each epoch."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    films, val = (torch.from_numpy(part.pixels(np.arange(len(part))))[:, None] for part in (data.train, data.val))
    targets = torch.from_numpy(data.train.targets)
    model = config.network().to(memory_format=torch.channels_last)
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


def epoch_of(training: Iterator[float], reached: list[float], busy: list[float]) -> Callable[[], float]:
    """Seconds of the next epoch; what it reached and its CPU seconds are appended."""

    def run() -> float:
        start, cpu = time.perf_counter(), time.process_time()
        reached.append(next(training))
        busy.append(time.process_time() - cpu)
        return time.perf_counter() - start

    return run


def compare(name: str, config: TrainConfig, data: TrainingData) -> list[tuple[str, list[float], str]]:
    """Rows of the table: wall and CPU seconds of each, and how often the bare loop's time the trainer takes."""
    reached: dict[str, list[float]] = {"cxr_core": [], "bare loop": []}
    cpu: Seconds = {way: [] for way in reached}
    trainings = {"cxr_core": ours(config, data), "bare loop": bare(config, data)}
    ways = {way: epoch_of(training, reached[way], cpu[way]) for way, training in trainings.items()}
    interleaved(ways, 1)  # the first epoch warms up
    wall = interleaved(ways, config.epochs - 1)
    cpu = {way: values[1:] for way, values in cpu.items()}
    last = {way: f"validation AUROC at the end {values[-1]:.4f}" for way, values in reached.items()}
    rows = []
    for clock, seconds in (("wall", wall), ("CPU", cpu)):
        share = f"{ratio(seconds['cxr_core'], seconds['bare loop']):.3f} of the bare loop's time"
        remarks = (f"{share}; {last['cxr_core']}", last["bare loop"]) if clock == "wall" else (share, "")
        rows += [(f"{name}, {way}, {clock}", seconds[way], of) for way, of in zip(seconds, remarks, strict=True)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", default="phantom", help="a data set with one label, KIND:PATH")
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each, in turn")
    parser.add_argument("--write", action="store_true", help="write benchmarks/trainer.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = machine("torch", "scikit-learn")
    prepared = prepare(DataName.parse(args.data), DataPolicy(image_size=28))
    data = TrainingData.open(prepared.cache, prepared.development, prepared.task.labels)
    config = TrainConfig(task=prepared.task, image_size=28, model=NETS["width 32"], ema=0.99, epochs=args.rounds + 1)
    rows = [row for name, model in NETS.items() for row in compare(name, replace(config, model=model), data)]
    publish(
        __file__,
        "Trainer: an epoch of training and validation, against a bare PyTorch loop",
        about,
        f"`small_cnn` of two widths at 28 px, {len(data.train):,} films to learn from and {len(data.val):,} for "
        f"validation, batches of {config.batch_size}, augmentation `{config.augment.name}`, one thread. "
        "A share is the median of the rounds' ratios. Above a load of the number of cores wall seconds tell who "
        "waited, and CPU seconds what each costs.",
        table("seconds an epoch", rows, 2),
        write=args.write,
    )


if __name__ == "__main__":
    main()
