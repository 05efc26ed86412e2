"""Legs on Ray Tune: a searcher that asks `Legs` what is next, and a scheduler that asks it whether a leg goes on."""

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from cxr_core import memory
from search.full_disk import DISK, is_disk_full
from search.legs import Leg, Legs, Pause
from search.lost_processes import LostProcesses
from search.placement import Node, Placement
from search.preflight import PreflightError
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
# Ray's workers step back by 15, as if training were the lesser work of this machine. `nice` on the command still holds.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

log = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds that live legs get to end their epoch when the search stops; later their epoch is given up."""
_CONNECT_TIMEOUT = 5.0
"""Seconds that a cluster has to answer."""
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
        self.placement = Placement(resources.cpus, resources.gpus, _nodes)
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
    """Run a search to its end, on the Ray that `start_ray` started or found.

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


def _nodes() -> list[Node]:
    """The machines that Ray has now."""
    offers = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(offer.get("CPU", 0), offer.get("GPU", 0), offer.get("memory", 0)) for offer in offers]


def _check_memory_limit() -> None:
    try:
        memory.parse_size(os.environ.get(memory.LIMIT, "1G"))
    except ValueError as wrong:
        raise PreflightError(f"{memory.LIMIT} {wrong}") from None


def _check_address(address: str) -> None:
    """Raise PreflightError if nobody listens there: Ray itself would try for longer than a quarter of an hour."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return  # `auto` or a name that Ray looks up on this machine, and says at once if there is nothing
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
    except (OSError, ValueError, OverflowError) as fault:
        raise PreflightError(
            f"--address {address}: no Ray cluster answers ({fault}); see `ray status`, or start one with `ray start`"
        ) from None


def _look_for_room(resources: Resources) -> None:
    """Say so if trials have to wait for a node: on a cluster that does not grow on demand they would for ever."""
    if not any(node.cpus >= resources.cpus and node.gpus >= resources.gpus for node in _nodes()):
        log.warning(
            "%s: no node has %g CPU and %g GPU for a trial; the search waits until one joins "
            "(--cpus-per-trial and --gpus-per-trial say what a trial needs)",
            resources.address,
            resources.cpus,
            resources.gpus,
        )


def _bring_token() -> None:
    """Show a cluster the token of this user, if there is one.

    Ray makes one at its first local start; from then on `ray start` demands it, but `ray.init` with an address does not
    bring it unless RAY_AUTH_MODE is set.
    """
    with suppress(ImportError):  # no public name, and not in every version
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _start_here(cores: int) -> None:
    """Start Ray on this machine; a second attempt, as a busy machine does not always answer Ray within 30 seconds."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    for last in (False, True):
        try:
            ray.init(num_cpus=cores, object_store_memory=_OBJECT_STORE, **quiet)
            return
        except Exception as fault:  # Ray raises Exception itself
            ray.shutdown()
            if last:
                raise PreflightError(
                    f"Ray does not start on this machine: {fault}. Nothing is lost; look for what keeps the machine "
                    "busy (`uptime`), and for Ray's own messages in /tmp/ray/session_latest/logs; then --resume"
                ) from None
            log.warning("Ray did not start in time (%s); trying once more", str(fault).splitlines()[0])


@contextmanager
def start_ray(resources: Resources) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine with as many cores as the legs need; end it at the end.

    Raises PreflightError if there is no cluster at the address, or the memory limit cannot be read.
    """
    _check_memory_limit()
    if resources.address:
        _check_address(resources.address)
    if resources.address:
        _bring_token()
        try:
            ray.init(address=resources.address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as fault:
            raise PreflightError(f"--address {resources.address}: {fault}") from None
        _look_for_room(resources)
    else:
        _start_here(max(len(os.sched_getaffinity(0)), int(resources.concurrent * resources.cpus)))
    try:
        yield
    finally:
        ray.shutdown()
