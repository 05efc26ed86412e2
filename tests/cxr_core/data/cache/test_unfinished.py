"""A cache appears whole or not at all, is built by one process, and an interrupted build goes on where it stood."""

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_core.data import DataError, Source, build_cache, open_cache
from cxr_core.data.cache.resize import resize

REPOSITORY = Path(__file__).resolve().parents[4]
FILMS = 400
SECONDS = 1.5  # of a build until it meets its end: what is done is recorded every second


class Drawn(Source):
    """Films of noise by number; each that is read is written into a log. hooks: what happens when one is read."""

    kind = "drawn"
    labels = ("Mass",)

    def __init__(self, log: Path, films: int = FILMS, side: int = 16, hooks: dict[str, object] | None = None):
        self.names = [f"{number}.png" for number in range(films)]
        self.films = pd.DataFrame({"image": self.names, "patient": self.names, "split": None})
        self.side, self.hooks, self._log = side, hooks or {}, log
        self.pause = 0.0

    def draw(self, image: str) -> np.ndarray:
        return np.random.default_rng(int(image[:-4])).integers(0, 256, (self.side, self.side), dtype=np.uint8)

    def read(self, image: str) -> np.ndarray:
        with self._log.open("a") as log:
            log.write(f"{image}\n")
        time.sleep(self.pause)
        if image in self.hooks:
            self.hooks[image]()  # type: ignore[operator]
        return self.draw(image)

    def stamp(self, image: str) -> str:
        return "1"

    def log(self) -> list[str]:
        return self._log.read_text().split() if self._log.exists() else []

    def is_held_by(self, folder: Path, size: int = 8) -> bool:
        images, manifest = open_cache(folder)
        expected = np.array([resize(self.draw(name), size) for name in self.names])
        return list(manifest["image"]) == self.names and np.array_equal(images, expected)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Drawn:
    return Drawn(tmp_path / "log")


def caches(root: Path) -> list[Path]:
    """Folders that a later run would take for a cache."""
    return [path for path in root.iterdir() if path.is_dir() and path.suffix != ".partial"]


def journal(root: Path) -> Path:
    (path,) = root.glob("*.partial/journal.jsonl")
    return path


def recorded(root: Path) -> set[str]:
    whole = journal(root).read_text().rpartition("\n")[0]  # its end is torn where a disk was full
    return {json.loads(line)[0] for line in whole.splitlines()}


def builder(root: Path, lines: str = "") -> subprocess.Popen:
    """A process that builds the cache, 2 ms a film; `lines` may change the `source` before."""
    script = f"""
import os, pathlib, resource
from cxr_core.data import DataError, build_cache
from tests.cxr_core.data.cache.test_unfinished import Drawn
root = pathlib.Path({str(root)!r})
source = Drawn(root.parent / "log")
source.pause = 0.002
{lines}
try:
    print(build_cache(source, source.names, 8, root=root))
except DataError as fault:
    print("refused:", fault)
"""
    environment = {**os.environ, "PYTHONPATH": "."}
    return subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE)


def interrupt(source: Drawn, root: Path, at: int) -> None:
    """Let a build fail at a film."""

    def fail() -> None:
        raise RuntimeError("a bug in a reader")

    source.hooks = {f"{at}.png": fail}
    with pytest.raises(RuntimeError, match="a bug in a reader"):
        build_cache(source, source.names, 8, root=root)
    source.hooks = {}
    source._log.unlink()


# One builder


def test_two_processes_at_once_make_one_cache(source: Drawn, root: Path) -> None:
    folders = {Path(process.communicate()[0].decode().strip()) for process in [builder(root) for _ in "ab"]}
    (folder,) = folders
    assert caches(root) == [folder]
    assert sorted(source.log()) == sorted(source.names)


def test_who_waits_for_another_builder_says_so(source: Drawn, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cxr_core")
    other = builder(root)
    while not source.log():
        assert other.poll() is None
        time.sleep(0.01)
    folder = build_cache(source, source.names, 8, root=root)
    assert Path(other.communicate()[0].decode().strip()) == folder
    assert f"waiting for another process that builds {folder}" in caplog.messages


# Interrupted


def test_a_build_that_is_killed_leaves_no_cache_and_the_next_one_goes_on_where_it_stood(
    source: Drawn, root: Path
) -> None:
    threads = len(os.sched_getaffinity(0))
    lines = f"source.pause = {SECONDS * threads / 200}; source.hooks['200.png'] = lambda: os.kill(os.getpid(), 9)"
    killed = builder(root, lines)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert caches(root) == []
    done = recorded(root)
    assert done
    source._log.unlink()
    assert source.is_held_by(build_cache(source, source.names, 8, root=root))
    assert set(source.log()) == set(source.names) - done


def test_a_build_that_fails_keeps_every_film_it_has_decoded(source: Drawn, root: Path) -> None:
    interrupt(source, root, at=300)
    assert caches(root) == []
    told: list[tuple[int, int]] = []
    folder = build_cache(source, source.names, 8, root=root, on_film=lambda *done: told.append(done))
    assert source.is_held_by(folder)
    assert set(source.log()) == set(source.names[300:])
    assert told[0] == (300, FILMS)


@pytest.mark.parametrize("end", [b'["300.png", "1', b"\x00\x00\x00", b'["300.png"]\n', b'["7.png","1","0",null]\n'])
def test_a_torn_end_of_the_journal_is_left_out(source: Drawn, root: Path, end: bytes) -> None:
    interrupt(source, root, at=300)
    with journal(root).open("ab") as file:
        file.write(end)
    assert source.is_held_by(build_cache(source, source.names, 8, root=root))
    assert set(source.log()) == set(source.names[300:])


def test_pixels_that_the_journal_does_not_cover_are_decoded_again(source: Drawn, root: Path) -> None:
    interrupt(source, root, at=300)
    lines = journal(root).read_bytes().splitlines(keepends=True)
    journal(root).write_bytes(b"".join(lines[:120]))
    assert source.is_held_by(build_cache(source, source.names, 8, root=root))
    assert set(source.log()) == set(source.names[120:])


def test_films_whose_pixels_are_gone_are_decoded_again(source: Drawn, root: Path) -> None:
    interrupt(source, root, at=300)
    os.truncate(journal(root).with_name("images.npy"), 128 + 100 * 64 + 7)
    assert source.is_held_by(build_cache(source, source.names, 8, root=root))
    assert set(source.log()) == set(source.names[100:])


def test_a_finished_cache_has_left_nothing_unfinished(source: Drawn, root: Path) -> None:
    interrupt(source, root, at=300)
    folder = build_cache(source, source.names, 8, root=root)
    assert [path.name for path in root.glob("*.partial")] == []
    names = ["cache.json", "images.npy", "manifest.parquet", "unreadable.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names


# Too little space


def test_a_cache_that_no_disk_holds_is_refused_before_a_film_is_read(source: Drawn, root: Path) -> None:
    with pytest.raises(
        DataError, match=r"^.*cache: the film cache needs 381,\d+,\d+ MiB and [\d,]+ MiB are free.*CXR_CA"
    ):
        build_cache(source, source.names, 1_000_000, root=root)
    assert source.log() == []


def test_a_write_that_fails_for_want_of_space_keeps_the_films_before_it(source: Drawn, root: Path) -> None:
    """A limit on the size of files stands for the full disk: it too takes a part of a film and refuses the rest."""
    limit = 128 + 250 * 64 + 20
    starved = builder(root, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, -1)); source.pause = 0")
    refusal = starved.communicate()[0].decode()
    assert refusal.startswith(f"refused: {root}: the disk is full ({os.strerror(errno.EFBIG)})")
    assert "CXR_CACHE" in refusal
    assert caches(root) == []
    kept = recorded(root)
    assert 0 < len(kept) <= 250
    source._log.unlink()
    assert source.is_held_by(build_cache(source, source.names, 8, root=root))
    assert set(source.log()) == set(source.names) - kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_while_films_are_decoded_keeps_the_films_so_far(tmp_path: Path, small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError):  # a film may have taken the last page meanwhile
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))

    source = Drawn(tmp_path / "log", films=300, side=64, hooks={"150.png": fill})
    source.pause = SECONDS * len(os.sched_getaffinity(0)) / 150
    with pytest.raises(DataError, match=rf"^{small_disk}: the disk is full \(No space left"):
        build_cache(source, source.names, 64, root=small_disk)
    assert caches(small_disk) == []
    kept = recorded(small_disk)
    assert kept
    ballast.unlink()
    source._log.unlink()
    source.hooks, source.pause = {}, 0
    assert source.is_held_by(build_cache(source, source.names, 64, root=small_disk), 64)
    assert set(source.log()) == set(source.names) - kept


def test_what_an_interrupted_build_holds_need_not_be_free_again(tmp_path: Path, small_disk: Path) -> None:
    """300 films of 4 KiB and a margin of 1 KiB each need 1.5 MiB of 2: not twice, but once and the rest."""
    source = Drawn(tmp_path / "log", films=300, side=64)

    def fail() -> None:
        raise RuntimeError("a bug in a reader")

    source.hooks = {"290.png": fail}
    with pytest.raises(RuntimeError):
        build_cache(source, source.names, 64, root=small_disk)
    source.hooks = {}
    assert source.is_held_by(build_cache(source, source.names, 64, root=small_disk), 64)
