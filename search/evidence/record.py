"""`evidence.json` as a study keeps it, for the report and other programs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr_core.json_file import write_json

_NAME = "evidence.json"
_FORMAT = 4
"""Of the file; evidence of another format is gathered again."""


def read_evidence(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The evidence that a study keeps; None if there is none, or if it is not of this record of its finals."""
    path = folder / _NAME
    evidence: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return evidence if evidence.get("of") == _fingerprint(record) else None


def keep_evidence(folder: Path, record: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Write evidence down as that of a record; a reader sees the old file or the new one, and None where undefined."""
    write_json(folder / _NAME, {"of": _fingerprint(record), **evidence})


def _fingerprint(record: Mapping[str, Any]) -> str:
    """Of what was delivered, and how it came to that; the study's folder may move."""
    about = {key: value for key, value in record.items() if key != "study"}
    return hashlib.sha256(json.dumps([_FORMAT, about], sort_keys=True).encode()).hexdigest()[:16]
