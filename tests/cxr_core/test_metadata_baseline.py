"""What age, sex and view alone tell: exactly what was planted in them, and nothing where nothing was."""

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from cxr_core.metadata_baseline import metadata_scores

LABELS = ("planted", "chance")


def cohort(seed: int, count: int = 3000) -> pd.DataFrame:
    """Films of which older people and portable views have `planted` more often, and `chance` is a coin."""
    rng = np.random.default_rng(seed)
    films = pd.DataFrame({"age": rng.normal(50, 15, count), "sex": rng.choice(["F", "M"], count)})
    films["view"] = rng.choice(["PA", "AP"], count)
    risk = (films["age"] - 50) / 15 + 1.0 * (films["view"] == "AP")
    films["risk"] = risk
    films["planted"] = (risk + rng.normal(size=count) > 1).astype(float)
    films["chance"] = (rng.random(count) < 0.5).astype(float)
    return films


TRAIN, TEST = cohort(0), cohort(1)


def test_it_finds_what_is_planted_nearly_as_well_as_who_knows_the_truth() -> None:
    scores = metadata_scores(TRAIN, TEST, LABELS)
    best = roc_auc_score(TEST["planted"], TEST["risk"])
    assert best > 0.8
    assert best - 0.03 < roc_auc_score(TEST["planted"], scores[:, 0]) <= best + 0.01


def test_its_scores_are_probabilities() -> None:
    scores = metadata_scores(TRAIN, TEST, LABELS)[:, 0]
    truth = norm.sf(1 - TEST["risk"])
    assert np.abs(scores - truth).mean() < 0.06


def test_a_coin_is_not_predicted() -> None:
    # Of 3,000 films the AUROC of chance has a standard error of 0.011.
    scores = metadata_scores(TRAIN, TEST, LABELS)[:, 1]
    assert abs(roc_auc_score(TEST["chance"], scores) - 0.5) < 0.05


def test_the_labels_of_the_films_that_are_judged_do_not_matter() -> None:
    blind = TEST.drop(columns=list(LABELS))
    np.testing.assert_array_equal(metadata_scores(TRAIN, blind, LABELS), metadata_scores(TRAIN, TEST, LABELS))


def test_empty_cells_and_views_that_training_never_had_are_judged_by_the_rest() -> None:
    films = TEST.assign(view="lateral", sex=None)
    scores = metadata_scores(TRAIN.assign(age=TRAIN["age"].where(TRAIN.index % 5 > 0)), films, LABELS)[:, 0]
    assert np.isfinite(scores).all()
    assert roc_auc_score(TEST["planted"], scores) > 0.7


def test_one_column_is_enough_and_the_others_are_not_asked_for() -> None:
    films, others = (table[["view", *LABELS]] for table in (TRAIN, TEST))
    scores = metadata_scores(films, others, LABELS, ["view"])[:, 0]
    assert len(np.unique(scores)) == 2
    assert scores[(others["view"] == "AP").to_numpy()].min() > scores[(others["view"] == "PA").to_numpy()].max()


def test_a_finding_that_no_training_film_has_is_not_predicted() -> None:
    scores = metadata_scores(TRAIN.assign(chance=0.0), TEST, LABELS)
    assert np.isnan(scores[:, 1]).all()
    assert np.isfinite(scores[:, 0]).all()


def test_a_finding_labelled_only_where_there_is_no_age_is_predicted_by_the_rest() -> None:
    """Two sources in one table: the one that tells the ages does not know the finding."""
    train = TRAIN.assign(planted=np.where(TRAIN.index < 1500, TRAIN["planted"], np.nan))
    train["age"] = train["age"].where(train.index >= 1500)
    scores = metadata_scores(train, TEST, LABELS)
    blind = metadata_scores(train.assign(age=np.nan), TEST.assign(age=np.nan), LABELS)
    assert roc_auc_score(TEST["planted"], scores[:, 0]) > 0.6
    np.testing.assert_array_equal(scores[:, 0], blind[:, 0])


def test_a_finding_whose_films_have_no_metadata_is_not_predicted() -> None:
    train = TRAIN.assign(planted=np.where(TRAIN.index < 1500, TRAIN["planted"], np.nan))
    train.loc[:1499, ["age", "sex", "view"]] = np.nan
    scores = metadata_scores(train, TEST, LABELS)
    assert np.isnan(scores[:, 0]).all()
    assert not np.isnan(scores[:, 1]).any()


def test_of_hundreds_of_views_the_rare_ones_count_as_unknown() -> None:
    rare = np.where(TRAIN.index < 1000, TRAIN.index.astype(str), TRAIN["view"])
    scores = metadata_scores(TRAIN.assign(view=rare), TEST, LABELS)
    assert roc_auc_score(TEST["planted"], scores[:, 0]) > 0.75
