"""Pixels of DICOM files in lossless JPEG and JPEG-LS, which only gdcm decodes, in processes of their own.

Damaged files make gdcm abort, or write beyond its memory; in the process of a run it would take the run along. Its
decoders also hold the interpreter's lock, so that threads alone would wait for each other.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from threading import Timer
from typing import Any

import numpy as np

_PATIENCE = 60  # seconds; a film of 16 million pixels takes one

_idle: list[subprocess.Popen[bytes]] = []


class _BrokeDown(OSError):
    pass


def decode(path: str) -> np.ndarray:
    """Stored values of the only frame of a DICOM file. May be called from many threads at once.

    Raises OSError or ValueError, with the reason, if gdcm cannot decode it.
    """
    answer = None
    with contextlib.suppress(IndexError, _BrokeDown):  # perhaps not on this film: an earlier one may have harmed it
        answer, pixels = _ask(_idle.pop(), path)
    if answer is None:
        answer, pixels = _ask(_start(), path)
    if "fault" in answer:
        raise ValueError(answer["fault"])
    return np.frombuffer(pixels, answer["dtype"]).reshape(answer["shape"])


def _start() -> subprocess.Popen[bytes]:
    # -P: without it, a folder that is named like a module would be taken for it.
    command = [sys.executable, "-P", __file__]
    # In a group of its own, Ctrl-C does not reach it: what is being read then is not damaged.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)


def _ask(process: subprocess.Popen[bytes], path: str) -> tuple[dict[str, Any], bytes]:
    """The process's answer and its pixels; the process is idle afterwards, or gone."""
    watchdog = Timer(_PATIENCE, process.kill)
    watchdog.start()
    try:
        answer = _exchange(process, path)
    except (OSError, EOFError):
        _end(process)
        status = process.returncode
        reason = "no answer in time, or too little memory" if status == -signal.SIGKILL else "the file is damaged"
        raise _BrokeDown(f"gdcm broke down on it (status {status}): {reason}") from None
    except BaseException:  # such as Ctrl-C: the answer would be taken for that to the next question
        process.kill()
        _end(process)
        raise
    finally:
        watchdog.cancel()
    _idle.append(process)
    return answer


def _exchange(process: subprocess.Popen[bytes], path: str) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(os.path.abspath(path)).encode() + b"\n")
    process.stdin.flush()
    head = process.stdout.readline()
    if not head.endswith(b"\n"):
        raise EOFError
    answer = json.loads(head)
    pixels = process.stdout.read(answer["bytes"])
    if len(pixels) < answer["bytes"]:
        raise EOFError
    return answer, pixels


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError), process:  # closes its input, at which it ends
        pass
    process.wait()


@atexit.register
def _end_idle() -> None:
    while _idle:
        _end(_idle.pop())


# A forked process must not ask the decoders of its parent.
os.register_at_fork(after_in_child=_idle.clear)


def _serve() -> None:
    """Answer each path on stdin, a JSON string a line, with a line of JSON and the pixels that it announces."""
    import gdcm
    import pydicom

    for silence in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        silence()
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):  # the codecs write what they think into both
        os.dup2(nowhere, output)
    for line in sys.stdin.buffer:
        try:
            header = pydicom.dcmread(json.loads(line), force=True)
            header.pixel_array_options(index=0, decoding_plugin="gdcm")
            frame = header.pixel_array
            pixels, answer = frame.tobytes(), {"dtype": frame.dtype.str, "shape": frame.shape}
        except Exception as fault:
            pixels, answer = b"", {"fault": f"{type(fault).__name__}: {fault}"}
        answers.write(json.dumps({**answer, "bytes": len(pixels)}).encode() + b"\n" + pixels)
        answers.flush()


if __name__ == "__main__":
    _serve()
