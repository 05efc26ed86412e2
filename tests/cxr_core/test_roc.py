"""The points of ROC and precision-recall curves: scikit-learn's, and thinned ones that stay close to them."""

import numpy as np
import sklearn.metrics

from cxr_core.roc import roc_curve

ALL = 10**9  # cells so small that no two points share one


def films(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = (rng.random(count) < 0.3).astype(float)
    return targets, (rng.normal(size=count) + targets).round(1)


def test_all_points_of_the_roc_curve_are_scikit_learns() -> None:
    targets, scores = films()
    fpr, tpr, _ = sklearn.metrics.roc_curve(targets, scores, drop_intermediate=False)
    found = roc_curve(targets, scores).roc_points(cells=ALL)
    np.testing.assert_allclose(found, [fpr, tpr], atol=1e-12)


def test_points_of_precision_and_recall_are_scikit_learns_where_recall_grows() -> None:
    targets, scores = films()
    precision, recall, _ = sklearn.metrics.precision_recall_curve(targets, scores)
    precision, recall = precision[::-1], recall[::-1]  # from the highest threshold
    grows = np.diff(recall, prepend=0) > 0
    found = roc_curve(targets, scores).pr_points(cells=ALL)
    np.testing.assert_allclose(found, [recall[grows], precision[grows]], atol=1e-12)


def test_steps_through_the_points_of_precision_and_recall_enclose_the_average_precision() -> None:
    targets, scores = films()
    recall, precision = roc_curve(targets, scores).pr_points(cells=ALL)
    area = (np.diff(recall, prepend=0) * precision).sum()
    np.testing.assert_allclose(area, sklearn.metrics.average_precision_score(targets, scores), atol=1e-12)


def test_a_thinned_curve_has_few_points_and_passes_within_a_cell_of_all() -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random(20_000) < 0.3).astype(float)
    curve = roc_curve(targets, rng.normal(size=20_000) + targets)
    whole, thinned = (np.stack(curve.roc_points(cells)) for cells in (ALL, 50))
    assert thinned.shape[1] <= 2 * 50 + 2
    assert np.array_equal(thinned[:, [0, -1]], [[0, 1], [0, 1]])
    nearest = np.abs(whole[:, :, None] - thinned[:, None, :]).max(axis=0).min(axis=1)
    assert nearest.max() < 1 / 50
    recall = curve.pr_points(50)[0]
    assert len(recall) <= 51
    assert recall[-1] == 1
    assert (np.diff(recall) > 0).all()


def test_a_class_that_is_missing_leaves_no_curve() -> None:
    scores = np.array([0.2, 0.7])
    for truth in (0.0, 1.0, np.nan):
        assert len(roc_curve(np.full(2, truth), scores).roc_points()[0]) == 0
    assert len(roc_curve(np.zeros(2), scores).pr_points()[0]) == 0
    assert roc_curve(np.ones(2), scores).pr_points()[1].tolist() == [1, 1]
