"""A leg in its worker process: trains epoch by epoch, saves each, and reports."""

import logging
import math
import os
import time
import traceback
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune

from cxr_core import memory
from cxr_core.data import DataName, TrainingData, build_cache
from cxr_core.data.policy import Aspect
from cxr_core.full_disk import is_disk_full
from cxr_core.metrics import KFOLD, STRESSED
from search.kept_scores import save_scores, scores_path
from search.leg import Leg
from search.placement import memory_fraction
from search.trial import EpochRecord, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """What every leg of a study shares.

    folder: the study's. caches: of the films, by image size. metric: the objective. latency: whether it is asked for.
    """

    folder: str
    data: DataName
    caches: tuple[tuple[int, str], ...]
    aspect: Aspect
    metric: str
    threads: int
    device: str
    latency: bool = False


@lru_cache(maxsize=1)
def _open_data(workplace: Workplace, labels: tuple[str, ...], image_size: int, share: float) -> TrainingData:
    """The films that trials may see; the first process on a node without their cache builds it."""
    films = pd.read_parquet(Path(workplace.folder) / "films.parquet")
    cache = Path(dict(workplace.caches)[image_size])
    if own := os.environ.get("CXR_CACHE"):  # this node's own, which need not be where the driver's is
        cache = Path(own).expanduser() / cache.name
    if not cache.exists():
        cache = build_cache(workplace.data.open(), films["image"].tolist(), image_size, workplace.aspect, cache.parent)
    data = TrainingData.open(cache, films, labels)
    return data if share == 1 else data.share(share)


class LegTrainable(tune.Trainable):
    """Ray Tune's view of a leg: one step is one epoch. The process, its imports and its films outlive the leg.

    A fault of the trial is reported as a result and not raised, so that the process survives it. When a leg ends is
    the scheduler's to say, after each result.
    """

    def setup(self, config: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(config["workplace"].threads)
        if share := memory_fraction(config["gpus"], _device_memory(config["gpus"])):
            torch.cuda.set_per_process_memory_fraction(share)
        if limit := os.environ.get(memory.LIMIT):
            # Code is not the trial's memory, and if it is cut off while it is imported, the process is of no more use.
            import torch._dynamo  # what an optimizer imports when the first one is made

            import cxr_core.train  # noqa: F401

            memory.limit_process(memory.parse_size(limit))
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Take over the next leg in the same process."""
        self.leg: Leg = config["leg"]
        self.workplace: Workplace = config["workplace"]
        self._training: Any = None  # the last leg's network must be gone before the next one is built
        self._epochs: Any = None
        self._milliseconds: dict[str, float] = {}
        memory.release(self.workplace.device)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A leg saves itself, each epoch; Ray has nothing to add."""

    def step(self) -> dict[str, Any]:
        from cxr_core.models import Infeasible
        from cxr_core.train import Diverged

        memory.reset_peak()
        try:
            return self._train_epoch()
        except Diverged as reason:
            return {"outcome": Outcome.DIVERGED, "reason": str(reason)}
        except Infeasible as reason:
            return {"outcome": Outcome.INFEASIBLE, "reason": str(reason)}
        except Exception as fault:
            if is_disk_full(fault):
                return {"disk_full": str(fault)}
            if memory.is_out_of_memory(fault):
                return {"outcome": Outcome.INFEASIBLE, "reason": _out_of_memory(fault)}
            if _process_is_broken(fault):
                raise
            log.exception("trial %d failed", self.leg.trial)
            text = "".join(traceback.format_exception(fault))
            self._folder.mkdir(exist_ok=True)
            (self._folder / "error.txt").write_text(text)
            return {"outcome": Outcome.ERROR, "reason": f"{type(fault).__name__}: {fault}"}

    @property
    def _folder(self) -> Path:
        return Path(self.workplace.folder) / "trials" / f"{self.leg.trial:05d}"

    def _train_epoch(self) -> dict[str, Any]:
        from cxr_core.train import Diverged, Training

        if self._epochs is None:
            config = self.leg.config
            data = _open_data(self.workplace, config.task.labels, config.image_size, self.leg.data_share)
            data = data.with_validation() if self.leg.refit else data
            data = data.fold(self.leg.fold.index, self.leg.fold.of) if self.leg.fold else data
            saved = Path(self.workplace.folder) / self.leg.checkpoint if self.leg.checkpoint else None
            self._training = Training(config, data, self.workplace.device, saved)
            self._epochs = self._training.epochs()
        epoch = next(self._epochs)
        done, metric = self.leg.before + epoch.index, self.workplace.metric
        if self.leg.refit:
            return self._refit_epoch(epoch)
        stressed = self._training.stressed() if done == self.leg.stressed or metric in STRESSED else {}
        metrics = {**epoch.validation.metrics, **stressed}
        if self.leg.fold and metric in KFOLD:
            metrics |= self.leg.fold.means(metrics)
        if not math.isfinite(value := metrics[metric]):
            raise Diverged(f"{metric} is {value} after epoch {done}")
        if done in self.leg.scored:
            self._folder.mkdir(exist_ok=True)
            path = scores_path(Path(self.workplace.folder), self.leg.trial, done)
            save_scores(path, self._training.data.val.table["image"], self._training.probabilities)
        record = EpochRecord(
            epoch=done,
            value=value,
            train_loss=epoch.train_loss,
            metrics=_defined({**metrics, **self._latency()}),
            auroc=_defined(epoch.validation.auroc),
            films_per_second=epoch.films_per_second,
            seconds=epoch.seconds,
            peak_memory=epoch.peak_memory,
            checkpoint=self._save(done),
            at=time.time(),
        )
        return {"epoch": record, "memory": memory.peak()}

    def _refit_epoch(self, epoch: Any) -> dict[str, Any]:
        """Of a refit no metric is told: it has learnt from the validation films, and they would flatter it."""
        from cxr_core.checkpoint import load_checkpoint

        assert self.leg.refit
        self._training.thresholds = load_checkpoint(Path(self.workplace.folder) / self.leg.refit).thresholds
        record = EpochRecord(
            epoch=epoch.index,
            value=math.nan,
            train_loss=epoch.train_loss,
            metrics={},
            auroc={},
            films_per_second=epoch.films_per_second,
            seconds=epoch.seconds,
            peak_memory=epoch.peak_memory,
            checkpoint=self._save(epoch.index),
            at=time.time(),
        )
        return {"epoch": record, "memory": memory.peak()}

    def _latency(self) -> dict[str, float]:
        """Milliseconds that the network takes for one film, if the search asks for it; measured once a leg."""
        from cxr_core.latency import film_latency

        if self.workplace.latency and not self._milliseconds:
            config, device = self.leg.config, self.workplace.device
            latency = film_latency(self._training.model, config.image_size, device)
            self._milliseconds = {"latency_ms": config.views.count * latency}
        return self._milliseconds

    def _save(self, epoch: int) -> str:
        """Save this epoch and drop those before the last: until the driver has recorded this one, it needs the last."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"epoch-{epoch:04d}.pt"
        self._training.save(path)
        for older in self._folder.glob("epoch-*.pt"):
            if older.name < f"epoch-{epoch - 1:04d}.pt":
                older.unlink()
        return str(path.relative_to(self.workplace.folder))


def _defined(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _process_is_broken(fault: Exception) -> bool:
    """After an accelerator's error a process cannot be trusted with another trial."""
    return "CUDA error" in str(fault)


def _out_of_memory(fault: Exception) -> str:
    """The training halves its batches by itself: what is left does not shrink with them."""
    return f"out of memory, however few films at a time: {str(fault).splitlines()[0] if str(fault) else 'MemoryError'}"


def _device_memory(gpus: float) -> int:
    """Bytes of the GPU that this process has been given; 0 without one."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory) if gpus else 0
