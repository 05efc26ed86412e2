"""How much of a node a leg is given, so that legs that run at once do not exhaust its memory. No Ray here."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_MARGIN = 1.25
"""Times the peak measured so far that a leg is given: its next epochs, and its family's next trial, may take more."""
_STEP = 2**28
"""Bytes to which shares are rounded down: nodes of one kind, whose memory differs by a few pages, have one share."""
_CONTEXT = 600 * 2**20
"""Bytes of a GPU that CUDA's context takes in each process, beside what PyTorch allocates."""


@dataclass(frozen=True)
class Resources:
    """Where legs run: how many at once, with how many CPU cores and GPUs each; address of a cluster, or None."""

    concurrent: int
    cpus: float = 1
    gpus: float = 0
    address: str | None = None


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers to legs; memory in bytes."""

    cpus: float
    gpus: float
    memory: float


class Placement:
    """Legs are given memory in whole shares: what a node has, divided by the legs that its cores and GPUs can run.

    So a leg that fits in its share costs nothing, and one that does not keeps others away from its node. How much a
    trial takes is known from earlier epochs of its model family, and of a trial that lost its process it is doubled.
    nodes: the machines that are there now. Few different requests are made, as each needs processes of its own.
    """

    def __init__(self, cpus: float, gpus: float, nodes: Callable[[], Iterable[Node]]):
        self.cpus, self.gpus, self._nodes = cpus, gpus, nodes
        self._family_peak: dict[str, int] = {}
        self._trial_peak: dict[int, int] = {}
        self._at_least: dict[int, int] = {}

    def measured(self, trial: int, family: str, peak: int) -> None:
        """Keep the peak of a leg's host memory, in bytes."""
        self._family_peak[family] = max(peak, self._family_peak.get(family, 0))
        self._trial_peak[trial] = max(peak, self._trial_peak.get(trial, 0))

    def peak(self, trial: int) -> int:
        """Bytes that a trial's process was seen to hold at most; 0 if it finished no epoch."""
        return self._trial_peak.get(trial, 0)

    def process_died(self, trial: int, family: str) -> None:
        """Give a trial's next leg twice the memory, as its process may have been killed for taking too much."""
        self._at_least[trial] = 2 * self._shares(trial, family)[0]

    def request(self, trial: int, family: str) -> dict[str, float]:
        """What a leg asks Ray for: CPU cores, GPUs and bytes of memory."""
        shares, share = self._shares(trial, family)
        return {"CPU": self.cpus, "GPU": self.gpus, **({"memory": shares * share} if share else {})}

    def _shares(self, trial: int, family: str) -> tuple[int, int]:
        """How many shares a leg is given, no more than some node has, and the bytes of one."""
        nodes = [(node, slots) for node in self._nodes() if (slots := self._slots(node)) and node.memory]
        if not nodes:
            return 1, 0
        share = min(int(node.memory / slots) for node, slots in nodes)
        share -= share % _STEP if share > _STEP else 0
        most = max(int(node.memory / share) for node, _ in nodes)
        need = self._family_peak.get(family, 0) * _MARGIN  # a trial's own peak is in it
        return min(most, max(self._at_least.get(trial, 1), math.ceil(need / share))), share

    def _slots(self, node: Node) -> int:
        """Legs that a node's cores and GPUs can run at once."""
        offers = [(node.cpus, self.cpus), (node.gpus, self.gpus)]
        return min((int(there / wanted) for there, wanted in offers if wanted), default=1)


def memory_fraction(gpus: float, total: int) -> float | None:
    """Share of a GPU's memory that PyTorch may allocate in a process given a part of the GPU; None for whole ones.

    total: bytes of the GPU. Contexts of CUDA are left room for: full use of all shares must not exceed the GPU.
    """
    if not 0 < gpus < 1:
        return None
    return max(gpus / 2, gpus - _CONTEXT / total)
