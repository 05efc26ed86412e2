"""The figures of a finalists' record in words, for the terminal and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.finals.record import winner_row


def headline(record: Mapping[str, Any], winner: str, metric: str) -> list[str]:
    """Who won the finals, and how sure that is, in sentences; winner and metric: as a reader knows them."""
    row = winner_row(record)
    test, seeds, count = row["test"], len(row["trainings"]), len(record["finalists"])
    bounds = "unknown" if test["low"] is None else f"{in_words(test['low'])} to {in_words(test['high'])}"
    over = f", the mean of {seeds} seeds" if seeds > 1 else ""
    who = f"trial {winner}, test {metric} {in_words(test['mean'])} (95 % interval {bounds}){over}."
    how = "Chosen among" if record.get("tie") else "Best of"
    first = f"{how} {count} finalists on validation: {who}" if count > 1 else f"The only finalist: {who}"
    return [first, record["sentence"], *record["warnings"], optimism(record)]


def in_words(value: float | None, signed: bool = False) -> str:
    """A figure of a record with four decimals, or what stands for one that is undefined."""
    if value is None:
        return "-"
    return f"{value:+z.4f}" if signed else f"{value:z.4f}"


def reached(side: Mapping[str, Any]) -> str:
    """Mean, spread and interval of a finalist on one split."""
    spread = "" if side["sd"] is None else f" ± {in_words(side['sd'])}"
    bounds = "" if side["low"] is None else f" [{in_words(side['low'])}, {in_words(side['high'])}]"
    return f"{in_words(side['mean'])}{spread}{bounds}"


def differs(difference: Mapping[str, Any]) -> str:
    """A difference, its interval, and whether it is noise."""
    low, high = in_words(difference["low"], signed=True), in_words(difference["high"], signed=True)
    verdict = ", within noise" if difference["is_noise"] else ""
    return f"{in_words(difference['value'], signed=True)} [{low}, {high}]{verdict}"


def p_value(difference: Mapping[str, Any]) -> str:
    """The corrected p of a difference."""
    p = difference["p_holm"]
    return "-" if p is None else f"{p:.3f}"


def optimism(record: Mapping[str, Any]) -> str:
    """How much lower the winner came out on test than on validation."""
    if record["gap"]["value"] is None:
        return f"No finding has a {record['metric']} on both splits, so the winner's optimism is unknown."
    return f"Optimism gap of the winner (how much worse test is than validation): {gap(record['gap'])}."


def gap(told: Mapping[str, Any]) -> str:
    """An optimism gap, its interval, and over which findings it is, if not over all."""
    low, high = in_words(told["low"], signed=True), in_words(told["high"], signed=True)
    of = f", over the {told['labels']} findings of {told['of_labels']} that both splits define"
    return f"{in_words(told['value'], signed=True)} [{low}, {high}]{of if told['labels'] < told['of_labels'] else ''}"


def ranking(record: Mapping[str, Any]) -> str:
    """How well validation ranked the finalists; empty where there are too few to tell."""
    told = record["ranking"]
    if told["spearman"] is None:
        return ""
    said = f"Spearman {told['spearman']:.2f}, Kendall {told['kendall']:.2f}"
    return f"Validation ranked the {len(record['finalists'])} finalists as test does with a correlation of: {said}."


def averaged(record: Mapping[str, Any]) -> str:
    """Over how many findings the means are, where a metric is undefined for some; empty where it is not."""
    sides = [(name, films) for name, films in record["films"].items() if films["labels"] < films["of_labels"]]
    said = " and ".join(f"{films['labels']} of {films['of_labels']} findings on {name}" for name, films in sides)
    return f"Means are over {said}; the others are undefined there, as their films are all alike." if said else ""


def opened(openings: Sequence[Mapping[str, Any]]) -> str:
    """How often the test split was opened."""
    if not openings:
        return "The test split has not been opened."
    return f"The test split was opened {'once' if len(openings) == 1 else f'{len(openings)} times'}."
