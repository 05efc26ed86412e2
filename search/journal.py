"""The journal of a study: trials, epochs and decisions in an Optuna storage. Its only writer is the driver."""

import dataclasses
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from cxr_core.registry import Scalar
from search.objectives import Objective, non_dominated
from search.trial import Decision, EpochRecord, Outcome, Step, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

# What has no value, as a refit or a training on another fold has none, is no complete trial to Optuna.
_STATES = {Outcome.FULL: TrialState.COMPLETE, Outcome.PRUNED: TrialState.PRUNED}


class Journal:
    """Everything that decides (rungs, searcher, budget) is a function of it, so a search survives any crash.

    follow: another process writes it, so each look at the trials reads what is new. The writer itself knows its trials
    by heart, and a look costs nothing.
    """

    def __init__(self, storage: BaseStorage, study_id: int, objective: Objective, follow: bool = False):
        self._storage, self._id, self._follow = storage, study_id, follow
        self.objective = objective
        self._trials: list[Trial] = []
        self._ids: list[int] = []
        self._frozen: list[FrozenTrial] = []
        self._read()

    @classmethod
    def in_memory(cls, objective: Objective) -> "Journal":
        """A journal that ends with its process, for simulation."""
        storage = optuna.storages.InMemoryStorage()
        return cls(storage, storage.create_new_study(directions(objective)), objective)

    def _read(self) -> None:
        """Take over what the storage holds; it replaces a trial's object when the trial changes."""
        for number, frozen in enumerate(self._storage.get_all_trials(self._id, deepcopy=False)):
            if number == len(self._trials):
                self._trials.append(_trial(frozen))
                self._frozen.append(frozen)
                self._ids.append(frozen._trial_id)
            elif self._frozen[number] is not frozen:
                self._trials[number], self._frozen[number] = _trial(frozen), frozen

    # What is known

    def trials(self) -> list[Trial]:
        """Every trial, in order of its number; not to be changed."""
        if self._follow:
            self._read()
        return self._trials

    def trial(self, number: int) -> Trial:
        """One trial."""
        return self.trials()[number]

    @property
    def facts(self) -> dict[str, Any]:
        """What the study remembers about itself."""
        facts: dict[str, Any] = self._storage.get_study_user_attrs(self._id)
        return facts

    def note(self, key: str, value: Any) -> None:
        """Remember a fact about the study."""
        self._storage.set_study_user_attr(self._id, key, value)

    def eligible(self) -> list[Trial]:
        """Trials that may win."""
        return [trial for trial in self.trials() if self.may_win(trial)]

    def may_win(self, trial: Trial) -> bool:
        """Whether a trial was trained in full, keeps the constraints, and is not another's repeat."""
        full = trial.outcome is Outcome.FULL and trial.repeats is None
        return full and not self.objective.broken(trial.epochs[-1].metrics)

    def ranked(self) -> list[Trial]:
        """Trials that may win, the best by the objective, or by the first of several, first; of equals, the earlier."""
        sign = -1 if self.objective.maximize[0] else 1
        return sorted(self.eligible(), key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def winner(self) -> Trial | None:
        """The best trial that may win."""
        return next(iter(self.ranked()), None)

    def front(self) -> list[Trial]:
        """The trials that no other one beats in all objectives, in order of the first objective."""
        import numpy as np

        trials = sorted(self.eligible(), key=lambda trial: self.objective.reached(trial.epochs[-1].metrics))
        if not trials:
            return []
        costs = np.array([self.objective.reached(trial.epochs[-1].metrics).costs for trial in trials])
        return [trial for trial, on_front in zip(trials, non_dominated(costs), strict=True) if on_front]

    # What happens

    def add(
        self,
        flat: dict[str, Scalar],
        seed: int,
        why: str,
        *,
        evidence: dict[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
        **kind: Any,
    ) -> Trial:
        """A new trial, written whole or not at all. kind: baseline, repeats, refit, fold, finals, stages, as Trial."""
        first = Decision(time.time(), Step.PROPOSED, why, evidence or {})
        attrs = {"config": flat, "seed": seed, **kind, "decision:0": dataclasses.asdict(first)}
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=dict(params or {}),
            distributions=dict(distributions or {}),
            user_attrs=attrs,
            system_attrs={},
            intermediate_values={},
        )
        self._ids.append(self._storage.create_new_trial(self._id, template))
        self._frozen.append(template)
        self._trials.append(dataclasses.replace(_trial(template), number=len(self._trials)))
        return self._trials[-1]

    def record(self, number: int, epoch: EpochRecord) -> Trial:
        """Keep an epoch of a trial. The intermediate value is written last: with it the epoch exists."""
        self._set(number, f"epoch:{epoch.epoch}", dataclasses.asdict(epoch))
        self._storage.set_trial_intermediate_value(self._ids[number], epoch.epoch, epoch.value)
        return self._replace(number, epochs=(*self._trials[number].epochs, epoch))

    def decide(self, number: int, step: Step, why: str, **evidence: Any) -> Trial:
        """Enter a decision about a trial into the ledger, with the figures behind it."""
        decisions = self._trials[number].decisions
        decision = Decision(time.time(), step, why, evidence)
        self._set(number, f"decision:{len(decisions)}", dataclasses.asdict(decision))
        return self._replace(number, decisions=(*decisions, decision))

    def attempt(self, number: int) -> int:
        """Count a leg that was lost with its process; returns how many of this trial were."""
        attempts = self._trials[number].attempts + 1
        self._set(number, "attempts", attempts)
        self._replace(number, attempts=attempts)
        return attempts

    def finish(self, number: int, outcome: Outcome, reason: str = "") -> Trial:
        """End a trial, for good."""
        epochs = self._trials[number].epochs
        state = _STATES.get(outcome, TrialState.FAIL)
        values = () if state == TrialState.FAIL or not epochs else self.objective.values(epochs[-1].metrics)
        self._set(number, "reason", reason)
        self._set(number, "outcome", outcome.value)
        self._storage.set_trial_state_values(self._ids[number], state, list(values) or None)
        return self._replace(number, outcome=outcome, reason=reason, values=values)

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._ids[number], key, value)

    def _replace(self, number: int, **changes: Any) -> Trial:
        self._trials[number] = dataclasses.replace(self._trials[number], **changes)
        return self._trials[number]


def directions(objective: Objective) -> list[optuna.study.StudyDirection]:
    """The objectives' directions, as Optuna calls them."""
    direction = optuna.study.StudyDirection
    return [direction.MAXIMIZE if up else direction.MINIMIZE for up in objective.maximize]


def _trial(frozen: FrozenTrial) -> Trial:
    attrs = frozen.user_attrs
    decisions = sorted((key for key in attrs if key.startswith("decision:")), key=lambda key: int(key[9:]))
    return Trial(
        number=frozen.number,
        flat=attrs["config"],
        seed=attrs["seed"],
        baseline=attrs.get("baseline"),
        repeats=attrs.get("repeats"),
        refit=attrs.get("refit"),
        fold=attrs.get("fold"),
        finals=attrs.get("finals", False),
        stages=attrs.get("stages", 1),
        epochs=tuple(EpochRecord(**attrs[f"epoch:{step}"]) for step in sorted(frozen.intermediate_values)),
        attempts=attrs.get("attempts", 0),
        outcome=Outcome(attrs["outcome"]) if frozen.state.is_finished() else Outcome.OPEN,
        reason=attrs.get("reason", ""),
        values=tuple(frozen.values or ()),
        started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
        decisions=tuple(_decision(attrs[key]) for key in decisions),
    )


def _decision(entry: dict[str, Any]) -> Decision:
    return Decision(entry["at"], Step(entry["step"]), entry["why"], entry["evidence"])
