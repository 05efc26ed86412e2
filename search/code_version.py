"""Which version of this program runs: the package's, and the commit of its checkout."""

import importlib.metadata
import subprocess
import tomllib
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]


def code_version(checkout: Path = _CHECKOUT) -> dict[str, Any]:
    """The package's `version`, and of a checkout its `commit`, and whether files were `changed` since; else None."""
    commit = _git(checkout, "rev-parse", "HEAD") if (checkout / ".git").exists() else None
    changed = bool(_git(checkout, "status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"version": _package_version(checkout), "commit": commit, "changed": changed}


def _package_version(checkout: Path) -> str | None:
    # `make environment` installs what this package needs, not the package: its version is then in the checkout alone.
    try:
        return importlib.metadata.version("cxr-search")
    except importlib.metadata.PackageNotFoundError:
        project = checkout / "pyproject.toml"
        return tomllib.loads(project.read_text("utf-8"))["project"]["version"] if project.exists() else None


def _git(checkout: Path, *command: str) -> str | None:
    """What git says, without the newline; None if it fails or is not installed."""
    try:
        said = subprocess.run(["git", "-C", str(checkout), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
