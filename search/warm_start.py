"""What an earlier study, perhaps of other films, tells the searcher of a new one."""

from collections.abc import Sequence

from optuna.trial import TrialState

from search.known import Known
from search.study import Study, StudyError
from search.trial import Outcome, Step, Trial


def read_earlier(name: str, metrics: Sequence[str]) -> list[Known]:
    """What an earlier study tells the searcher of a new one, whatever its data set or space was.

    name: in `studies/`, or a folder. metrics: the new study's objectives. Raises StudyError if there is no such study,
    if it improved something else, or if nothing in it came to a result.
    """
    study = Study.find(name)
    if study.objective.metrics != tuple(metrics):
        theirs, ours = ", ".join(study.objective.metrics), ", ".join(metrics)
        raise StudyError(f"--warm-start {name}: that study improved {theirs}, this one improves {ours}")
    known = [_known(study, trial) for trial in study.trials() if _has_result(trial)]
    if not known:
        raise StudyError(f"--warm-start {name}: no trial of that study came to a result")
    return known


def _has_result(trial: Trial) -> bool:
    return trial.repeats is None and trial.outcome in (Outcome.FULL, Outcome.PRUNED) and bool(trial.epochs)


def _known(study: Study, trial: Trial) -> Known:
    metrics = trial.epochs[-1].metrics
    return Known(
        number=trial.number,
        flat=trial.flat,
        state=TrialState.COMPLETE if trial.outcome is Outcome.FULL else TrialState.PRUNED,
        values=study.objective.values(metrics),
        rung=sum(decision.step is Step.PROMOTED for decision in trial.decisions),
        violations=study.objective.violations(metrics),
    )
