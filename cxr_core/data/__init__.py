"""Data sets of chest films: readers, patient-level splits, and the cache of resized films."""

import cxr_core.data.data_sets  # noqa: F401  (importing it registers them)
from cxr_core.data.cache import build_cache, open_cache
from cxr_core.data.films import Films, TrainingData
from cxr_core.data.policy import DataPolicy
from cxr_core.data.preparation import PreparedData, prepare
from cxr_core.data.source import DataError, DataName, Source, readers
from cxr_core.data.splits import split_by_patient

__all__ = [
    "DataError",
    "DataName",
    "DataPolicy",
    "Films",
    "PreparedData",
    "Source",
    "TrainingData",
    "build_cache",
    "open_cache",
    "prepare",
    "readers",
    "split_by_patient",
]
