"""The report of a study: `report.html` for people and `report.json` for programs, from the study alone."""

from search.report.command import main
from search.report.page import write_report

__all__ = ["main", "write_report"]
