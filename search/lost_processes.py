"""Why a leg's process was lost, in words that tell a user what to do. No Ray here, but its messages."""

from collections import Counter

# "is unavailable" is what Ray says of a process that it cannot reach while the node does not report its end.
_NODE_WORDS = (
    "is unavailable",
    "node died",
    "node has died",
    "node is dead",
    "node was terminated",
    "its node",
    "node failure",
)
_MEMORY_WORDS = ("running low on memory", "OutOfMemoryError", "memory monitor")


class LostProcesses:
    """Counts the processes that each trial lost, and finds a pattern in them."""

    def __init__(self) -> None:
        self._died: Counter[int] = Counter()
        self._others_lived: set[int] = set()

    def lived(self, trial: int) -> None:
        """A trial finished an epoch."""
        self._others_lived |= self._died.keys() - {trial}

    def reason(self, trial: int, message: str, peak: int) -> tuple[str, bool]:
        """Why a trial's process was lost, and whether the process itself died and not its node.

        message: Ray's. peak: bytes that the trial took at most, or 0.
        """
        if any(word in message for word in _NODE_WORDS):
            return "its node was lost or cannot be reached", False
        self._died[trial] += 1
        if any(word in message for word in _MEMORY_WORDS):
            return f"its process was killed because the node ran out of memory{_held(peak)}; {_REMEDY}", True
        if self._died[trial] > 1 and trial in self._others_lived:
            likely = f"memory is the likely cause{_held(peak)}; {_REMEDY}"
            return f"its process died again while other trials went on: {likely}", True
        return "its process died", True


_REMEDY = "search smaller networks or batches (micro_batch), or run fewer trials at once (--concurrent)"


def _held(peak: int) -> str:
    return f" (it held {peak / 2**30:.1f} GiB or more)" if peak else ""
