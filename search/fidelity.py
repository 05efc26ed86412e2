"""What grows from rung to rung: how much of its schedule a trial has done, the size of its films, or their number."""

from dataclasses import dataclass
from typing import Literal

Fidelity = Literal["schedule", "image_size", "data_share"]

_SMALLEST = 16
"""Side in pixels below which a film shows nothing."""


@dataclass(frozen=True)
class Stage:
    """One training of a trial, from its own start to its own end.

    image_size in pixels; data_share of the training patients; before: epochs of the stages before it.
    """

    image_size: int
    data_share: float
    before: int


@dataclass(frozen=True)
class Fidelities:
    """The stages of every trial of a search.

    With `schedule` there is one stage, and rungs lie within it. Otherwise each rung is the end of a stage, a whole
    training on smaller or fewer films, and the last stage has them all.
    """

    kind: Fidelity
    rungs: tuple[float, ...]
    image_size: int

    @property
    def stages(self) -> int:
        """How often a trial's schedule is run."""
        return 1 if self.kind == "schedule" else len(self.rungs) + 1

    @property
    def fractions(self) -> tuple[float, ...]:
        """Where the rungs lie, as fractions of all epochs of all stages."""
        if self.kind == "schedule":
            return self.rungs
        return tuple((index + 1) / self.stages for index in range(len(self.rungs)))

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Every size that films are needed at, the smallest first."""
        return tuple(sorted({self.stage(index, 1).image_size for index in range(self.stages)}))

    def stage(self, epochs: int, schedule: int, in_full: bool = False) -> Stage:
        """The stage of a trial that has done some epochs; schedule: epochs of one stage.

        in_full: the trial is trained once, at full fidelity.
        """
        if in_full or self.kind == "schedule":
            return Stage(self.image_size, 1.0, 0)
        index = min(epochs // schedule, self.stages - 1)
        share = 1.0 if index == self.stages - 1 else self.rungs[index]
        if self.kind == "image_size":
            # multiples of 8 px: what networks halve thrice without a remainder
            size = max(_SMALLEST, round(self.image_size * share / 8) * 8) if share < 1 else self.image_size
            return Stage(min(size, self.image_size), 1.0, index * schedule)
        return Stage(self.image_size, share if self.kind == "data_share" else 1.0, index * schedule)
