"""Drives legs to their end: workers, Ray, signals, and the notes that a study keeps of its time."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from cxr_core.data import DataName, PreparedData
from cxr_core.models import measure_model
from cxr_core.registry import Chosen
from search.legs import DISK, Legs
from search.placement import Resources
from search.preflight import prepare_sizes
from search.progress import Progress
from search.study import Study

if TYPE_CHECKING:
    from search.worker import Workplace

log = logging.getLogger(__name__)

_NOTE_EVERY = 10.0
"""Seconds between notes of the time used, which is what a kill can lose of the time budget's account."""


def drive(study: Study, legs: Legs, prepared: PreparedData, resources: Resources, **kind: Any) -> None:
    """Train the legs of a study with Ray until there are none, or a signal ends it. Raises PreflightError.

    kind: what the study is to remember of this session beside its beginning and its slots.
    """
    # Ray is imported only when a search starts, and this first: it sets what Ray reads when it is imported.
    from search.ray_cluster import start_ray
    from search.ray_legs import run_legs

    place = workplace(study, legs, prepared, resources)
    warm_up()  # while Ray starts
    noted = time.monotonic()
    study.note("session", {"at": time.time(), "slots": resources.concurrent, "gpus": resources.gpus, **kind})
    # Ray has a SIGTERM handler of its own: ours comes after it.
    with start_ray(resources), drained_on_signal(legs), Progress(legs, study.name) as progress:

        def beat() -> None:
            nonlocal noted
            progress.update()
            if time.monotonic() - noted > _NOTE_EVERY:
                noted = time.monotonic()
                study.note("seconds_used", legs.budget.elapsed)
                if (left := legs.seconds_left()) is not None:
                    study.note("forecast", time.time() + left)

        run_legs(legs, place, resources, beat)


def warm_up() -> None:
    """Look at a first network in a thread, as that imports seconds' worth of torch.

    The thread is no daemon: Python aborts if it ends in the middle of these imports, so it is to wait for them.
    """
    threading.Thread(target=measure_model, args=(Chosen("small_cnn"), 32, 1, 0.0)).start()


def workplace(study: Study, legs: Legs, prepared: PreparedData, resources: Resources) -> "Workplace":
    """What every leg is handed: of the films, those of the development splits alone."""
    from search.worker import Workplace

    return Workplace(
        folder=str(study.folder),
        data=DataName.parse(study.facts["data"]),
        caches=prepare_sizes(prepared, legs.fidelities.image_sizes),
        aspect=prepared.policy.aspect,
        metric=legs.space.header.objective.metric,
        threads=max(1, int(resources.cpus)),
        device="cuda" if resources.gpus else "cpu",
        latency="latency_ms" in study.objective.costs,
    )


@contextmanager
def drained_on_signal(legs: Legs) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets each live leg end its epoch; a second one kills at once."""

    def drain(number: int, frame: FrameType | None) -> None:
        if legs.stopping in signal.Signals.__members__:
            os._exit(128 + number)
        legs.stop(signal.Signals(number).name)
        log.warning("stopping: what is in flight is finished and saved; a second signal kills at once")

    before = {number: signal.signal(number, drain) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_early(legs: Legs) -> str | None:
    """The signal, or the full disk, that ended a session before its work was done."""
    why = legs.stopping
    return why if why == DISK or why in signal.Signals.__members__ else None
