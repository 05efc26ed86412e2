"""The ensemble of a study: chosen on validation among all kept networks, judged with the finalists on test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr_core.bootstrap import bootstrap, macro_samples, paired_difference, percentile_interval
from cxr_core.checkpoint import load_checkpoint
from cxr_core.confusion import called
from cxr_core.ensemble import majority_vote, mean_probability, select_models
from cxr_core.json_file import strict, write_json
from cxr_core.latency import film_latency
from cxr_core.metrics import EPOCH_METRICS, macro, per_label
from cxr_core.scorecard import finite
from cxr_core.thresholds import Rule, fit_thresholds, in_json
from search.finals.ensemble_words import sentences
from search.finals.record import FORMAT, read_told
from search.finals.repeats import is_kept
from search.finals.sealed_test import SealedTest
from search.finals.verdict import Difference, Scored, Verdict, judge
from search.study import Study
from search.trial import Trial

_MEAN, _DELIVERED, _WINNER = -1, -2, -3
"""Who is compared, in the place of finalists."""
_BAGS = 20
"""Searches among half of the models each, whose counts are added: near a ceiling a single one picks by a few films."""
_RULE: Rule = "youden"
"""Of the thresholds that members vote by: those that a checkpoint carries, fitted on validation."""
_OF_CALLS = ("sensitivity", "specificity", "balanced_accuracy", "f1", "accuracy")
"""Accuracy, the last, for one finding only: of several, calling nothing at all comes out best."""
_MEASURED = 5
"""Measurements of a latency, of which the least counts."""
_GAINED = "balanced_accuracy"
"""The metric of calls in which a vote's gain is told; unlike accuracy it is not another one at another prevalence."""


def candidates(study: Study) -> list[Trial]:
    """Trainings that may be members: of a configuration that may win, done in full, with the checkpoint at hand."""
    may_win = {trial.number for trial in study.eligible()}
    of = lambda trial: trial.number if trial.repeats is None else trial.repeats  # noqa: E731
    return [trial for trial in study.trials() if of(trial) in may_win and is_kept(study, trial)]


def choose_members(validation: Scored, metric: str) -> dict[int, int]:
    """How often each member is taken, by its number; validation: scores of one training each.

    They are selected in bags, unless these come out worse on validation than the best network alone.
    """
    numbers = list(validation.scores)
    scores = np.concatenate([validation.scores[number] for number in numbers])
    sign = 1 if EPOCH_METRICS[metric].direction == "maximize" else -1
    alone = select_models(validation.targets, scores, metric, best=1, steps=0)
    chosen = select_models(validation.targets, scores, metric, bags=_BAGS)
    if sign * chosen.value < sign * alone.value:
        chosen = select_models(validation.targets, scores, metric)
    return {number: count for number, count in zip(numbers, chosen.counts, strict=True) if count}


def read_ensemble(folder: Path) -> dict[str, Any] | None:
    """What a study knows of its ensemble, as `ensemble.json`; None before its finals, as `read_told`."""
    return read_told(folder / "ensemble.json")


def judge_ensemble(
    study: Study, sealed: SealedTest, labels: Sequence[str], finals: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """Compare the ensemble with the winner of the finals, unless that was done, and write `ensemble.json`.

    finals: as `finalists.json`. The members are those that the split was opened for; where it was opened before there
    were ensembles, they are chosen among the trainings that were evaluated. Raises CheckpointError.
    """
    row = next(row for row in finals["finalists"] if row["trial"] == finals["winner"])
    seeds = [training["trial"] for training in row["trainings"]]
    counts = sealed.ensemble or _among_evaluated(study, sealed, labels, finals)
    basis = {
        "members": [[number, count] for number, count in counts.items()],
        "delivered": finals["delivered"],
        "seeds": seeds,
        "openings": len(finals["openings"]),
    }
    record = read_ensemble(study.folder)
    if record is None or record["basis"] != basis:
        trials = _by_number(study, [*counts, finals["delivered"], *seeds])
        splits = sealed.scored({number: [trial] for number, trial in trials.items()}, labels)
        networks = {n: _Network.of(study.folder / trials[n].epochs[-1].checkpoint, device) for n in _used(basis)}
        of = _Compared(counts, finals["delivered"], seeds, finals["metric"], networks)
        record = {"format": FORMAT, "basis": basis, **of.describe(trials, *splits)}
        record["sentences"] = sentences(record)
        write_json(study.folder / "ensemble.json", record)
    return record


def _among_evaluated(
    study: Study, sealed: SealedTest, labels: Sequence[str], finals: Mapping[str, Any]
) -> dict[int, int]:
    numbers = [training["trial"] for row in finals["finalists"] for training in row["trainings"]]
    allowed = {trial.number for trial in candidates(study)}
    trials = _by_number(study, [n for n in sorted(numbers) if n in allowed])
    return choose_members(sealed.validated({n: [t] for n, t in trials.items()}, labels), finals["metric"])


def _by_number(study: Study, numbers: Iterable[int]) -> dict[int, Trial]:
    return {number: study.trial(number) for number in numbers}


def _used(basis: Mapping[str, Any]) -> list[int]:
    return sorted({basis["delivered"], *(number for number, _ in basis["members"])})


@dataclass(frozen=True)
class _Network:
    """What a saved network costs in use, and from where on it calls each finding."""

    thresholds: tuple[float, ...]
    parameters: int
    milliseconds: float

    @classmethod
    def of(cls, path: Path, device: torch.device) -> "_Network":
        checkpoint = load_checkpoint(path)
        model, config = checkpoint.build().to(device), checkpoint.config
        # What else the machine does only adds to it, and more to one network than to another.
        milliseconds = config.views.count * min(
            film_latency(model, config.image_size, device) for _ in range(_MEASURED)
        )
        return cls(tuple(checkpoint.thresholds[_RULE]), sum(p.numel() for p in model.parameters()), milliseconds)


@dataclass(frozen=True)
class _Compared:
    """An ensemble, by how often each member is taken, beside the winner of the finals."""

    counts: Mapping[int, int]
    delivered: int
    seeds: Sequence[int]
    metric: str
    networks: Mapping[int, _Network]

    def describe(self, trials: Mapping[int, Trial], validation: Scored, test: Scored) -> dict[str, Any]:
        """All there is to tell, as JSON takes it: None where a value is undefined."""
        verdict = judge(self._three(validation), self._three(test), self.metric, may_win={_MEAN})
        of_label = EPOCH_METRICS[self.metric]
        alone = {n: macro(per_label(of_label, validation.targets, validation.scores[n][0])) for n in self.counts}
        total = sum(self.counts.values())
        members = [
            {
                "trial": number,
                "model": trials[number].family,
                "repeats": trials[number].repeats,
                "weight": count / total,
                "validation": finite(alone[number]),
                "checkpoint": trials[number].epochs[-1].checkpoint,
            }
            for number, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        thresholds = fit_thresholds(validation.targets, self._mean(validation), _RULE)
        return {
            "metric": self.metric,
            "members": members,
            "thresholds": {_RULE: [in_json(float(value)) for value in thresholds]},
            "validation": _reached(verdict, "validation"),
            "test": _reached(verdict, "test"),
            "gap": strict(vars(verdict.gap)),
            "gain": {
                split: {
                    "delivered": _gain(getattr(verdict, split).differences[_DELIVERED], self.metric),
                    "mean": _gain(getattr(verdict, split).differences[_WINNER], self.metric),
                }
                for split in ("validation", "test")
            },
            "calls": self._calls(test, thresholds),
            "cost": self._cost(),
        }

    def _mean(self, split: Scored) -> np.ndarray:
        scores = np.concatenate([split.scores[number] for number in self.counts])
        return mean_probability(scores, list(self.counts.values()))

    def _three(self, split: Scored) -> Scored:
        """The ensemble, the training that is handed over, and all seeds of the winner."""
        seeds = np.concatenate([split.scores[number] for number in self.seeds])
        scores = {_MEAN: self._mean(split)[None], _DELIVERED: split.scores[self.delivered], _WINNER: seeds}
        return Scored(split.targets, split.patients, scores)

    def _calls(self, test: Scored, thresholds: np.ndarray) -> dict[str, Any]:
        """What is called on the test films by the mean, by the members' votes, and by the network handed over."""
        scores = np.concatenate([test.scores[number] for number in self.counts])
        own = {number: np.array(network.thresholds) for number, network in self.networks.items()}
        calls = {
            "mean": _as_calls(self._mean(test), thresholds),
            "vote": majority_vote(scores, np.stack([own[number] for number in self.counts])),
            "delivered": _as_calls(test.scores[self.delivered][0], own[self.delivered]),
        }
        names = _OF_CALLS if test.targets.shape[1] == 1 else _OF_CALLS[:-1]
        stacked = np.stack(list(calls.values()))
        samples = bootstrap(test.targets, stacked, test.patients, names, seed=1)
        points = {n: [macro(per_label(EPOCH_METRICS[n], test.targets, one)) for one in stacked] for n in names}
        told: dict[str, Any] = {"rule": _RULE, "of": _GAINED}
        for place, who in enumerate(calls):
            told[who] = {name: _interval(points[name][place], macro_samples(samples[name][:, place])) for name in names}
            if who != "delivered":
                gain = macro_samples(paired_difference(samples[_GAINED], place, 2))
                told[who]["gain"] = _interval(points[_GAINED][place] - points[_GAINED][2], gain)
        return told

    def _cost(self) -> dict[str, Any]:
        members, single = [self.networks[number] for number in self.counts], self.networks[self.delivered]
        parameters, milliseconds = sum(m.parameters for m in members), sum(m.milliseconds for m in members)
        return {
            "networks": len(members),
            "parameters": parameters,
            "latency_ms": milliseconds,
            "single": {"parameters": single.parameters, "latency_ms": single.milliseconds},
            "times": {
                "parameters": parameters / single.parameters,
                "latency_ms": milliseconds / single.milliseconds,
            },
        }


def _as_calls(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """1 where a finding is called, 0 where not, NaN for a finding without threshold."""
    return np.where(np.isnan(thresholds), np.nan, called(scores, thresholds))


def _reached(verdict: Verdict, split: str) -> dict[str, Any]:
    reached = getattr(verdict, split).reached[_MEAN]
    return {"value": finite(reached.mean), "low": finite(reached.low), "high": finite(reached.high)}


def _gain(difference: Difference, metric: str) -> dict[str, Any]:
    """How much better the ensemble is than another one; difference: the other's metric minus the ensemble's."""
    sign = -1 if EPOCH_METRICS[metric].direction == "maximize" else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    told = {"value": sign * difference.value, "low": low, "high": high, "p": difference.p_holm}
    return {**{key: finite(value) for key, value in told.items()}, "is_noise": difference.is_noise}


def _interval(value: float, samples: np.ndarray) -> dict[str, Any]:
    interval = percentile_interval(samples)
    return {"value": finite(value), "low": finite(float(interval.low)), "high": finite(float(interval.high))}
