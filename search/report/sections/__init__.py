"""The sections of the report, in groups and in their order.

A section is one function that gives its template what to show, one template beside this file, `NAME.html.j2`, and one
line in GROUPS. The function is asked with what was read of the study; it returns None where the page has no such
section. Templates begin with their `<h2>`, and know what the function returned and what `page.common` lists.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from search.report.reading import Reading
from search.report.sections import ensemble, evidence, explanation, finals, hand_over, search, study


@dataclass(frozen=True)
class Section:
    """name: of its template, and the target of links to it. title: in the list of contents."""

    name: str
    title: str
    content: Callable[[Reading], dict[str, Any] | None]


GROUPS: dict[str, tuple[Section, ...]] = {
    "What was found": (
        Section("winner", "Winner", finals.winner),
        Section("finalists", "Finalists", finals.finalists),
        Section("ensemble", "Ensemble", ensemble.ensemble),
        Section("refit", "Refit", ensemble.refit),
        Section("model", "Hand-over", hand_over.model),
    ),
    "How good it is": (
        Section("performance", "Performance on test", evidence.performance),
        Section("operating_points", "Operating points", evidence.operating_points),
        Section("calibration", "Calibration", evidence.calibration),
        Section("confusion", "Confusion", evidence.confusion),
    ),
    "How far to trust it": (
        Section("groups", "Sex, age and view", evidence.groups),
        Section("shortcuts", "Without the film", evidence.shortcuts),
        Section("explanation", "Where it looks", explanation.explanation),
        Section("seeds", "Seeds", finals.seeds),
    ),
    "The search": (
        Section("leaderboard", "Leaderboard", search.leaderboard),
        Section("front", "Pareto front", search.front),
        Section("constraints", "Constraints", search.constraints),
        Section("curves", "Learning curves", search.curves),
        Section("history", "History", search.history),
        Section("importance", "Importance", search.importance),
        Section("parallel", "Parallel coordinates", search.parallel),
        Section("families", "Families", search.families),
    ),
    "The record": (
        Section("data", "Data", study.data),
        Section("paid", "What it cost", study.paid),
        Section("pruning", "Pruning", study.pruning),
        Section("failures", "Failures", study.failed),
        Section("decisions", "Decisions", study.decisions),
        Section("reproduce", "Reproduce", study.reproduce),
    ),
}
"""By the heading under which the list of contents has them."""
