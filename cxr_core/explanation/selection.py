"""Which films a panel shows: the surest of those that a network calls rightly, calls wrongly, and misses."""

from typing import Literal

import numpy as np

Kind = Literal["true positives", "false positives", "false negatives"]
KINDS: tuple[Kind, ...] = ("true positives", "false positives", "false negatives")


def surest(
    targets: np.ndarray, probabilities: np.ndarray, threshold: float, patients: np.ndarray, count: int
) -> dict[Kind, tuple[int, list[int]]]:
    """How many films of one finding are of each kind, and positions of up to `count`, the surest first, one a patient.

    targets: (N,) in {0, 1, NaN}. probabilities, patients: (N,). A threshold of NaN calls and misses nothing.
    """
    called, missed = probabilities >= threshold, probabilities < threshold
    found: dict[Kind, tuple[int, list[int]]] = {}
    members = {
        "true positives": (targets == 1) & called,
        "false positives": (targets == 0) & called,
        "false negatives": (targets == 1) & missed,
    }
    for kind in KINDS:
        rows = np.flatnonzero(members[kind])
        sure = probabilities[rows] if kind == "false negatives" else -probabilities[rows]
        ordered = rows[np.argsort(sure, kind="stable")]
        # Films of one patient are near-duplicates.
        _, first = np.unique(patients[ordered], return_index=True)
        found[kind] = len(rows), [int(row) for row in ordered[np.sort(first)][:count]]
    return found
