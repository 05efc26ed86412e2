"""An earlier study's trials, kept beside the new one, put on its scale, and listened to less and less."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState
from scipy.stats import rankdata

from search.known import COMPLETE, OTHER, PRUNED, Entry, Known

_FILE = "prior.json"


def listens(seed: int, number: int, finished: int, startup: int) -> bool:
    """Whether a proposal uses the earlier study: with probability s / (2 (s + n)) after n own results, s = startup.

    1/2 at first, 1/4 after as many results as a start has. Proposals lost to a misleading study are s/2 log(1 + n/s)
    on average: 9 of 60, and a share of the search that goes to nothing, while a helpful one is used where it helps,
    early. (A prior's weight that falls as 1/n is that of Hvarfner et al. 2022, arXiv:2204.11051.) Drawn from the seed
    and the trial's number.
    """
    share = startup / (2 * (startup + finished))
    return bool(np.random.default_rng((seed, number, 1)).random() < share)


def on_scale_of(prior: Sequence[Entry], own: Sequence[Entry]) -> list[Entry]:
    """The earlier study's trials, each value replaced by the own one of equal rank.

    Ranks are taken among complete trials and among those of each rung. Where there are no own values yet, the earlier
    ones stay: any scale of the same order serves. Another data set's AUROC .9 may well be this one's .7.
    """
    told = dict(enumerate(prior))
    for group in {_group(entry) for entry in prior}:
        here = [index for index, entry in told.items() if _group(entry) == group]
        ours = np.array([entry.known.values for entry in own if _group(entry) == group])
        if group[0] not in (COMPLETE, PRUNED) or not len(ours):
            continue
        shares = (rankdata([told[index].known.values for index in here], axis=0) - 0.5) / len(here)
        mapped = [np.quantile(column, share) for column, share in zip(ours.T, shares.T, strict=True)]
        for index, values in zip(here, np.transpose(mapped).tolist(), strict=True):
            told[index] = told[index]._replace(known=replace(told[index].known, values=tuple(values)))
    return [entry for entry in told.values() if entry.rank_class != OTHER]


def _group(entry: Entry) -> tuple[int, int]:
    return entry.rank_class, entry.known.rung if entry.rank_class == PRUNED else 0


def save_prior(folder: Path, prior: Sequence[Known]) -> None:
    """Keep a prior beside the study that it serves."""
    rows = [{**vars(known), "state": known.state.name} for known in prior]
    (folder / _FILE).write_text(json.dumps(rows))


def load_prior(folder: Path) -> list[Known]:
    """The prior of a study; empty if it was not warm-started."""
    path = folder / _FILE
    rows = json.loads(path.read_text()) if path.exists() else []
    return [_from_row(row) for row in rows]


def _from_row(row: dict[str, Any]) -> Known:
    tuples = {"values": tuple(row["values"]), "violations": tuple(row["violations"])}
    return Known(**{**row, **tuples, "state": TrialState[row["state"]]})
