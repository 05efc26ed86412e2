"""Where a program's messages and progress go: stderr, so that stdout holds the answer alone."""

import logging

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
