"""Whether one trial is credibly better than another, from validation scores on disk."""

import numpy as np
import pandas as pd
import pytest

from search.credibility import Credibility
from search.kept_scores import scores_path
from search.study import Study
from tests.search.conftest import SPACE, drawn, epoch_record, legs_on

PATIENTS = 150


@pytest.fixture
def compared(make_space, tmp_path):
    """A study of 300 validation films, and a function that gives a trial scores of a given quality."""
    chance = np.random.default_rng(0)
    ill = (np.arange(2 * PATIENTS) // 2) % 3 == 0
    films = pd.DataFrame(
        {
            "image": [f"{film}.png" for film in range(2 * PATIENTS)],
            "patient": [str(film // 2) for film in range(2 * PATIENTS)],
            "split": "val",
            "Pneumonia": ill.astype(float),
        }
    )
    space = make_space(SPACE, "asha={rungs: [0.1], eta: 2, confidence: 0.9}")
    study = Study.create(tmp_path / "compared", space, {"seed": 0}, films)

    def score(separation, epoch=1, noise=None):
        trial = drawn(study, space)
        noise = chance.normal(size=len(ill)) if noise is None else noise
        path = scores_path(study.folder, trial.number, epoch)
        path.parent.mkdir(parents=True)
        scored = (ill * separation + noise).astype(np.float32)[:, None]
        order = np.random.default_rng(trial.number).permutation(
            len(films)
        )  # a training's films lie in an order of its own cache
        np.savez(path, images=films["image"].to_numpy(str)[order], scores=scored[order])
        return study.trial(trial.number), epoch

    return study, Credibility(study, ("Pneumonia",)), score, chance


def test_a_much_better_trial_is_better_in_every_resample(compared):
    _, credible, score, _ = compared
    good, poor = score(3.0), score(0.0)
    assert credible(good, poor) == 1.0
    assert credible(poor, good) == 0.0


def test_trials_of_equal_scores_are_at_least_as_good_as_each_other(compared):
    _, credible, score, chance = compared
    noise = chance.normal(size=2 * PATIENTS)
    one, other = score(1.0, noise=noise), score(1.0, noise=noise)
    assert credible(one, other) == credible(other, one) == 1.0


def test_a_small_difference_is_not_credible_either_way(compared):
    _, credible, score, _ = compared
    one, other = score(1.0), score(1.0)
    assert 0.02 < credible(one, other) < 0.98
    assert credible(one, other) + credible(other, one) == pytest.approx(1.0, abs=0.05)


def test_without_the_scores_of_one_nothing_is_credible(compared):
    study, credible, score, _ = compared
    one, other = score(3.0), score(0.0)
    scores_path(study.folder, other[0].number, 1).unlink()
    assert credible(one, other) == 0.0


def test_the_share_is_that_of_a_bootstrap_written_out(compared):
    """Against scikit-learn's AUROC on patients drawn with replacement; sigma of a share of 500 is at most 0.022."""
    from sklearn.metrics import roc_auc_score

    study, credible, score, chance = compared
    (one, _), (other, _) = score(1.0), score(0.85)
    scores = []
    for trial in (one, other):
        kept = np.load(scores_path(study.folder, trial.number, 1))
        by_film = dict(zip(kept["images"].tolist(), kept["scores"][:, 0].tolist(), strict=True))
        scores.append(np.array([by_film[f"{film}.png"] for film in range(2 * PATIENTS)]))
    ill = (np.arange(2 * PATIENTS) // 2) % 3 == 0
    better = []
    for _ in range(500):
        drawn_patients = chance.integers(0, PATIENTS, PATIENTS)
        rows = np.concatenate([2 * drawn_patients, 2 * drawn_patients + 1])
        better.append(roc_auc_score(ill[rows], scores[0][rows]) >= roc_auc_score(ill[rows], scores[1][rows]))
    assert credible((one, 1), (other, 1)) == pytest.approx(np.mean(better), abs=5 * 0.022 * 2**0.5)


@pytest.mark.parametrize(("separation", "goes_on"), [(1.0, True), (-3.0, False)])
def test_a_trial_is_held_at_a_rung_only_if_it_is_credibly_worse(compared, separation, goes_on):
    study, credible, score, _ = compared
    for share, value in ((1.0, 0.9), (separation, 0.8)):
        trial, _ = score(share)
        study.record(trial.number, epoch_record(1, value))
    legs = legs_on(Study(study.folder), _space_of(study), compare=credible)
    assert 0 in legs.interrupted
    assert (1 in legs.interrupted) == goes_on
    if goes_on:
        assert "not credibly worse than trial 0" in legs.journal.trial(1).decisions[-1].why


def _space_of(study):
    from search.space import load_space

    return load_space(study.folder / "space.yaml")
