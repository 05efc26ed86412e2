"""A folder that is replaced whole: a reader finds what was there before, or what is there now."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_whole(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` once all is written, and goes if it is not.

    A kill in the moment of the exchange may leave none; what killed processes left behind is removed. Raises OSError.
    """
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(partial / ".earlier")
        partial.rename(folder)
        shutil.rmtree(folder / ".earlier", ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
