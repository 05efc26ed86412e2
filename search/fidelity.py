"""The trainings of a trial: what grows from rung to rung, and the folds of a k-fold validation."""

from dataclasses import dataclass
from typing import Literal

Fidelity = Literal["schedule", "image_size", "data_share"]

_SMALLEST = 16
"""Side in pixels below which a film shows nothing."""


@dataclass(frozen=True)
class Stage:
    """One training of a trial, from its own start to its own end.

    image_size in pixels; data_share of the training patients; before: epochs of the stages before it. fold: of the
    patients, which of them judge; None is the study's own split.
    """

    image_size: int
    data_share: float
    before: int
    fold: int | None = None


@dataclass(frozen=True)
class Fidelities:
    """The stages of every trial of a search.

    With `schedule` there is one stage, and rungs lie within it. Otherwise each rung is the end of a stage, a whole
    training on smaller or fewer films, and the last stage has them all. Of several folds each is a stage, the study's
    own split the last one; rungs lie within the first one, and at its end.
    """

    kind: Fidelity
    rungs: tuple[float, ...]
    image_size: int
    folds: int = 1

    @property
    def stages(self) -> int:
        """How often a trial's schedule is run."""
        return self.folds if self.kind == "schedule" else len(self.rungs) + 1

    @property
    def fractions(self) -> tuple[float, ...]:
        """Where the rungs lie, as fractions of all epochs of all stages."""
        if self.kind == "schedule":
            end = (1 / self.folds,) if self.folds > 1 else ()
            return (*(rung / self.folds for rung in self.rungs), *end)
        return tuple((index + 1) / self.stages for index in range(len(self.rungs)))

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Every size that films are needed at, the smallest first."""
        return tuple(sorted({self.stage(index, 1).image_size for index in range(self.stages)}))

    def stage(self, epochs: int, schedule: int, in_full: bool = False) -> Stage:
        """The stage of a trial that has done some epochs; schedule: epochs of one stage.

        in_full: the trial is trained once, at full fidelity and on the study's own split.
        """
        if self.folds > 1:
            fold = self.folds - 1 if in_full else min(epochs // schedule, self.folds - 1)
            return Stage(self.image_size, 1.0, 0 if in_full else fold * schedule, fold)
        if in_full or self.kind == "schedule":
            return Stage(self.image_size, 1.0, 0)
        index = min(epochs // schedule, self.stages - 1)
        share = 1.0 if index == self.stages - 1 else self.rungs[index]
        if self.kind == "image_size":
            # multiples of 8 px: what networks halve thrice without a remainder
            size = max(_SMALLEST, round(self.image_size * share / 8) * 8) if share < 1 else self.image_size
            return Stage(min(size, self.image_size), 1.0, index * schedule)
        return Stage(self.image_size, share if self.kind == "data_share" else 1.0, index * schedule)
