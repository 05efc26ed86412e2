"""The process's own memory: its peak, a limit that a user may set, and what a fault looks like when it runs out."""

import ctypes
import gc
import os
import re
import resource
import sys
from pathlib import Path

import torch

LIMIT = "CXR_MEMORY_LIMIT"
"""Environment variable: memory that one training may take beyond what its process held before, such as 8GiB."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")
# PyTorch has no class of its own for the host's memory; oneDNN says it in its own way.
_HOST_WORDS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a primitive",
    "could not create a memory object",
)


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether a fault says that the accelerator's or the process's memory ran out."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError | OSError) and any(word in str(fault) for word in _HOST_WORDS)


def release(device: torch.device | str = "cpu") -> None:
    """Give back to device and system what nobody holds any more."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def reset_peak() -> None:
    """Begin to measure the process's peak anew, where the system can."""
    if os.access(_PEAK_RESET, os.W_OK):
        _PEAK_RESET.write_text("5")


def peak() -> int:
    """Most bytes of its own that the process held since `reset_peak`; 0 where the system does not tell.

    Pages of files are not counted: films are read through mmap, and their pages are shared by all trainings of a node.
    """
    if not _STATUS.exists():
        return 0
    kib = dict(re.findall(r"^(VmHWM|RssAnon|RssFile):\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE))
    return 1024 * max(int(kib["RssAnon"]), int(kib["VmHWM"]) - int(kib["RssFile"]))


def parse_size(text: str) -> int:
    """Bytes from a size such as 8GiB, 800M or 1.5 GB (powers of 1024). Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])i?B?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise ValueError(f"must be a size such as 8GiB or 800MiB, not {text!r}")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def limit_process(size: int) -> None:
    """Let allocations fail once the process takes so many bytes more than now: a fault that can be caught, not a kill.

    Counted are private pages that can be written to, so neither films nor an accelerator's address space.
    """
    held = re.search(r"^VmData:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert held
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * int(held[1]) + size, hard))
