"""What a reader knows trials by."""

from search.trial import Outcome, Trial


def title(trial: Trial) -> str:
    """A trial's number, with its recipe if it is a baseline, the trial it repeats, or its architecture family."""
    if trial.fold is not None:
        return f"{trial.number} ({trial.repeats} on fold {trial.fold + 1})"
    if trial.repeats is not None:
        return f"{trial.number} (another seed of {trial.repeats})"
    return f"{trial.number} (recipe {trial.baseline})" if trial.baseline else f"{trial.number} ({trial.family})"


def standing(trial: Trial) -> str:
    """How a trial ended, if it has."""
    return {Outcome.OPEN: "not ended", Outcome.FOLD: "other fold"}.get(trial.outcome, trial.outcome.value)


def progress(trial: Trial) -> str:
    """Epochs done of a trial's schedule, such as `3/20`."""
    return f"{trial.epochs[-1].epoch if trial.epochs else 0}/{trial.schedule}"
