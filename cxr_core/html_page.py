"""HTML pages that need nothing beside them: one look for all, and written whole or not at all."""

import importlib.resources
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup


class Templates:
    """A package's templates, which may import and include each other by their paths in it, and have `page_css`."""

    def __init__(self, package: str, **filters: Callable[..., str]):
        self._environment = Environment(
            loader=FunctionLoader(lambda name: _text(package, name)),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(filters)
        self._environment.globals["page_css"] = Markup(_text("cxr_core", "page.css"))

    def render(self, template: str, content: Mapping[str, Any]) -> Markup:
        """A template with its content, as a part of a page or a whole one."""
        return Markup(self._environment.get_template(template).render(content))


def write_html(
    path: Path, package: str, template: str, content: Mapping[str, Any], **filters: Callable[..., str]
) -> None:
    """Render a package's template; a reader sees the old page or the new one."""
    write_page(path, Templates(package, **filters).render(template, content))


def write_page(path: Path, page: str) -> None:
    """Write a page that is rendered; a reader sees the old page or the new one."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    partial.write_text(page, encoding="utf-8", errors="replace")
    partial.replace(path)


def _text(package: str, name: str) -> str:
    return importlib.resources.files(package).joinpath(name).read_text(encoding="utf-8")
