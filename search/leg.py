"""A leg: what a worker is told to train."""

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_core.config import TrainConfig
from search.fidelity import Stage
from search.folds import Fold, fold_of
from search.objectives import Objective
from search.trial import Trial


@dataclass(frozen=True)
class Leg:
    """One trial's way from a checkpoint (None: from the start) to its next decision.

    before: epochs of earlier stages; data_share: of the training patients. scored: epochs whose validation scores are
    to be kept, as a decision needs them. stressed: the epoch after which validation is to be stressed, too; 0 is none.
    refit: the checkpoint whose thresholds a training on training and validation films takes over. fold: which films
    judge, if not those of the study's own split alone.
    """

    trial: int
    config: TrainConfig
    checkpoint: str | None
    before: int = 0
    data_share: float = 1.0
    scored: tuple[int, ...] = ()
    stressed: int = 0
    refit: str | None = None
    fold: Fold | None = None


def leg_of(
    trial: Trial, config: TrainConfig, stage: Stage, objective: Objective, rungs: Sequence[int], refit: str | None
) -> Leg:
    """A trial's next leg, in a stage of it; rungs: the epochs at which its scores decide. refit: as in Leg."""
    checkpoint = trial.epochs[-1].checkpoint if len(trial.epochs) > stage.before else None
    if trial.fold is not None:  # for a tie-breaker, which takes the metrics of its last epoch and nothing else
        return Leg(trial.number, config, checkpoint, fold=Fold(trial.fold, objective.folds))
    return Leg(
        trial.number,
        config,
        checkpoint,
        before=stage.before,
        data_share=stage.data_share,
        scored=(*rungs, trial.schedule) if objective.tie_breakers else tuple(rungs),
        stressed=trial.schedule if objective.stressed else 0,
        refit=refit,
        fold=None if stage.fold is None else _fold(trial, stage, objective.folds),
    )


def _fold(trial: Trial, stage: Stage, folds: int) -> Fold:
    """Of a trial that is trained once, there are no earlier folds."""
    assert stage.fold is not None
    return Fold(stage.fold, folds) if trial.stages == 1 else fold_of(trial, stage.fold, folds)
