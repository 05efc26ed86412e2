"""JSON files that any program can read: no NaN, and written whole or not at all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object; a reader sees the old file or the new one."""
    text = json.dumps(strict(content), indent=1, allow_nan=False) + "\n"
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def strict(content: Any) -> Any:
    """The same as JSON takes it: None in place of NaN and infinity, lists in place of tuples and arrays."""
    if isinstance(content, Mapping):
        return {str(key): strict(value) for key, value in content.items()}
    if isinstance(content, np.ndarray | np.generic):
        return strict(content.tolist())
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    return content
