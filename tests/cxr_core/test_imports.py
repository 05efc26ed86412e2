"""Who may know what inside the core, and what the core may not know."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cxr_core
from cxr_core.data import readers
from cxr_core.models import models

CORE = Path(cxr_core.__file__).parent
MODULES = {
    ".".join(("cxr_core", *path.relative_to(CORE).with_suffix("").parts)): path for path in sorted(CORE.rglob("*.py"))
}
FAMILIES = {family.function.__module__ for family in models.values()}
COMPONENTS = FAMILIES | {
    f"cxr_core.{kind}" for kind in ("losses", "samplers", "schedules", "optimizers", "augmentations")
}
READERS = {reader.function.__module__ for reader in readers.values()}


def imported(module: str) -> set[str]:
    """Modules, and names of modules, that a module's source imports."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Top-level modules that a process has loaded after importing the core."""
    command = "import cxr_core.train, cxr_core.data, cxr_core.evaluate, sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", command], cwd=CORE.parent, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in answer.stdout.split()}


@pytest.mark.parametrize("package", ["ray", "optuna", "mlflow", "pydantic", "ruamel", "search"])
def test_the_core_runs_without_the_search(loaded: set[str], package: str) -> None:
    assert "torch" in loaded
    assert package not in loaded


def test_timm_is_imported_only_when_one_of_its_networks_is_built(loaded: set[str]) -> None:
    assert "timm" not in loaded


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_the_core_imports_the_search(module: str) -> None:
    assert not {name for name in imported(module) if name.partition(".")[0] in ("search", "ray", "optuna", "mlflow")}


@pytest.mark.parametrize("module", sorted(COMPONENTS))
def test_a_component_imports_no_sibling(module: str) -> None:
    assert not imported(module) & (COMPONENTS - {module})


@pytest.mark.parametrize("module", sorted(READERS))
def test_a_reader_imports_no_other_reader(module: str) -> None:
    assert not imported(module) & (READERS - {module})


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("evaluate", "train"), ("metrics", "train"), ("metrics", "evaluate"), ("checkpoint", "train"), ("ema", "train")],
)
def test_imports_point_from_training_to_metrics(lower: str, upper: str) -> None:
    assert f"cxr_core.{upper}" not in imported(f"cxr_core.{lower}")
