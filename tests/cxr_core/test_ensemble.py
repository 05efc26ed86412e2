"""Ensembles: the selection against brute force and another program, votes against a table written out."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from cxr_core.ensemble import majority_vote, mean_probability, select_models

NAN = float("nan")


def draw(seed: int, models: int, films: int = 60, labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Models of different quality, each with mistakes of its own."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((films, labels)) < 0.4).astype(float)
    targets[:2] = [[0.0], [1.0]]
    apart = rng.uniform(0.3, 2.0, (models, 1, 1))
    logits = apart * (2 * targets - 1) + rng.normal(size=(models, films, labels))
    return targets, 1 / (1 + np.exp(-1.5 * logits))


def written_out(targets: np.ndarray, scores: np.ndarray, best: int, steps: int) -> list[int]:
    """The paper's procedure on scikit-learn's log loss, with lists of models in place of sums."""

    def quality(models: list[int]) -> float:
        return round(-float(log_loss(targets[:, 0], scores[models, :, 0].mean(axis=0))), 12)

    ranked = sorted(range(len(scores)), key=lambda model: -quality([model]))
    path = max((ranked[:count] for count in range(1, best + 1)), key=quality)
    seen = [ranked[: 1 + count] for count in range(len(path))]
    for _ in range(steps):
        path = max(([*path, model] for model in ranked), key=quality)
        seen.append(path)
    return max(seen, key=quality)


@pytest.mark.parametrize("seed", range(5))
def test_the_selection_is_that_of_the_papers_procedure_written_out(seed: int) -> None:
    targets, scores = draw(seed, 6)
    chosen = select_models(targets, scores, "log_loss", best=3, steps=8)
    expected = written_out(targets, scores, best=3, steps=8)
    assert chosen.counts == tuple(np.bincount(expected, minlength=6))
    assert chosen.value == pytest.approx(log_loss(targets[:, 0], scores[expected, :, 0].mean(axis=0)))


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_close_to_the_best_of_all_multisets(seed: int) -> None:
    """Log loss is convex in the weights: no local optimum catches a greedy path, and what came first loses weight."""
    targets, scores = draw(seed, 4)
    sets = [list(models) for size in range(1, 9) for models in combinations_with_replacement(range(4), size)]
    least = min(log_loss(targets[:, 0], scores[models, :, 0].mean(axis=0)) for models in sets)
    alone = min(log_loss(targets[:, 0], one[:, 0]) for one in scores)
    chosen = select_models(targets, scores, "log_loss", best=1, steps=100)
    assert chosen.value - least <= 0.02 * (alone - least) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_one_step_finds_the_best_partner_of_the_best_model(seed: int) -> None:
    targets, scores = draw(seed, 5)
    alone = [roc_auc_score(targets, one) for one in scores]
    leader = int(np.argmax(alone))
    pairs = [roc_auc_score(targets, (scores[leader] + one) / 2) for one in scores]
    chosen = select_models(targets, scores, "auroc_macro", best=1, steps=1)
    assert chosen.value == pytest.approx(max(*pairs, *alone))


def test_an_ensemble_is_never_worse_than_the_best_model_on_the_films_it_is_chosen_by() -> None:
    for seed in range(10):
        targets, scores = draw(seed, 7, labels=3)
        alone = max(roc_auc_score(targets, one, average="macro") for one in scores)
        assert select_models(targets, scores, "auroc_macro").value >= alone - 1e-12


def test_where_no_partner_helps_the_best_model_stays_alone() -> None:
    targets, _ = draw(0, 1)
    perfect, poor = 0.98 * targets + 0.01, np.full(targets.shape, 0.5)
    chosen = select_models(targets, np.stack([poor, perfect, poor]), "auroc_macro")
    assert chosen.counts == (0, 1, 0)
    assert chosen.value == 1.0


def test_of_equal_models_the_first_is_taken() -> None:
    targets, scores = draw(1, 1)
    assert select_models(targets, np.concatenate([scores] * 3), "brier").counts == (1, 0, 0)


def test_a_model_without_a_defined_metric_is_not_taken() -> None:
    targets, scores = draw(2, 3)
    scores[0, 0, 0] = NAN
    assert select_models(targets, scores, "auroc_macro").counts[0] == 0
    with pytest.raises(ValueError, match="auroc_macro is undefined for every model"):
        select_models(np.zeros_like(targets), scores, "auroc_macro")


def test_bags_are_the_same_for_the_same_seed_and_each_adds_its_own_ensemble() -> None:
    targets, scores = draw(3, 8)
    once, again = (select_models(targets, scores, "log_loss", bags=10, seed=4) for _ in range(2))
    assert once == again
    assert once != select_models(targets, scores, "log_loss", bags=10, seed=5)
    plain = select_models(targets, scores, "log_loss")
    assert sum(count > 0 for count in once.counts) > sum(count > 0 for count in plain.counts)


def test_the_mean_is_weighted() -> None:
    scores = np.array([[[0.2]], [[0.8]], [[0.5]]])
    assert mean_probability(scores, [3, 1, 0]) == pytest.approx(np.array([[0.35]]))


def test_majority_votes_by_a_table_written_out() -> None:
    """Three models, one finding, thresholds .5, .3 and .7; films as rows: who calls, and what most of them say."""
    table = [
        ((0.6, 0.4, 0.8), 1),  # all
        ((0.6, 0.4, 0.1), 1),  # two of three
        ((0.6, 0.2, 0.1), 0),  # one
        ((0.5, 0.3, 0.0), 1),  # at a threshold is a call
        ((0.4, 0.2, 0.6), 0),  # none
    ]
    scores = np.array([row for row, _ in table]).T[:, :, None]
    assert majority_vote(scores, np.array([[0.5], [0.3], [0.7]]))[:, 0].tolist() == [call for _, call in table]


def test_of_a_tie_the_mean_probability_decides_against_the_mean_threshold() -> None:
    """Two models with thresholds .4 and .6: one calls and the other does not; the mean must reach .5."""
    scores = np.array([[0.9, 0.45, 0.3], [0.5, 0.5, 0.7]])[:, :, None]
    assert majority_vote(scores, np.array([[0.4], [0.6]]))[:, 0].tolist() == [1, 0, 1]


def test_each_finding_has_a_vote_of_its_own_and_who_has_no_threshold_does_not_vote() -> None:
    """Of two models the second has no threshold for the second finding, and nobody has one for the third."""
    scores = np.array([[[0.9, 0.9, 0.9]], [[0.8, 0.1, 0.9]]])
    votes = majority_vote(scores, np.array([[0.5, 0.5, NAN], [0.5, NAN, NAN]]))
    assert votes[0, :2].tolist() == [1, 1]
    assert np.isnan(votes[0, 2])


def test_a_threshold_of_infinity_is_a_vote_against() -> None:
    scores = np.array([[[0.9]], [[0.9]], [[0.1]]])
    assert majority_vote(scores, np.array([[0.5], [np.inf], [np.inf]]))[0, 0] == 0
    assert majority_vote(scores[:2], np.array([[0.5], [np.inf]]))[0, 0] == 0  # a tie, and no mean reaches infinity
