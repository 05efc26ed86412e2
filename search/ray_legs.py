"""Legs on Ray Tune: a searcher that asks `Legs` what is next, and a scheduler that asks it whether a leg goes on."""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cxr_core.full_disk import is_disk_full
from search.leg import Leg
from search.legs import DISK, Legs, Pause
from search.lost_processes import LostProcesses
from search.placement import Placement, Resources
from search.ray_cluster import nodes
from search.worker import LegTrainable, Workplace

log = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds that live legs get to end their epoch when the search stops; later their epoch is given up."""


class _Abandoned(Exception):
    """The grace of a stopping search is over; epochs in flight are given up, and repeated on resume."""


class _Stateless:
    """Ray saves what drives it, for a restore that never happens: the study is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _stops_on_full_disk(method: Callable[..., Any]) -> Callable[..., Any]:
    """What Tune calls must not end a search with an error when the study's disk is full: it stops, resumable."""

    @wraps(method)
    def guarded(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except OSError as fault:
            if not is_disk_full(fault):
                raise
            if self.legs.stopping != DISK:
                log.warning("the study's disk is full: the search stops")
            self.legs.stop(DISK)
            return None

    return guarded


class _LegSearcher(_Stateless, Searcher):
    """Gives Tune the next leg; `None` where it must wait."""

    def __init__(self, legs: Legs, workplace: Workplace, resources: Resources):
        super().__init__(metric="value", mode="max")
        self.legs = legs
        self.workplace = workplace
        self.placement = Placement(resources.cpus, resources.gpus, nodes)
        self.lost = LostProcesses()
        self.leg_of: dict[str, Leg] = {}

    @_stops_on_full_disk
    def suggest(self, trial_id: str) -> Any:
        leg = self.legs.next_leg()
        if leg is Pause.FINISHED:
            return Searcher.FINISHED
        if leg is Pause.WAIT:
            return None
        self.leg_of[trial_id] = leg
        request = self.placement.request(leg.trial, leg.config.model.name)
        return {"leg": leg, "workplace": self.workplace, "gpus": self.placement.gpus, "request": request}

    @_stops_on_full_disk
    def epoch_done(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Keep what a leg reports; whether it goes on."""
        leg = self.leg_of[trial_id]
        if "disk_full" in result:
            log.warning("trial %d: %s", leg.trial, result["disk_full"])
            self.legs.stop(DISK)
            return False
        if "epoch" not in result:
            self.legs.failed(leg.trial, result["outcome"], result["reason"])
            return False
        self.placement.measured(leg.trial, leg.config.model.name, result["memory"])
        self.lost.lived(leg.trial)
        return self.legs.epoch_done(leg.trial, result["epoch"])

    @_stops_on_full_disk
    def process_lost(self, trial_id: str, message: str) -> None:
        """A leg's process or node died, as Ray's message says."""
        leg = self.leg_of[trial_id]
        reason, died = self.lost.reason(leg.trial, message, self.placement.peak(leg.trial))
        if died:
            self.placement.process_died(leg.trial, leg.config.model.name)
        self.legs.process_lost(leg.trial, reason)

    @_stops_on_full_disk
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.legs.leg_ended(self.leg_of.pop(trial_id).trial)

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
        goes_on = self.searcher.epoch_done(trial.trial_id, result)  # None, too, if the journal's disk is full
        decision: str = TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_error(tune_controller, trial)
        self.searcher.process_lost(trial.trial_id, Path(trial.error_file).read_text())


class _Heartbeat(_Stateless, tune.Callback):
    """Runs in Tune's loop: shows progress, and ends a search that does not come to its end."""

    def __init__(self, legs: Legs, beat: Callable[[], None]):
        self.legs = legs
        self.beat = beat
        self._stopping_since: float | None = None

    @_stops_on_full_disk
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.beat()
        if over := self.legs.budget.over:
            self.legs.stop(over)
        if self.legs.stopping and self._stopping_since is None:
            self._stopping_since = time.monotonic()
        if self._stopping_since is not None and time.monotonic() - self._stopping_since > GRACE:
            raise _Abandoned


def run_legs(legs: Legs, workplace: Workplace, resources: Resources, beat: Callable[[], None]) -> None:
    """Run a search to its end, on the Ray that is started already.

    beat is called after each step of Tune's loop, several times a second; it must return at once.
    """
    searcher = _LegSearcher(legs, workplace, resources)
    trainable = tune.with_resources(LegTrainable, _request)
    # Tune insists on a folder that all nodes see. On one machine that need not be the study's, whose disk may be full.
    own_folder = Path(workplace.folder) / "ray" if resources.address else Path(tempfile.mkdtemp(prefix="cxr-search-"))
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


def _request(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray must have free for a leg."""
    return tune.PlacementGroupFactory([config["request"]])
