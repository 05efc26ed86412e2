"""The report as a page: every section from its template, in groups, behind a first screen and a list of contents."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.offline
from markupsafe import Markup

from cxr_core.html_page import Templates, write_page
from cxr_core.json_file import write_json
from search.durations import format_duration
from search.overview import figure
from search.report.first_screen import RESEARCH_ONLY, headline, key_figures, warnings
from search.report.machine import describe
from search.report.names import title
from search.report.reading import Reading
from search.report.sections import GROUPS, Section
from search.study import Study


@dataclass(frozen=True)
class _Group:
    """Sections that stand under one heading of the list of contents, with their HTML."""

    title: str
    sections: list[tuple[Section, Markup]]


def write_report(study: Study) -> Path:
    """Write `report.html` and `report.json` into a study's folder, from the study alone, and return the page's path.

    Each is written whole: a reader sees the old one or the new one.
    """
    path, reading = study.folder / "report.html", Reading(study)
    templates = Templates("search.report", duration=format_duration, figure=figure)
    groups = list(_groups(reading, templates))
    content = {
        **common(reading),
        "headline": [said for said in headline(reading) if said not in warnings(reading)],
        "warnings": warnings(reading),
        "key_figures": key_figures(reading),
        "research_only": RESEARCH_ONLY,
        "groups": groups,
        "plotly_js": Markup(plotly.offline.get_plotlyjs()),
    }
    write_json(study.folder / "report.json", describe(reading))
    write_page(path, templates.render("page.html.j2", content))
    return path


def common(reading: Reading) -> dict[str, Any]:
    """What every template knows.

    study, trials, facts, header (of the space), best (the winner), metrics and metric (the objectives' names), title
    (of a trial), stages and first_rung (of the rungs), folds (of a trial).
    """
    names = ("study", "trials", "facts", "header", "best", "metrics", "metric", "stages", "first_rung", "folds")
    return {**{name: getattr(reading, name) for name in names}, "title": title}


def _groups(reading: Reading, templates: Templates) -> Iterator[_Group]:
    known = common(reading)
    for heading, sections in GROUPS.items():
        asked = [(section, section.content(reading)) for section in sections]
        told = [
            (section, templates.render(f"sections/{section.name}.html.j2", {**known, **content}))
            for section, content in asked
            if content is not None
        ]
        if told:
            yield _Group(heading, told)
