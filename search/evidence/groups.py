"""Who a network serves how well, and what age, sex and view alone would have told."""

from typing import Any

import pandas as pd

from cxr_core.metadata_baseline import metadata_scores
from cxr_core.subgroups import known_columns, subgroups
from search.evidence.split import Array, Split

_AREAS = ("auroc_macro", "auprc_macro")
_OF_GROUPS = ("auroc_macro", "sensitivity", "specificity")
_COLUMNS = ("age", "sex", "view")


def by_group(test: Split, thresholds: Array) -> dict[str, Any]:
    """Metrics by sex, age and view, with the films and positives they rest on, and which of these is `unknown`.

    The thresholds, (C,), are the same for all groups.
    """
    return {
        "unknown": [name for name in _COLUMNS if name not in known_columns(test.films)],
        "groups": [
            {"kind": group.kind, "name": group.name, **_group(test.part(group.members), thresholds)}
            for group in subgroups(test.films)
        ],
    }


def _group(split: Split, thresholds: Array) -> dict[str, Any]:
    found = split.estimate(_OF_GROUPS, thresholds)
    told = {name.removesuffix("_macro"): split.tell(name, found[name], thresholds) for name in _OF_GROUPS}
    return {**split.count(), "positives": split.positives(), **told}


def metadata_alone(train: pd.DataFrame, test: Split) -> dict[str, Any]:
    """How well age, sex and view alone predict the findings, and how much better the network is on the same patients.

    `columns`: those that both splits tell, empty where there is nothing to predict from.
    """
    columns = [name for name in known_columns(train) if name in known_columns(test.films)]
    if not columns:
        return {"columns": [], "missing": list(_COLUMNS)}
    scores = metadata_scores(train, test.films, test.labels, columns)
    alone = test.scored(scores)
    areas = [split.estimate(_AREAS) for split in (test, alone)]
    told: dict[str, Any] = {"columns": columns, "missing": [name for name in _COLUMNS if name not in columns]}
    for name in _AREAS:
        gained = areas[0][name].minus(areas[1][name])
        told[name.removesuffix("_macro")] = {
            "alone": alone.tell(name, areas[1][name]),
            "network": test.tell(name, areas[0][name].where(areas[1][name])),
            "gained": alone.tell(name, gained),
        }
    return told
