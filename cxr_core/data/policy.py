"""How a data set becomes training films: resizing, label policies, and who learns and who judges."""

from dataclasses import dataclass
from typing import Literal

Aspect = Literal["squash", "pad", "crop"]
SMALLEST, LARGEST = 8, 4096
"""Sides of the square films that can be prepared, in pixels."""


@dataclass(frozen=True, kw_only=True)
class DataPolicy:
    """The choices that turn a data set into films with targets and splits.

    image_size: side of the square films, in pixels. aspect: how an oblong film becomes square: squashed, padded with
    black, or its longer side cropped to the centre.
    views: view positions to keep, such as ("PA", "AP"); none given keeps all.
    split: "official" keeps the published test split; "random" pools all films and draws a new one by patient. A data
    set without an official split is drawn in either case. validation: share of the patients that are drawn from (with
    an official test split, those outside it). test: share of the patients for a test split that is drawn; 0 for none.
    folds, fold: validation is one of `folds` parts of the patients outside the test split, instead of a share.
    uncertain, blank: what an uncertain finding and one that is not mentioned count as; "ignore" and "nan" mask them.
    blank None takes the data set's own convention.
    duplicates: whether identical films in two splits are refused, or dropped from the split that learns.
    allow_missing: accept a data set of which many films are not on disk.
    """

    image_size: int
    aspect: Aspect = "squash"
    views: tuple[str, ...] = ()
    split: Literal["official", "random"] = "official"
    validation: float = 0.1
    test: float = 0.1
    folds: int | None = None
    fold: int = 0
    uncertain: Literal["ignore", "zeros", "ones"] = "ignore"
    blank: Literal["zero", "nan"] | None = None
    duplicates: Literal["refuse", "drop"] = "refuse"
    allow_missing: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError if a number is out of range or two choices cannot hold together."""
        if not SMALLEST <= self.image_size <= LARGEST:
            raise ValueError(f"image size must lie in {SMALLEST} ... {LARGEST} px, not be {self.image_size}")
        if not 0 < self.validation < 1 or not 0 <= self.test < 1 or self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation:g}) and test ({self.test:g}) are shares of the patients: "
                "above 0, below 1, and together below 1"
            )
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"folds must be 2 or more, not {self.folds}")
        if not 0 <= self.fold < (self.folds or 1):
            raise ValueError(f"fold {self.fold} does not exist; there are {self.folds or 'no'} folds, counted from 0")
