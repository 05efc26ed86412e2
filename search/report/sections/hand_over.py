"""The section on what is handed over."""

from typing import Any

from search.hand_over.folder import handed_over
from search.report.reading import Reading


def model(reading: Reading) -> dict[str, Any] | None:
    """Where the network is, how well its exported form agrees with it, and how to use it; None of earlier finals."""
    made = handed_over(reading.study.folder)
    if not made or not reading.finals or made.known["trial"] != reading.finals["delivered"]:
        return None
    return {"known": made.known, "name": reading.study.folder.resolve().name}
