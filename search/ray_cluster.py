"""Ray, started on this machine or found as a cluster, for the time of a search."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cxr_core import memory
from search.placement import Node, Resources
from search.preflight import PreflightError

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
# A hospital's machine tells nobody what it does.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 5.0
"""Seconds that a cluster has to answer."""
_OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's object store: films go through the page cache, so only small results pass through it."""


def nodes() -> list[Node]:
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
    if not any(node.cpus >= resources.cpus and node.gpus >= resources.gpus for node in nodes()):
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
                    "busy (`uptime`), or into the logs of `session_latest` in Ray's temporary folder; then go on"
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
