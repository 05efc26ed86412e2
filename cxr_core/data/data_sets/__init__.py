"""Readers of data sets, one a file; importing this package registers them."""

from cxr_core.data.data_sets import chexpert, csv_manifest, kermany, medmnist, nih, phantom

__all__ = ["chexpert", "csv_manifest", "kermany", "medmnist", "nih", "phantom"]
