"""Whether one trial is credibly better than another: a paired bootstrap of the validation patients."""

import numpy as np
import pandas as pd

from cxr_core.bootstrap import bootstrap, macro_samples
from search.kept_scores import read_scores, scores_path
from search.study import Study
from search.trial import Trial

_RESAMPLES = 500
"""Enough to tell 90 from 95 %: the standard error of a share of .9 is .013."""


class Credibility:
    """Compares trials of a study by their validation scores at a rung."""

    def __init__(self, study: Study, labels: tuple[str, ...]):
        self.study = study
        self.labels = list(labels)
        # Training films, too: those judge in the first of several folds, where the rungs are.
        self._films = pd.read_parquet(study.folder / "films.parquet").set_index("image")

    def __call__(self, one: tuple[Trial, int], other: tuple[Trial, int]) -> float:
        """The share of resamples in which the first trial is at least as good as the second.

        Each is a trial and the epoch whose scores count. 0 where the scores of one are gone: the plain rule holds.
        """
        try:
            kept = [read_scores(scores_path(self.study.folder, trial.number, epoch)) for trial, epoch in (one, other)]
        except FileNotFoundError:
            return 0.0
        films = self._films.loc[kept[0].index]
        scores = np.stack([frame.loc[films.index].to_numpy(float) for frame in kept])
        metric = self.study.objective.judged
        targets, patients = films[self.labels].to_numpy(float), films["patient"].to_numpy()
        samples = bootstrap(targets, scores, patients, (metric,), resamples=_RESAMPLES)[metric]
        gain = np.diff(macro_samples(samples), axis=1)[:, 0] * (-1 if self.study.objective.maximize[0] else 1)
        defined = gain[~np.isnan(gain)]
        return float((defined >= 0).mean()) if len(defined) else 0.0
