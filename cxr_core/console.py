"""Where a program's messages and progress go: stderr, so that stdout holds the answer alone."""

import io
import logging
import os
import sys

from rich.console import Console
from rich.logging import RichHandler

console = Console(stderr=True)
"""Shared by log, bars and tables, so that messages appear above what is drawn."""


def show_log(*packages: str, level: int = logging.INFO) -> None:
    """Send these packages' messages to the console; called once, by the entry point."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%X")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for package in packages:
        logging.getLogger(package).addHandler(handler)
        logging.getLogger(package).setLevel(level)


def answer(text: str) -> bool:
    """Print a line of the program's answer; False if its reader, such as `| head`, has seen enough.

    Raises OSError if it cannot be printed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file's name may be no text
    try:
        print(text, flush=True)
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end of the process
        if isinstance(fault, BrokenPipeError):
            return False
        raise
    return True


def refuse(message: str, code: int) -> int:
    """Say what is wrong, and what to do, as it is; returns the exit code that a command then ends with."""
    print(message, file=sys.stderr)
    return code
