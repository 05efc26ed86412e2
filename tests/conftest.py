"""What all tests share: one thread, a film cache of their own, and the real films where they are at hand."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy fails no test.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")

# Read by torch when it is first imported, here and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _film_cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(tmp_path_factory.mktemp("film-cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real films and tables, as its README.md lists them."""
    folder = Path(os.environ.get("CXR_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real films: {folder} does not exist (set CXR_TEST_DATA)")
    return folder
