"""Times as people write them: 90s, 10m, 8h, 2d, 1h30m, and 2026-11-22 06:40 UTC."""

import re
from datetime import UTC, datetime

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds of a text such as `10m` or `1h30m`. Raises ValueError if it is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ValueError(f"{text!r} is no length of time; write 90s, 10m, 8h or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """A length of time in at most two units, such as `1h 30m` or `45s`."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size in sorted(_SECONDS.items(), key=lambda item: -item[1]):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def format_date(at: float, seconds: bool = False) -> str:
    """A moment (s since 1970) in UTC: what is written may be read anywhere."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M{':%S' if seconds else ''}} UTC"
