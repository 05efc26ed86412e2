"""A leg: what a worker is told to train."""

from dataclasses import dataclass

from cxr_core.config import TrainConfig


@dataclass(frozen=True)
class Leg:
    """One trial's way from a checkpoint (None: from the start) to its next decision.

    before: epochs of earlier stages; data_share: of the training patients. scored: epochs whose validation scores are
    to be kept, as a decision needs them. stressed: the epoch after which validation is to be stressed, too; 0 is none.
    refit: the checkpoint whose thresholds a training on training and validation films takes over.
    """

    trial: int
    config: TrainConfig
    checkpoint: str | None
    before: int = 0
    data_share: float = 1.0
    scored: tuple[int, ...] = ()
    stressed: int = 0
    refit: str | None = None
