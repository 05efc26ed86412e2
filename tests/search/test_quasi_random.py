"""The quasi-random start: every family is met, and each family's few trials spread over its parameters."""

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.stats import qmc

from cxr_core.domains import Branches, Interval
from search.proposals import Known, propose
from search.searchers import searchers
from tests.search.histories import CONDITIONAL

LEARNING = sorted(set(searchers) - {"random"})
FAMILIES = set(CONDITIONAL["model"].branches)


def start(domains, trials, seed=0, searcher="tpe", startup=None):
    history = []
    for number in range(trials):
        p = propose(domains, searcher, history, seed=seed, number=number, maximize=[True], startup=startup or trials)
        assert p.origin == "quasi-random start"
        history.append(Known(number, p.flat, TrialState.RUNNING))
    return [known.flat for known in history]


@pytest.mark.parametrize("searcher", LEARNING)
def test_each_block_of_the_start_has_every_family_once(searcher):
    models = [flat["model"] for flat in start(CONDITIONAL, 12, searcher=searcher)]
    assert all(set(models[block : block + 4]) == FAMILIES for block in (0, 4, 8))


def test_the_order_of_families_is_drawn_from_the_seed():
    assert len({tuple(flat["model"] for flat in start(CONDITIONAL, 4, seed)) for seed in range(8)}) > 3


def test_a_start_shorter_than_the_number_of_families_still_meets_them_all():
    assert {flat["model"] for flat in start(CONDITIONAL, 4, startup=2)} == FAMILIES


def test_the_start_counts_trials_in_any_state():
    flats = start(CONDITIONAL, 10)
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE]
    history = [
        Known(n, flat, state, (0.5 + n / 100,) if state in (TrialState.COMPLETE, TrialState.PRUNED) else ())
        for n, (flat, state) in enumerate(zip(flats, states * 2, strict=True))
    ]
    before = propose(CONDITIONAL, "tpe", history[:9], seed=0, number=9, maximize=[True], startup=10)
    after = propose(CONDITIONAL, "tpe", history, seed=0, number=10, maximize=[True], startup=10)
    assert (before.origin, after.origin.partition(",")[0]) == ("quasi-random start", "tpe")


def test_the_start_goes_on_while_there_are_too_few_results_to_learn_from():
    history = [Known(n, flat, TrialState.RUNNING) for n, flat in enumerate(start(CONDITIONAL, 10))]
    assert propose(CONDITIONAL, "tpe", history, seed=0, number=10, maximize=[True]).origin == "quasi-random start"


def test_a_familys_start_trials_are_spread_better_than_random_draws():
    """Centred discrepancy of learning rate and dropout within a family.

    Random draws in the start's place would be the better ones in at least 20 of 24 pairs with probability .0008.
    """
    domains = {
        "model": Branches({"small_cnn": {}, "resnet18": {}}),
        "lr": Interval(1e-5, 1e-1, log=True),
        "dropout": Interval(0.0, 0.6),
    }
    wins = 0
    for seed in range(12):
        flats = start(domains, 16, seed)
        for place, model in enumerate(("small_cnn", "resnet18")):
            own = [(np.log10(f["lr"]) / 4 + 1.25, f["dropout"] / 0.6) for f in flats if f["model"] == model]
            drawn = np.random.default_rng((seed, place)).random((8, 2))
            wins += qmc.discrepancy(np.array(own)) < qmc.discrepancy(drawn)
    assert wins >= 20


def test_whole_numbers_and_options_take_all_their_values_equally():
    domains = {"epochs": Interval(1, 8, whole=True), "dropout": Interval(0.0, 0.3, step=0.1)}
    flats = start(domains, 32)
    assert np.unique([flat["epochs"] for flat in flats], return_counts=True)[1].tolist() == [4] * 8
    dropouts = np.round([flat["dropout"] for flat in flats], 6)
    assert np.unique(dropouts, return_counts=True)[1].tolist() == [8] * 4


def test_a_redraw_of_a_family_without_parameters_takes_another_family():
    domains = {"model": Branches({"resnet18": {}, "small_cnn": {"width": Interval(16, 64, step=16, whole=True)}})}
    attempts = [
        propose(domains, "tpe", [], seed=0, number=0, maximize=[True], attempt=attempt).flat["model"]
        for attempt in range(2)
    ]
    assert set(attempts) == {"resnet18", "small_cnn"}
