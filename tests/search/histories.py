"""Histories of searches that were never trained: real proposals, results by formula."""

import math

import numpy as np
from optuna.trial import TrialState

from cxr_core.domains import Branches, Fixed, Interval, OneOf
from search.proposals import Known, propose

CONDITIONAL = {
    "model": Branches(
        {
            "small_cnn": {"width": Interval(16, 64, step=16, whole=True)},
            "inception_resnet": {"residual_scale": Interval(0.05, 1.0, log=True), "width": Fixed(32)},
            "densenet121": {"drop_rate": Interval(0.0, 0.3, step=0.1)},
            "resnet18": {},
        }
    ),
    "optimizer": Branches({"adamw": {"weight_decay": Interval(1e-4, 0.1, log=True)}}),
    "lr": Interval(1e-5, 1e-1, log=True),
    "dropout": Interval(0.0, 0.6),
    "batch_size": OneOf((16, 32, 64)),
    "epochs": Interval(8, 64, log=True, whole=True),
    "ema": Fixed(0.99),
}
LINE = {"dropout": Interval(0.0, 0.9), "lr": Interval(1e-4, 1e-2, log=True), "clip": Interval(0.1, 10.0)}


def mixed_history(domains, length, objectives=1, seed=0):
    """Random configurations in every state: complete, pruned at two rungs, in flight, failed."""
    rng = np.random.default_rng(seed)
    states = rng.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL], length)
    history = []
    for number, state in enumerate(states):
        flat = propose(domains, "random", [], seed=seed, number=number, maximize=[True]).flat
        values = rng.random(objectives) if state in (TrialState.COMPLETE, TrialState.PRUNED) else ()
        rung = int(rng.integers(2)) if state == TrialState.PRUNED else 0
        history.append(Known(number, flat, state, tuple(map(float, values)), rung))
    return history


def on_line(places, values=None, state=TrialState.COMPLETE, **more):
    """Trials that differ in one parameter; the others have the training's defaults."""
    values = [(0.0,) for _ in places] if values is None else values
    pairs = enumerate(zip(places, values, strict=True))
    return [Known(n, {"dropout": float(x)}, state, value, **more) for n, (x, value) in pairs]


def auroc(flat):
    """As an AUROC that depends on the family, and within it on its own parameters; at most .8."""
    family = flat["model"]
    best = {"small_cnn": 0.7, "inception_resnet": 0.8, "densenet121": 0.78, "resnet18": 0.75}[family]
    peak = -2.5 if family == "small_cnn" else -3.2
    value = best - 0.04 * (math.log10(flat["lr"]) - peak) ** 2 - 0.3 * (flat["dropout"] - 0.25) ** 2
    if family == "inception_resnet":
        value -= 0.05 * (math.log10(flat["model.inception_resnet.residual_scale"]) + 0.8) ** 2
    return value


def values_of_search(searcher, seed, trials, prior=()):
    """Results of one search, in order."""
    history = []
    for number in range(trials):
        proposal = propose(CONDITIONAL, searcher, history, seed=seed, number=number, maximize=[True], prior=prior)
        history.append(Known(number, proposal.flat, TrialState.COMPLETE, (auroc(proposal.flat),)))
    return [known.values[0] for known in history]


def t_of(gains):
    """Student's t of paired gains against none."""
    return np.mean(gains) / np.std(gains, ddof=1) * math.sqrt(len(gains))
