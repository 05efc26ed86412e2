"""Data sets of chest films: readers, patient-level splits, and the cache of resized films."""

from cxr_core.data import medmnist, nih, phantom  # noqa: F401  (importing a reader registers it)
from cxr_core.data.cache import build_cache, open_cache
from cxr_core.data.films import Films, TrainingData
from cxr_core.data.source import DataError, DataName, Source, readers
from cxr_core.data.splits import split_by_patient

__all__ = [
    "DataError",
    "DataName",
    "Films",
    "Source",
    "TrainingData",
    "build_cache",
    "open_cache",
    "readers",
    "split_by_patient",
]
