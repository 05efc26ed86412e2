"""A film cache in the making, which outlives the process that makes it."""

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_core.data.cache.folder import FACTS, MANIFEST, PIXELS, UNREADABLE, CacheFacts

_JOURNAL = "journal.jsonl"
_HEADER = 128
"""Bytes kept free for the .npy header, which is written when the number of films is known."""
_COMMIT_EVERY = 1.0
"""Seconds of work that a kill may cost: flushing takes about a hundredth of it."""


class Record(NamedTuple):
    """A film that is dealt with: `pixels` is the hash of what was cached, or `reason` says why nothing was."""

    image: str
    stamp: str
    pixels: str | None
    reason: str | None


class UnfinishedCache:
    """Pixels in their final file, and a journal of the films they belong to that is never ahead of them on disk.

    wanted: image and stamp of all films, in order. records: those dealt with, a beginning of them; unreadable: those
    of them that have no pixels. What an earlier process left in the folder is taken over as far as its journal is
    whole and agrees with `wanted`.
    To be used by one process at a time, as a context: what was appended is kept when the context fails.
    """

    def __init__(self, folder: Path, wanted: Sequence[tuple[str, str]], image_size: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._image_size = folder, image_size
        self._pixels = os.open(folder / PIXELS, os.O_RDWR | os.O_CREAT, 0o666)
        self._journal = os.open(folder / _JOURNAL, os.O_RDWR | os.O_CREAT, 0o666)
        self.unreadable: list[Record] = []
        self.records = self._recorded(wanted)
        self.keep(len(self.records))

    def __len__(self) -> int:
        """Films whose pixels are in the file."""
        return len(self.records) - len(self.unreadable)

    def __enter__(self) -> "UnfinishedCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is not None:
                with contextlib.suppress(OSError):  # a full disk may lack room for the records of the last second
                    os.ftruncate(self._pixels, self._end)
                    self._commit()
        finally:
            os.close(self._pixels)
            os.close(self._journal)

    def keep(self, count: int) -> None:
        """Forget all records but the first `count`, and their pixels."""
        self.records = self.records[:count]
        self.unreadable = [record for record in self.records if record.pixels is None]
        self._journaled, self._journal_end = count, sum(len(_line(record)) for record in self.records)
        self._committed = time.monotonic()
        os.ftruncate(self._journal, self._journal_end)
        os.ftruncate(self._pixels, self._end)

    def append(self, record: Record, film: np.ndarray | None) -> None:
        """Add the next of the wanted films; None if it is unreadable. Raises OSError if the disk is full."""
        if film is not None:
            _write(self._pixels, film.tobytes(), self._end)
        else:
            self.unreadable.append(record)
        self.records.append(record)
        if time.monotonic() - self._committed > _COMMIT_EVERY:
            self._commit()

    def finish(self, folder: Path, facts: CacheFacts) -> None:
        """Turn this folder into the finished cache `folder`, which appears whole, in place of an older one.

        The number of films is filled in.
        """
        shape = (len(self), self._image_size, self._image_size)
        _write(self._pixels, _npy_header(shape), 0)
        self._commit()
        table = pd.DataFrame(self.records, columns=Record._fields)
        manifest = table[table["pixels"].notna()].drop(columns="reason").astype("str")
        unreadable = pd.DataFrame(self.unreadable, columns=Record._fields)[["image", "reason"]]
        self._write_file(MANIFEST, manifest.to_parquet(index=False))
        self._write_file(UNREADABLE, unreadable.to_csv(index=False).encode())
        self._write_file(FACTS, json.dumps(asdict(replace(facts, films=len(self))), indent=1).encode())
        _flush_folder(self.folder)
        lapsed = folder.with_name(f"{folder.name}.lapsed")
        if folder.exists():  # those who have it open keep it
            shutil.rmtree(lapsed, ignore_errors=True)
            folder.rename(lapsed)
        self.folder.rename(folder)
        shutil.rmtree(lapsed, ignore_errors=True)
        _flush_folder(folder.parent)
        (folder / _JOURNAL).unlink(missing_ok=True)

    @property
    def _end(self) -> int:
        return _HEADER + len(self) * self._image_size**2

    def _recorded(self, wanted: Sequence[tuple[str, str]]) -> list[Record]:
        records: list[Record] = []
        films = (os.fstat(self._pixels).st_size - _HEADER) // self._image_size**2
        journal = (self.folder / _JOURNAL).read_bytes()
        for line, film in zip(journal.splitlines(keepends=True), wanted, strict=False):
            try:
                record = Record(*json.loads(line))
            except (ValueError, TypeError):  # torn by the end of its writer
                break
            films -= record.pixels is not None
            if line != _line(record) or (record.image, record.stamp) != film or films < 0:
                break
            records.append(record)
        return records

    def _commit(self) -> None:
        """Put the pixels on the disk, and only then the records that vouch for them."""
        os.fdatasync(self._pixels)
        lines = b"".join(map(_line, self.records[self._journaled :]))
        _write(self._journal, lines, self._journal_end)
        os.fdatasync(self._journal)
        self._journaled, self._journal_end = len(self.records), self._journal_end + len(lines)
        self._committed = time.monotonic()

    def _write_file(self, name: str, content: bytes) -> None:
        with (self.folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _write(file: int, content: bytes, position: int) -> None:
    rest = memoryview(content)
    while rest:  # a disk that is nearly full takes a part
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    if len(header.getvalue()) != _HEADER:
        raise RuntimeError(f"numpy's header takes {len(header.getvalue())} bytes instead of {_HEADER}")
    return header.getvalue()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
