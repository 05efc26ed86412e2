"""The tables of the whole of ChestX-ray14, read as if its films were there."""

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_core.data.nih import Nih


@pytest.fixture(scope="session")
def whole_nih(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nih]:
    """All 112,120 films of version 2020, which stand there as empty files: nothing may look into them."""
    root = tmp_path_factory.mktemp("whole") / "nih"
    shutil.copytree(real_data / "nih_tables", root)
    root.chmod(0o755)
    (root / "images").mkdir()
    images = os.open(root / "images", os.O_RDONLY)
    with (root / "Data_Entry_2017_v2020.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            os.mknod(row["Image Index"], dir_fd=images)
    os.close(images)
    yield Nih(str(root))
    shutil.rmtree(root)
