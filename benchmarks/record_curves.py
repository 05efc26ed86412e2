"""Records a table of learning curves for `search.simulate`: random trainings of a small space, all in full.

    python -m benchmarks.record_curves pneumoniamnist --data medmnist:../shared/data/pneumoniamnist.npz
    python -m benchmarks.record_curves nih_mini --data nih:../shared/data/nih_mini

The search's own classes propose and judge (searcher `random`, mode `none`); one process trains, without Ray. Seconds
are those that the processor spent on the epoch, not those of the clock: other programs do not count.
Written are benchmarks/tables/NAME.jsonl and, beside it, the space as NAME.yaml.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import torch

from cxr_core.data import DataName, TrainingData, prepare
from cxr_core.train import Diverged, Training
from search.budget import Budget
from search.journal import Journal
from search.leg import Leg
from search.legs import Legs
from search.space import load_space
from search.trial import EpochRecord, Outcome

TABLES = Path(__file__).parent / "tables"
METRICS = ("auroc_macro", "log_loss")


def train_leg(legs: Legs, leg: Leg, data: TrainingData, metric: str, began: float) -> None:
    """Train a leg in this process, as a worker of a search does."""
    epochs = Training(leg.config, data).epochs()
    while True:
        started = time.process_time()
        try:
            epoch = next(epochs)
            if not math.isfinite(epoch.validation.metrics[metric]):
                raise Diverged(f"{metric} is not finite")
        except Diverged as reason:
            legs.failed(leg.trial, Outcome.DIVERGED, str(reason))
            return
        record = EpochRecord(
            epoch=epoch.index,
            value=epoch.validation.metrics[metric],
            train_loss=epoch.train_loss,
            metrics=dict(epoch.validation.metrics),
            auroc={},
            films_per_second=epoch.films_per_second,
            seconds=time.process_time() - started,
            peak_memory=0,
            checkpoint="",
            at=time.monotonic() - began,
        )
        if not legs.epoch_done(leg.trial, record):
            return


def row(trial) -> str:
    curve, spent = [], 0.0
    for epoch in trial.epochs:
        spent += epoch.seconds
        values = {name: round(epoch.metrics[name], 6) for name in METRICS}
        curve.append(
            {"epoch": epoch.epoch, "time": round(spent, 4), **values, "train_loss": round(epoch.train_loss, 5)}
        )
    return json.dumps({**trial.flat, "learning_curve": curve})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the space benchmarks/tables/NAME.yaml")
    parser.add_argument("--data", required=True, metavar="KIND:PATH")
    parser.add_argument(
        "--minutes", type=float, default=12, help="of the processor; the training in progress is finished"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    space = load_space(TABLES / f"{args.name}.yaml")
    prepared = prepare(DataName.parse(args.data), space.header.data.policy, space.task, args.seed)
    data = TrainingData.open(prepared.cache, prepared.development, space.task.labels)
    began = time.monotonic()
    journal = Journal.in_memory(space.objective)
    legs = Legs(journal, space, args.seed, Budget(space.header.budget, space.objective.maximize[0]))
    path = TABLES / f"{args.name}.jsonl"
    with path.open("w") as file:
        write = partial(print, file=file, flush=True)
        while time.process_time() < 60 * args.minutes and isinstance(leg := legs.next_leg(), Leg):
            train_leg(legs, leg, data, space.header.objective.metric, began)
            legs.leg_ended(leg.trial)
            write(row(journal.trial(leg.trial)))
    print(f"{path}: {len(journal.trials())} trainings in {time.process_time() / 60:.1f} minutes")


if __name__ == "__main__":
    main()
