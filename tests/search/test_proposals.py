"""Proposals as a function of what is known: what fits, what a sampler is shown, and an earlier study's part in it."""

from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import TrialState

from cxr_core.domains import Branches, Fixed, Interval
from search.known import History, Known, order
from search.priors import listens, on_scale_of
from search.proposals import propose
from search.searchers import Limits, searchers, traits
from tests.search.histories import CONDITIONAL, LINE, mixed_history, on_line, t_of, values_of_search

LEARNING = sorted(set(searchers) - {"random"})
ALL = Limits(10_000, 0, 0)
FLAT = {"model": "inception_resnet", "model.inception_resnet.residual_scale": 0.2, "lr": 1e-3, "dropout": 0.3}
SPACE = {
    "model": Branches({"inception_resnet": {"residual_scale": Interval(0.05, 1.0)}, "resnet18": {}}),
    "lr": Interval(1e-5, 1e-1, log=True),
    "dropout": Interval(0.0, 0.6),
}


def fitting(domains, *flats, maximize=(True,)):
    """The searched parameters of the trials that fit a space."""
    history = History(domains, "absent", maximize)
    history.update([Known(n, flat, TrialState.COMPLETE, (0.5,) * len(maximize)) for n, flat in enumerate(flats)])
    return [entry.params for entry in history.thinned(ALL)]


def places(searcher, history, numbers=20, maximize=(True,), domains=LINE, **more):
    """Where on the line a searcher goes, over many numbers."""
    start = len(history)
    return np.array(
        [
            propose(domains, searcher, history, seed=0, number=n, maximize=maximize, startup=2, **more).flat["dropout"]
            for n in range(start, start + numbers)
        ]
    )


# What still fits the present space


def test_a_trial_of_the_same_space_is_shown_in_full():
    assert fitting(SPACE, FLAT) == [FLAT]


def test_a_value_outside_a_changed_range_is_left_out():
    assert fitting(SPACE, {**FLAT, "dropout": 0.7}) == []


def test_a_trial_of_a_removed_branch_is_left_out():
    assert fitting({**SPACE, "model": Branches({"resnet18": {}, "small_cnn": {}})}, FLAT) == []


def test_a_value_out_of_a_branch_not_taken_does_not_matter():
    narrowed = Branches({"inception_resnet": {"residual_scale": Interval(0.9, 1.0)}, "resnet18": {}})
    resnet = {"model": "resnet18", "lr": 1e-3, "dropout": 0.3}
    assert fitting({**SPACE, "model": narrowed}, FLAT, resnet) == [resnet]


def test_a_formerly_fixed_value_counts_where_it_lies_in_the_present_range():
    assert fitting({"dropout": Interval(0.0, 0.5)}, {"dropout": 0.5}) == [{"dropout": 0.5}]


def test_a_trial_with_another_value_than_the_one_now_fixed_is_left_out():
    assert fitting({**SPACE, "dropout": Fixed(0.2)}, FLAT, {**FLAT, "dropout": 0.2}) == [
        {name: value for name, value in FLAT.items() if name != "dropout"}
    ]


def test_what_an_earlier_space_did_not_name_had_the_trainings_default():
    without = {name: value for name, value in FLAT.items() if name != "dropout"}
    assert fitting(SPACE, without) == [{**without, "dropout": 0.0}]


def test_a_value_that_the_present_space_does_not_name_fits_only_if_it_is_the_default():
    without = {name: domain for name, domain in SPACE.items() if name != "dropout"}
    assert len(fitting(without, FLAT, {**FLAT, "dropout": 0.0}, {**FLAT, "dropout": 0.0, "epochs": 20})) == 2


def test_a_value_between_the_steps_of_a_range_is_left_out():
    assert fitting({"dropout": Interval(0.0, 0.6, step=0.2)}, {"dropout": 0.3}, {"dropout": 0.4}) == [{"dropout": 0.4}]


def test_a_result_that_is_no_number_is_left_out():
    history = History(LINE, "absent", [True])
    history.update(on_line([0.1, 0.2], [(float("nan"),), (0.5,)]))
    assert [entry.known.number for entry in history.thinned(ALL)] == [1]


def test_a_trial_that_changes_is_seen_although_the_history_is_kept():
    before = mixed_history(CONDITIONAL, 60)
    propose(CONDITIONAL, "tpe", before, seed=0, number=60, maximize=[True])
    after = [replace(k, state=TrialState.COMPLETE, values=(k.number / 60,)) for k in before]
    kept = propose(CONDITIONAL, "tpe", after, seed=0, number=60, maximize=[True])
    fresh = propose(dict(CONDITIONAL), "tpe", after, seed=0, number=60, maximize=[True])
    assert kept == fresh
    assert kept != propose(CONDITIONAL, "tpe", before, seed=0, number=60, maximize=[True])


# What a sampler makes of states and constraints


def test_of_pruned_trials_those_of_the_higher_rung_are_followed():
    """As Optuna ranks them; with one objective and with two, whose values Optuna's TPE refuses."""
    for objectives in (1, 2):
        value = [(0.5,) * objectives] * 20
        low = on_line(np.linspace(0.6, 0.8, 20), value, TrialState.PRUNED)
        high = on_line(np.linspace(0.1, 0.3, 20), value, TrialState.PRUNED, rung=1)
        assert np.median(places("tpe", low + high, maximize=[True] * objectives)) < 0.4


@pytest.mark.parametrize("searcher", LEARNING)
def test_a_complete_trial_counts_for_more_than_a_pruned_one(searcher):
    pruned = on_line(np.linspace(0.6, 0.8, 20), [(0.9,)] * 20, TrialState.PRUNED)
    complete = on_line(np.linspace(0.1, 0.3, 20), [(0.5,)] * 20)
    assert np.median(places(searcher, pruned + complete)) < 0.4


def test_trials_in_flight_keep_tpe_away():
    """20 proposals with and without, where the optimum is full of trials in flight: on average farther from it."""
    xs = np.linspace(0.0, 0.9, 25)
    done = on_line(xs, [(-((x - 0.4) ** 2),) for x in xs])
    flying = on_line(np.linspace(0.35, 0.45, 12), [()] * 12, TrialState.RUNNING)
    alone, among = places("tpe", done), places("tpe", done + flying)
    assert np.abs(among - 0.4).mean() > np.abs(alone - 0.4).mean()


def test_a_trial_in_flight_keeps_a_gaussian_process_away_where_it_is_in_doubt():
    """Four results leave one place to try next; with a trial in flight there, other places are tried, too."""
    done = on_line([0.0, 0.15, 0.6, 0.75], [(0.2,), (0.5,), (0.4,), (0.1,)])
    alone = places("gp", done)
    spot = float(np.median(alone))
    among = places("gp", done + on_line([spot], [()], TrialState.RUNNING))
    assert np.abs(alone - spot).max() < 0.005
    assert np.abs(among - spot).mean() > 0.005


@pytest.mark.parametrize("searcher", LEARNING)
def test_violated_constraints_are_avoided(searcher):
    """The best values violate: most proposals go there if that is not said, few if it is."""
    flats = [propose(LINE, "random", [], seed=0, number=number, maximize=[True]).flat for number in range(40)]
    silent = [Known(n, flat, TrialState.COMPLETE, (flat["dropout"],)) for n, flat in enumerate(flats)]
    said = [replace(known, violations=(known.flat["dropout"] - 0.5,)) for known in silent]
    assert (places(searcher, silent) > 0.55).mean() > 0.6
    assert (places(searcher, said) > 0.55).mean() < 0.3


def test_a_failure_that_violates_a_constraint_is_avoided_and_another_says_nothing():
    xs = np.random.default_rng(0).uniform(0, 0.9, 60)
    history = [replace(k, values=(k.flat["dropout"],)) for k in on_line([x for x in xs if x < 0.5])]
    failed = on_line([x for x in xs if x >= 0.5], [()] * int((xs >= 0.5).sum()), TrialState.FAIL)
    violating = [replace(known, violations=(1.0,)) for known in failed]
    assert (places("tpe", history + failed) == places("tpe", [*history, *failed[:1] * len(failed)])).all()
    assert (places("tpe", history + violating) > 0.55).sum() < (places("tpe", history + failed) > 0.55).sum()


# Thinning


def test_the_best_the_latest_and_all_trials_in_flight_are_shown():
    history = mixed_history(LINE, 3000)
    kept = History(LINE, "absent", [True])
    kept.update(history)
    limits = traits["tpe"].limits
    shown = {entry.known.number for entry in kept.thinned(limits)}
    flying = {k.number for k in history if k.state == TrialState.RUNNING}
    complete = sorted((k for k in history if k.state == TrialState.COMPLETE), key=lambda k: -k.values[0])
    ended = [k.number for k in history if k.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert flying <= shown
    assert {k.number for k in complete[: limits.best]} <= shown
    assert set(ended[-limits.recent :]) <= shown
    assert len(shown - flying) <= limits.best + limits.recent + limits.even


def test_a_history_within_the_limits_is_shown_whole_and_in_order():
    history = [k for k in mixed_history(LINE, 200) if k.state != TrialState.FAIL]
    kept = History(LINE, "absent", [True])
    kept.update(history)
    assert [entry.known for entry in kept.thinned(traits["tpe"].limits)] == history


def test_with_several_objectives_the_fronts_are_in_order():
    """Against domination counted pair by pair."""
    values = np.random.default_rng(0).integers(0, 12, (80, 2)).astype(float)
    ordered = order(np.column_stack([np.zeros((80, 3)), values]), 80)
    left, found = list(range(80)), []
    while left:
        front = [
            i for i in left if not any((values[j] <= values[i]).all() and (values[j] < values[i]).any() for j in left)
        ]
        found += front
        left = [i for i in left if i not in front]
    assert ordered.tolist() == found


# An earlier study


def earlier(seed, sign):
    """A random search whose results were on another scale, and, with sign -1, the other way round."""
    values = values_of_search("random", 1000 + seed, 40)
    flats = [propose(CONDITIONAL, "random", [], seed=1000 + seed, number=n, maximize=[True]).flat for n in range(40)]
    return [
        Known(n, flat, TrialState.COMPLETE, (0.5 + sign * 0.3 * value,))
        for n, (flat, value) in enumerate(zip(flats, values, strict=True))
    ]


def test_a_helpful_earlier_study_makes_the_first_20_proposals_better():
    """Paired one-sided t test over 24 seeds at .01, on the best of 20."""
    gains = [
        max(values_of_search("tpe", s, 20, earlier(s, 1))) - max(values_of_search("tpe", s, 20)) for s in range(24)
    ]
    assert t_of(gains) > 2.5


def test_a_misleading_earlier_study_cannot_ruin_a_search():
    """It ranks everything the other way round, and yet the best of 30 loses less than .015 of AUROC on average.

    One-sided t test over 20 seeds; were the loss .015 it would pass with probability .01.
    """
    losses = [
        max(values_of_search("tpe", s, 30)) - max(values_of_search("tpe", s, 30, earlier(s, -1))) for s in range(20)
    ]
    assert t_of(0.015 - np.array(losses)) > 2.54


def test_an_earlier_study_is_heard_half_the_time_at_first_and_less_with_each_result():
    """Within four standard errors of 2,000 draws: false alarm about .0001 each."""
    for finished, share in ((0, 1 / 2), (10, 1 / 4), (90, 1 / 20)):
        heard = np.mean([listens(0, number, finished, 10) for number in range(2000)])
        assert abs(heard - share) < 4 * np.sqrt(share * (1 - share) / 2000)


def test_earlier_values_are_mapped_by_rank_onto_the_present_ones():
    def entries(values):
        history = History(LINE, "absent", [True])
        history.update(on_line(np.linspace(0, 0.9, len(values)), [(v,) for v in values]))
        return history.thinned(ALL)

    own, prior = entries([0.61, 0.65, 0.7]), entries([0.99, 0.9, 0.95, 0.91])
    mapped = [entry.known.values[0] for entry in on_scale_of(prior, own)]
    assert np.argsort(mapped).tolist() == [1, 3, 2, 0]
    assert min(mapped) >= 0.61
    assert max(mapped) <= 0.7
    assert [entry.known.values[0] for entry in on_scale_of(prior, [])] == [0.99, 0.9, 0.95, 0.91]


def test_trials_in_flight_in_an_earlier_study_are_not_in_flight_here():
    flying = on_line([0.4] * 30, [()] * 30, TrialState.RUNNING)
    done = on_line(np.linspace(0, 0.9, 20), [(x,) for x in np.linspace(0, 0.9, 20)])
    with_them = places("tpe", [], prior=done + flying)
    assert (with_them == places("tpe", [], prior=done)).all()
