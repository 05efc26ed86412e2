"""A trial: one configuration, and all that happened to it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cxr_core.registry import Scalar


class Outcome(StrEnum):
    """How a trial ended, or OPEN while it has not.

    REFIT is the end of a refit, which has reached no value, and FOLD that of a training on another fold, whose value is
    of other films.
    """

    OPEN = "open"
    FULL = "full"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    ERROR = "error"
    INFRASTRUCTURE = "infrastructure"
    REFIT = "refit"
    FOLD = "fold"


FAILED = (Outcome.DIVERGED, Outcome.ERROR, Outcome.INFRASTRUCTURE)
"""Outcomes of trials that began and broke."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a trial, as the study keeps it."""

    epoch: int
    value: float
    train_loss: float
    metrics: dict[str, float | None]
    auroc: dict[str, float | None]
    films_per_second: float
    seconds: float
    peak_memory: int
    checkpoint: str
    at: float


class Step(StrEnum):
    """What was decided about a trial."""

    PROPOSED = "proposed"
    LAUNCHED = "launched"
    WAITS = "waits"
    PROMOTED = "promoted"
    RETRIED = "retried"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True)
class Decision:
    """One decision: when (Unix time), what, why in words, and the figures behind it."""

    at: float
    step: Step
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One configuration and all that happened to it.

    baseline: the recipe's name, if it is one. repeats: the trial of which it is another seed. refit: the training
    whose thresholds it takes over, if it learns from the validation films, too: nothing is known of it. fold: the fold
    that it is trained on for a tie-breaker, if not the study's own split. finals: whether it was trained for the
    finals, after the search. stages: how often its schedule is run, each time at a higher fidelity or on another fold.
    values: one for each objective, once it has been trained in full.
    """

    number: int
    flat: dict[str, Scalar]
    seed: int
    baseline: str | None = None
    repeats: int | None = None
    refit: int | None = None
    fold: int | None = None
    finals: bool = False
    stages: int = 1
    epochs: tuple[EpochRecord, ...] = ()
    attempts: int = 0
    outcome: Outcome = Outcome.OPEN
    reason: str = ""
    values: tuple[float, ...] = ()
    started: float = 0.0
    decisions: tuple[Decision, ...] = ()

    @property
    def schedule(self) -> int:
        """Epochs of a full training, all stages together."""
        return self.stage_schedule * self.stages

    @property
    def stage_schedule(self) -> int:
        """Epochs of each stage."""
        return int(self.flat["epochs"])  # type: ignore[arg-type]

    @property
    def last_training(self) -> tuple[EpochRecord, ...]:
        """The epochs of its last stage so far."""
        return self.epochs[len(self.epochs) - 1 - (len(self.epochs) - 1) % self.stage_schedule :] if self.epochs else ()

    @property
    def searched(self) -> bool:
        """Whether a searcher proposed its configuration, for itself."""
        return self.baseline is None and self.repeats is None

    @property
    def on_own_split(self) -> bool:
        """Whether it ends with a training on the study's training films, judged by its validation films."""
        return self.refit is None and self.fold is None

    @property
    def family(self) -> str:
        """Its architecture family."""
        return str(self.flat.get("model", ""))

    @property
    def value(self) -> float | None:
        """The objective, or the first of several, once it has been trained in full."""
        return self.values[0] if self.values else None

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def name(self) -> str:
        """What to call the trial in tables: its number, and its recipe, or the trial it repeats."""
        if self.refit is not None:
            return f"{self.number} (refit of {self.repeats})"
        if self.fold is not None:
            return f"{self.number} (as {self.repeats}, fold {self.fold + 1})"
        if self.repeats is not None:
            return f"{self.number} (as {self.repeats})"
        return f"{self.number} {self.baseline}" if self.baseline else str(self.number)
