"""Findings predicted without looking at the film, from age, sex and view: what a network may have learnt by shortcut.

Portable films are of sicker patients, and some findings come with age: a classifier can score well above chance from
such facts alone (Zech et al. 2018, PLoS Med 15:e1002683). A network is worth what it adds to that.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_core.roc import Array

_CATEGORIES = 255
"""That scikit-learn's histogram trees take of a column."""


def metadata_scores(
    train: pd.DataFrame, films: pd.DataFrame, labels: Sequence[str], columns: Sequence[str] = ("age", "sex", "view")
) -> Array:
    """Probabilities of each finding, (N, C), of a model of each finding that knows a film's metadata alone.

    train: the training films. films: those to be judged. Both tables have the labels, in {0, 1, NaN} where they are
    training films, and the columns, whose cells may be empty. NaN for a finding that no training film has, or all have,
    or whose labelled training films have no metadata. Of more categories than the trees take, the commonest count.

    Gradient-boosted trees (Friedman 2001; scikit-learn's histogram form): they take missing cells and categories as
    they are, and find that the same view means something else at another age. Shallow and few, for three columns.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # a second to import

    categories = {name: _commonest(train[name]) for name in columns if name != "age"}
    known, asked = (_features(table, columns, categories) for table in (train, films))
    scores = np.full((len(films), len(labels)), np.nan)
    for c, label in enumerate(labels):
        targets = train[label].to_numpy(np.float64)
        told = ~np.isnan(targets)
        used = ~np.isnan(known[told]).all(axis=0)  # the trees refuse a column without a cell
        if used.any() and len(np.unique(targets[told])) == 2:
            model = HistGradientBoostingClassifier(
                max_iter=60,
                max_leaf_nodes=8,
                early_stopping=False,
                categorical_features=np.array([name != "age" for name in columns])[used],
                random_state=0,
            )
            model.fit(known[np.ix_(told, used)], targets[told])
            scores[:, c] = model.predict_proba(asked[:, used])[:, 1]
    return scores


def _commonest(cells: pd.Series) -> list[str]:
    return list(cells.dropna().astype(str).value_counts().index[:_CATEGORIES])


def _features(films: pd.DataFrame, columns: Sequence[str], categories: dict[str, list[str]]) -> Array:
    """(N, columns): years, and the numbers of categories; NaN is unknown, as is a category of no training film."""
    table = pd.DataFrame(index=films.index)
    for name in columns:
        if name == "age":
            table[name] = pd.to_numeric(films[name], errors="coerce").astype(np.float64)
        else:
            numbers = {category: float(number) for number, category in enumerate(categories[name])}
            table[name] = films[name].astype(object).map(lambda cell, numbers=numbers: numbers.get(str(cell), np.nan))
    return table.to_numpy(np.float64)
