"""HTML pages that need nothing beside them: one look for all, and written whole or not at all."""

import importlib.resources
import os
from collections.abc import Callable, Mapping
from functools import partial as bound
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup


def write_html(
    path: Path, package: str, template: str, content: Mapping[str, Any], **filters: Callable[..., str]
) -> None:
    """Render a package's template, which may include others of it; a reader sees the old page or the new one.

    `page_css` is at its hand.
    """
    environment = Environment(
        loader=FunctionLoader(bound(_text, package)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    environment.globals["page_css"] = Markup(_text("cxr_core", "page.css"))
    page = environment.get_template(template).render(content)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    partial.write_text(page, encoding="utf-8", errors="replace")
    partial.replace(path)


def _text(package: str, name: str) -> str:
    return importlib.resources.files(package).joinpath(name).read_text(encoding="utf-8")
