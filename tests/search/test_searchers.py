"""What every registered searcher keeps to; a new one is tested by being registered."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy import stats

from cxr_core.domains import Branches, Fixed, Interval
from search.proposals import Known, propose
from search.searchers import searchers, takes_several
from search.space import load_space
from tests.search.histories import CONDITIONAL, auroc, mixed_history, t_of, values_of_search

ROOT = Path(__file__).resolve().parents[2]
SERVED = [(name, n) for name, n in itertools.product(searchers, (1, 2)) if n == 1 or takes_several(name)]
LEARNING = sorted(set(searchers) - {"random"})


def assert_lies_in(domains, flat, prefix=""):
    """The configuration has exactly the names of its branches, each with a value of its domain."""
    names = set()
    for key, domain in domains.items():
        name, value = prefix + key, flat[prefix + key]
        names.add(name)
        if isinstance(domain, Branches):
            assert value in domain.branches
            names |= assert_lies_in(domain.branches[value], flat, f"{name}.{value}.")
        elif isinstance(domain, Fixed):
            assert value == domain.value
        elif isinstance(domain, Interval):
            assert domain.low <= value <= domain.high
            assert isinstance(value, int if domain.whole else float)
            assert not domain.step or np.isclose((value - domain.low) / domain.step % 1, [0, 1]).any()
        else:
            assert value in domain.options
    if not prefix:
        assert set(flat) == names
    return names


@pytest.mark.parametrize("length", [0, 1, 200])
@pytest.mark.parametrize(("searcher", "objectives"), SERVED)
def test_proposals_lie_in_the_space_whatever_has_happened(searcher, objectives, length):
    history = mixed_history(CONDITIONAL, length, objectives)
    for number in range(length, length + 4):
        proposal = propose(CONDITIONAL, searcher, history, seed=1, number=number, maximize=[True, False][:objectives])
        assert_lies_in(CONDITIONAL, proposal.flat)


@pytest.mark.parametrize("searcher", searchers)
def test_the_searched_part_is_what_optuna_would_store(searcher):
    proposal = propose(CONDITIONAL, searcher, mixed_history(CONDITIONAL, 60), seed=2, number=60, maximize=[True])
    assert proposal.params.items() <= proposal.flat.items()
    assert proposal.params.keys() == proposal.distributions.keys()
    assert "lr" in proposal.params
    assert "ema" not in proposal.params
    assert all(
        where._contains(where.to_internal_repr(proposal.params[n])) for n, where in proposal.distributions.items()
    )


@pytest.mark.parametrize("searcher", searchers)
def test_the_real_search_space_is_served(searcher):
    domains = load_space(ROOT / "spaces" / "multilabel.yaml").domains
    proposal = propose(domains, searcher, mixed_history(domains, 40), seed=0, number=40, maximize=[True])
    assert_lies_in(domains, proposal.flat)


@pytest.mark.parametrize("searcher", searchers)
def test_a_redraw_is_another_configuration(searcher):
    history = mixed_history(CONDITIONAL, 40)
    draws = [
        propose(CONDITIONAL, searcher, history, seed=0, number=40, maximize=[True], attempt=attempt)
        for attempt in range(3)
    ]
    assert len({str(draw.flat) for draw in draws}) == 3


@pytest.mark.parametrize("searcher", LEARNING)
def test_after_the_start_the_searcher_itself_proposes(searcher):
    history = mixed_history(CONDITIONAL, 60)
    origin = propose(CONDITIONAL, searcher, history, seed=0, number=60, maximize=[True]).origin
    assert origin.partition(",")[0] == searcher


def test_proposals_are_the_same_in_another_process():
    """There the history comes at once; here trial by trial, and states change, as in a search that goes on."""
    history = mixed_history(CONDITIONAL, 60)
    here = {}
    for searcher in searchers:
        for length in range(0, 60, 20):
            started = [Known(k.number, k.flat, TrialState.RUNNING) for k in history[:length]]
            propose(CONDITIONAL, searcher, started, seed=4, number=length, maximize=[True])
        here[searcher] = propose(CONDITIONAL, searcher, history, seed=4, number=60, maximize=[True]).flat
    program = (
        "import json; from search.proposals import propose; from tests.search.histories import *\n"
        "h, more = mixed_history(CONDITIONAL, 60), dict(seed=4, number=60, maximize=[True])\n"
        f"print(json.dumps({{s: propose(CONDITIONAL, s, h, **more).flat for s in {list(searchers)}}}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert json.loads(there.stdout) == here, there.stderr


@pytest.mark.parametrize("searcher", [name for name in searchers if not takes_several(name)])
def test_a_searcher_of_one_objective_refuses_two(searcher):
    with pytest.raises(ValueError, match=f"{searcher} takes one objective, not 2"):
        propose(CONDITIONAL, searcher, [], seed=0, number=0, maximize=[True, True])


def test_after_60_proposals_tpe_has_found_better_than_random_draws():
    """Paired one-sided t test over 12 seeds: a searcher no better than random draws passes with probability .01."""
    gains = [max(values_of_search("tpe", s, 60)) - max(values_of_search("random", s, 60)) for s in range(12)]
    assert t_of(gains) > 2.72


@pytest.mark.parametrize("searcher", LEARNING)
def test_every_searcher_learns(searcher):
    """The last 10 of 30 proposals against random draws: one-sided t test at .01."""
    seeds = range(4 if searcher == "gp" else 8)
    gains = [
        np.mean(values_of_search(searcher, s, 30)[20:]) - np.mean(values_of_search("random", s, 30)[20:]) for s in seeds
    ]
    assert t_of(gains) > stats.t.ppf(0.99, len(seeds) - 1)


def test_two_objectives_are_both_served():
    """AUROC up, training length down: NSGA-II's front has both short trainings and good ones."""
    history = []
    for number in range(80):
        flat = propose(CONDITIONAL, "nsgaii", history, seed=0, number=number, maximize=[True, False]).flat
        history.append(Known(number, flat, TrialState.COMPLETE, (auroc(flat), float(flat["epochs"]))))
    late = history[40:]
    short = np.mean([known.values[1] for known in late]) < np.mean([known.values[1] for known in history[:40]])
    good = np.mean([known.values[0] for known in late]) > np.mean([known.values[0] for known in history[:40]])
    assert short
    assert good
