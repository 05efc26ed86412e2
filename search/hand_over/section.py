"""The report's section on what is handed over."""

import importlib.resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from search.hand_over.folder import handed_over


def section(study: Path) -> Markup:
    """The section of a study's page, empty while nothing is handed over; its links lead from the study's folder."""
    made = handed_over(study)
    if made is None:
        return Markup("")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = importlib.resources.files("search").joinpath("report_model_card.html.j2").read_text("utf-8")
    return Markup(environment.from_string(template).render(known=made.known, name=study.resolve().name))
