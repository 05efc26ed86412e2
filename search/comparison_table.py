"""A comparison of policies as a person reads it: a table, and what follows from it in one sentence."""

import math

from rich.table import Table

from search.comparison import HORIZONS, TOP1, Comparison, Estimate


def comparison_table(comparison: Comparison, seeds: int, workers: int) -> Table:
    """A row a policy; intervals are 95 %, by bootstrap over the seeds."""
    metric = comparison.table.metric
    grid = Table(
        title=f"{comparison.table.name}: {seeds} searches a policy, {workers} workers (95 % intervals over seeds)",
        caption=(
            "Times faster: how much sooner than random search the median search has fully trained one of the best 1 % "
            "(2 %).\nMissed: searches that never do, though they use up the table. "
            f"Regret: {metric} of the\nbest so far behind the best of all, after so many mean training times."
        ),
        caption_justify="left",
        title_justify="left",
    )
    grid.add_column("policy")
    for head in ("times faster\nto top 1 %", "times faster\nto top 2 %", "missed\n1 % / 2 %"):
        grid.add_column(head, justify="right")
    for at in HORIZONS:
        grid.add_column(f"regret at {at}", justify="right")
    for row in comparison.rows():
        missed = f"{row.top1_missed:.1%} / {row.top2_missed:.1%}"
        regret = [_regret(row.regret[at]) for at in HORIZONS]
        grid.add_row(row.policy, speedup(row.top1_speedup), speedup(row.top2_speedup), missed, *regret)
    return grid


def speedup(estimate: Estimate) -> str:
    """Times faster, with its interval; 1 is the reference itself."""
    if math.isnan(estimate.value):
        return "undefined"
    if not estimate.value:
        return "never (median)"
    if estimate.low == estimate.high == 1.0:
        return "1"
    spread = f" ({estimate.low:.1f}-{estimate.high:.1f})" if estimate.low != estimate.high else ""
    return f"{estimate.value:.2f}{spread}"


def _regret(estimate: Estimate) -> str:
    if math.isinf(estimate.value):
        return "none in full yet"
    # an upper end that is infinite: in some resamples most searches had no full training yet
    high = "..." if math.isinf(estimate.high) else f"{estimate.high:.2g}"
    return f"{estimate.value:.2g} ({estimate.low:.2g}-{high})"


def conclusion(comparison: Comparison) -> str:
    """Which policy is best, by how much, and whether that is more than chance."""
    reference, *others = comparison.policies
    fair = [name for name in others if "twice" not in name]
    if not fair:
        return f"Only {reference} search ran: name another policy with --policy."
    speedups = {name: comparison.speedup(name, TOP1) for name in fair}
    best = max(fair, key=lambda name: -math.inf if math.isnan(speedups[name].value) else speedups[name].value)
    gain = speedups[best]
    if math.isnan(gain.value):
        return "Neither random search nor another policy mostly reaches the best 1 %."
    if not gain.value:
        return "No policy reaches the best 1 % sooner than random search: most searches of the others never get there."
    if gain.value <= 1:
        within = "within noise of it" if gain.high >= 1 else "slower by more than chance"
        return f"No policy reaches the best 1 % sooner than random search; the nearest is {best} ({within})."
    sure = "more than chance" if gain.low > 1 else "within noise"
    said = f"{best} reaches the best 1 % {gain.value:.1f} times as fast as random search"
    said += f" ({gain.low:.1f}-{gain.high:.1f}, {sure})"
    rivals = [name for name in fair if name != best]
    if rivals:
        second = max(rivals, key=lambda name: -math.inf if math.isnan(speedups[name].value) else speedups[name].value)
        said += f" and {_ahead(comparison.speedup(best, TOP1, over=second), second)}"
    return f"{said}; {_missed(comparison, best)}."


def _ahead(ahead: Estimate, second: str) -> str:
    if math.isinf(ahead.value):
        return f"{second}, the next, mostly never gets there"
    high = "..." if math.isinf(ahead.high) else f"{ahead.high:.1f}"
    chance = "more than chance" if ahead.low > 1 else "within noise"
    return f"{ahead.value:.1f} times as fast as {second} ({ahead.low:.1f}-{high}, {chance})"


def _missed(comparison: Comparison, name: str) -> str:
    missed = next(row.top1_missed for row in comparison.rows() if row.policy == name)
    return f"{missed:.1%} of its searches never get there" if missed else "no search of it fails to get there"
