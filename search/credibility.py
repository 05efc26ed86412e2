"""Whether one trial is credibly better than another: a paired bootstrap of the validation patients."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_core.bootstrap import bootstrap, macro_samples
from search.study import Study
from search.trial import Trial

_RESAMPLES = 500
"""Enough to tell 90 from 95 %: the standard error of a share of .9 is .013."""


def scores_path(folder: Path, trial: int, epoch: int) -> Path:
    """Where a trial's validation scores after an epoch are kept, (films, labels), float32."""
    return folder / "trials" / f"{trial:05d}" / f"scores-{epoch:04d}.npy"


class Credibility:
    """Compares trials of a study by their validation scores at a rung."""

    def __init__(self, study: Study, labels: tuple[str, ...]):
        self.study = study
        films = pd.read_parquet(study.folder / "films.parquet")
        val = films[films["split"] == "val"]
        self._targets = val[list(labels)].to_numpy(float)
        self._patients = val["patient"].to_numpy()

    def __call__(self, one: tuple[Trial, int], other: tuple[Trial, int]) -> float:
        """The share of resamples in which the first trial is at least as good as the second.

        Each is a trial and the epoch whose scores count. 0 where the scores of one are gone: the plain rule holds.
        """
        try:
            scores = np.stack([np.load(scores_path(self.study.folder, t.number, epoch)) for t, epoch in (one, other)])
        except FileNotFoundError:
            return 0.0
        metric = self.study.objective.metrics[0]
        samples = bootstrap(self._targets, scores, self._patients, (metric,), resamples=_RESAMPLES)[metric]
        gain = np.diff(macro_samples(samples), axis=1)[:, 0] * (-1 if self.study.objective.maximize[0] else 1)
        defined = gain[~np.isnan(gain)]
        return float((defined >= 0).mean()) if len(defined) else 0.0
