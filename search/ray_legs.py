"""Legs on Ray Tune: a searcher that asks `Legs` what is next, and a scheduler that asks it whether a leg goes on."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.legs import Legs, Pause
from search.worker import LegTrainable, Workplace

# Ray reads these when it is imported: no copies of results, no state of its own, no signal handler, no messages.
os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000000",
    TUNE_RESULT_BUFFER_LENGTH="0",
    TUNE_WARN_THRESHOLD_S="10",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

log = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds that live legs get to end their epoch when the search stops; later their epoch is given up."""
_OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's object store: films go through the page cache, so only small results pass through it."""


@dataclass(frozen=True)
class Resources:
    """Where legs run: how many at once, with how many CPU cores and GPUs each; address of a cluster, or None."""

    concurrent: int
    cpus: float = 1
    gpus: float = 0
    address: str | None = None


class _Abandoned(Exception):
    """The grace of a stopping search is over; epochs in flight are given up, and repeated on resume."""


class _Stateless:
    """Ray saves what drives it, for a restore that never happens: the study is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _LegSearcher(_Stateless, Searcher):
    """Gives Tune the next leg; `None` where it must wait."""

    def __init__(self, legs: Legs, workplace: Workplace):
        super().__init__(metric="value", mode="max")
        self.legs = legs
        self.workplace = workplace
        self.trial_of: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        leg = self.legs.next_leg()
        if leg is Pause.FINISHED:
            return Searcher.FINISHED
        if leg is Pause.WAIT:
            return None
        self.trial_of[trial_id] = leg.trial
        return {"leg": leg, "workplace": self.workplace}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.trial_of.pop(trial_id)
        if error:
            self.legs.process_lost(number, "its process died")
        self.legs.leg_ended(number)

    def save(self, checkpoint_path: str) -> None:
        """The study is the state; Ray keeps none."""

    def restore(self, checkpoint_path: str) -> None:
        """The study is the state; Ray keeps none."""


class _LegScheduler(_Stateless, FIFOScheduler):
    """Passes each result to `Legs` and stops the leg when it says so."""

    def __init__(self, searcher: _LegSearcher):
        super().__init__()
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = self.searcher.trial_of[trial.trial_id]
        goes_on = False
        if "epoch" in result:
            goes_on = self.searcher.legs.epoch_done(number, result["epoch"])
        else:
            self.searcher.legs.failed(number, result["outcome"], result["reason"])
        decision: str = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        return decision


class _Heartbeat(_Stateless, tune.Callback):
    """Runs in Tune's loop: shows progress, and ends a search that does not come to its end."""

    def __init__(self, legs: Legs, beat: Callable[[], None]):
        self.legs = legs
        self.beat = beat
        self._stopping_since: float | None = None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.beat()
        if over := self.legs.budget.over:
            self.legs.stop(over)
        if self.legs.stopping and self._stopping_since is None:
            self._stopping_since = time.monotonic()
        if self._stopping_since is not None and time.monotonic() - self._stopping_since > GRACE:
            raise _Abandoned


def run_legs(legs: Legs, workplace: Workplace, resources: Resources, beat: Callable[[], None]) -> None:
    """Run a search to its end, on the Ray that `start_ray` started or found.

    beat is called after each step of Tune's loop, several times a second; it must return at once.
    """
    searcher = _LegSearcher(legs, workplace)
    trainable = tune.with_resources(LegTrainable, {"cpu": resources.cpus, "gpu": resources.gpus})
    own_folder = Path(workplace.folder) / "ray"
    try:
        with suppress(_Abandoned):
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    num_samples=-1,
                    search_alg=searcher,
                    scheduler=_LegScheduler(searcher),
                    reuse_actors=True,
                    max_concurrent_trials=resources.concurrent,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    storage_path=str(own_folder),
                    name=f"session-{int(time.time())}",
                    verbose=0,
                    callbacks=[_Heartbeat(legs, beat)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
    finally:
        shutil.rmtree(own_folder, ignore_errors=True)  # nothing in it is needed: the study is the truth


@contextmanager
def start_ray(resources: Resources) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine with as many cores as the legs need; end it at the end."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if resources.address:
        ray.init(address=resources.address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        cores = max(len(os.sched_getaffinity(0)), int(resources.concurrent * resources.cpus))
        ray.init(num_cpus=cores, object_store_memory=_OBJECT_STORE, **quiet)
    try:
        yield
    finally:
        ray.shutdown()
