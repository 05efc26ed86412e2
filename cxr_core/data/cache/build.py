"""The cache of films: decoded and resized once, then shared by every trial of a node through mmap."""

import hashlib
import importlib.metadata
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from cxr_core.data.cache.earlier_films import EarlierFilms, fingerprint
from cxr_core.data.cache.folder import FORMAT, CacheFacts, cache_root, unreadable_films
from cxr_core.data.cache.resize import resize
from cxr_core.data.cache.unfinished import Record, UnfinishedCache
from cxr_core.data.policy import Aspect
from cxr_core.data.source import DataError, Source
from cxr_core.full_disk import is_disk_full

log = logging.getLogger(__name__)

_UNREADABLE_SHARE = 0.01
"""Share of films that may be unreadable before the data set is refused."""
_NO_STAMP = "unreadable"
_SYSTEM_FAULT = "[Errno "
"""What Python writes before the reasons of the system, such as permission denied, and not before those of decoders."""
_AHEAD = 16
"""Films per core that are decoded ahead of the one to be written: they outlast a slow film or a slow disk."""
_BYTES_BESIDE = 1024
"""Disk space for a film's rows in journal and manifest, generously."""
_MIB = 2**20


class _Film(NamedTuple):
    """Pixels and their hash, or the reason why there are none."""

    pixels: np.ndarray | None
    hash: str | None
    reason: str | None


def build_cache(
    source: Source,
    images: Sequence[str],
    image_size: int,
    aspect: Aspect = "squash",
    root: Path | None = None,
    on_film: Callable[[int, int], None] | None = None,
) -> Path:
    """Read and resize films once; return the folder that holds them, at once if it exists.

    The folder's name tells kind, size and aspect, and is a hash of the films' names and stamps, in order. Labels and
    splits are not in it: give no test films for a search, and no trial can read them. It appears whole; of several
    processes one builds it and the others wait. A build that was interrupted is taken up where it stood, and films
    that another cache under `root` holds are copied (see `EarlierFilms`). A cache that lacks films because they could
    not be opened is made again once one of them can be.
    images: names of films of the source. on_film: called in this thread with the films dealt with and all films.
    Raises DataError if more than 1 % of the films cannot be read, or the cache cannot be written.
    """
    stamps = [_stamp(source, image) for image in images]
    key = hashlib.sha256(f"{FORMAT} {source.kind} {image_size} {aspect}".encode())
    for text in (text for film in zip(images, stamps, strict=True) for text in film):
        key.update(text.encode("utf-8", "surrogateescape") + b"\0")
    folder = (root or cache_root()) / f"{source.kind}-{image_size}px-{aspect}-{key.hexdigest()[:16]}"
    if _is_complete(source, folder):
        return folder
    versions = {name: importlib.metadata.version(name) for name in ("pillow", "numpy")}
    facts = CacheFacts(source.kind, image_size, aspect, len(images), FORMAT, **versions)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_builder(folder):
            if not _is_complete(source, folder):
                _build(source, list(zip(images, stamps, strict=True)), facts, folder, on_film or (lambda *_: None))
    except OSError as fault:
        if not is_disk_full(fault):
            raise DataError(
                f"{fault.filename or folder.parent}: {fault.strerror or fault}; films cannot be cached there. "
                "Set CXR_CACHE to a folder that you may write to"
            ) from None
        raise DataError(
            f"{folder.parent}: the disk is full ({fault.strerror}); the films decoded so far are kept. "
            "Free some space and start again, or set CXR_CACHE to a folder on a larger disk"
        ) from None
    return folder


def _is_complete(source: Source, folder: Path) -> bool:
    """Whether a cache is there, and lacks no film that the system would not hand over then but does now.

    After `chmod`, or when a share is back, a film has the same stamp as before.
    """
    if not folder.exists():
        return False
    listed = unreadable_films(folder)
    kept_back = listed.loc[listed["reason"].str.contains(_SYSTEM_FAULT, regex=False), "image"]
    return not any(_can_be_read(source, image) for image in kept_back)


def _can_be_read(source: Source, image: str) -> bool:
    try:
        source.read(image)
    except (OSError, ValueError):
        return False
    return True


def _stamp(source: Source, image: str) -> str:
    try:
        return source.stamp(image)
    except OSError:  # vanished since the table was read: it will be among the unreadable films
        return _NO_STAMP


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    lock = FileLock(f"{folder}.lock")  # the kernel releases it when its holder dies
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that builds %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(
    source: Source, wanted: list[tuple[str, str]], facts: CacheFacts, folder: Path, on_film: Callable[[int, int], None]
) -> None:
    def decode(image: str) -> _Film:
        film = earlier.get(image)
        return _decode(source, image, facts) if film is None else _Film(film, fingerprint(film), None)

    partial = UnfinishedCache(folder.with_name(f"{folder.name}.partial"), wanted, facts.image_size)
    with partial, closing(EarlierFilms(facts.image_size)) as earlier, _Decoders() as decoders:
        _check_disk(folder.parent, (len(wanted) - len(partial)) * (facts.image_size**2 + _BYTES_BESIDE))
        _retry_unreadable(partial, decoders, decode)
        _check_unreadable(partial.unreadable, len(wanted))
        rest = wanted[len(partial.records) :]
        stamps = {image: stamp for image, stamp in rest if stamp != _NO_STAMP}
        earlier.search(
            folder.parent, facts, stamps, lambda sample: (film.hash or "" for film in decoders.map(decode, sample))
        )
        on_film(len(partial.records), len(wanted))
        for (image, stamp), film in zip(rest, decoders.map(decode, [image for image, _ in rest]), strict=True):
            partial.append(Record(image, stamp, film.hash, film.reason), film.pixels)
            if film.reason is not None:
                log.warning("unreadable film, left out: %s (%s)", image, film.reason)
                _check_unreadable(partial.unreadable, len(wanted))
            on_film(len(partial.records), len(wanted))
        partial.finish(folder, facts)


def _decode(source: Source, image: str, facts: CacheFacts) -> _Film:
    try:
        film = resize(source.read(image), facts.image_size, facts.aspect)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:  # PIL's faults for broken files
        return _Film(None, None, f"{type(fault).__name__}: {fault}")
    return _Film(film, fingerprint(film), None)


class _Decoders:
    """A thread for each core that this process may use: decoding and resizing release the interpreter's lock."""

    def __init__(self) -> None:
        self._cores = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._cores, "decode")

    def __enter__(self) -> "_Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def map(self, decode: Callable[[str], _Film], images: Iterable[str]) -> Iterator[_Film]:
        """Films in the order of `images`, of which no more than 16 a core are in memory."""
        ahead: deque[Future[_Film]] = deque()
        for image in images:
            ahead.append(self._pool.submit(decode, image))
            if len(ahead) > _AHEAD * self._cores:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _retry_unreadable(partial: UnfinishedCache, decoders: _Decoders, decode: Callable[[str], _Film]) -> None:
    """Go back to the first film that an interrupted build could not read and that can be read now.

    A share that was away for a while would otherwise cost its films for good; what followed them was unreadable, too.
    """
    places = [place for place, record in enumerate(partial.records) if record.reason is not None]
    films = decoders.map(decode, [partial.records[place].image for place in places])
    for place, film in zip(places, films, strict=True):
        if film.reason is None:
            partial.keep(place)
            break


def _check_unreadable(unreadable: list[Record], total: int) -> None:
    if len(unreadable) > _UNREADABLE_SHARE * total:
        raise DataError(
            f"more than 1 % of {total:,} films cannot be read ({len(unreadable)} so far); the first is "
            f"{unreadable[0].image}: {unreadable[0].reason}. Repair or remove them"
        )


def _check_disk(root: Path, need: int) -> None:
    free = shutil.disk_usage(root).free
    if need > free:
        raise DataError(
            f"{root}: the film cache needs {-(-need // _MIB):,} MiB and {free // _MIB:,} MiB are free; "
            "free some space, or set CXR_CACHE to a folder on a larger disk"
        )
