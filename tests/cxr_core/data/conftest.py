"""The tables of the whole of ChestX-ray14, read as if its films were there."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cxr_core.data.data_sets.nih import Nih

IN_MEMORY = Path("/dev/shm")  # there, 112,120 files take a second


@pytest.fixture(scope="session")
def whole_nih(real_data: Path) -> Iterator[Nih]:
    """All 112,120 films of version 2020, which stand there as empty files: nothing may look into them."""
    with TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as root:
        for table in (real_data / "nih_tables").iterdir():
            Path(root, table.name).symlink_to(table)
        Path(root, "images").mkdir()
        images = os.open(Path(root, "images"), os.O_RDONLY)
        with Path(root, "Data_Entry_2017_v2020.csv").open(newline="") as rows:
            for row in csv.DictReader(rows):
                os.mknod(row["Image Index"], dir_fd=images)
        os.close(images)
        yield Nih(root)
