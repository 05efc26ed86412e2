"""The figures by which policies are compared, on searches whose result is known in advance."""

import io

import numpy as np
import pytest
from rich.console import Console

from search.comparison import TOP1, TOP2, Comparison
from search.comparison_table import comparison_table, conclusion
from search.curve_table import Curve, CurveTable
from search.simulation import Trajectory

N = 200
BEST, SECOND, GOOD = 1.0, (N - 1) / N, (N - 3) / N
"""Of 200 trainings the two best are the top 1 %, the four best the top 2 %."""


@pytest.fixture
def table():
    """200 trainings of 10 seconds; the last one is the best."""
    curves = [Curve({"x": float(i), "epochs": 1}, ((i + 1) / N,), (10.0,)) for i in range(N)]
    return CurveTable("known", "accuracy", True, tuple(curves), {})


def ends(*pairs):
    seconds, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Trajectory(seconds, values)


def test_a_speed_up_is_the_ratio_of_median_times_to_the_top(table):
    slow = [ends((at, GOOD), (2 * at, SECOND)) for at in (80.0, 100.0, 120.0)]
    fast = [ends((at, GOOD), (at, SECOND)) for at in (30.0, 40.0, 50.0)]
    comparison = Comparison(table, {"random": slow, "ours": fast})
    assert comparison.speedup("ours", TOP1).value == 200.0 / 40.0
    assert comparison.speedup("ours", TOP2).value == 100.0 / 40.0
    assert comparison.speedup("random", TOP1).value == 1.0
    assert comparison.speedup("random", TOP1, over="ours").value == 40.0 / 200.0


def test_a_search_that_never_gets_there_is_missed_and_infinitely_slow(table):
    reached, never = ends((50.0, BEST)), ends((10.0, 0.5))
    found = {"random": [reached] * 4, "sometimes": [reached] * 3 + [never], "mostly": [reached] + [never] * 3}
    rows = {row.policy: row for row in Comparison(table, found).rows()}
    assert rows["sometimes"].top1_missed == 0.25
    assert rows["sometimes"].top1_speedup.value == 1.0
    assert rows["mostly"].top1_missed == 0.75
    assert rows["mostly"].top1_speedup.value == 0.0


def test_regret_is_what_the_best_so_far_lacks_at_a_time(table):
    one = ends((10.0, 0.4), (20.0, 0.3), (60.0, 0.9))
    comparison = Comparison(table, {"random": [one]})
    times = [0.9, 1.0, 2.5, 6.0]  # in mean training times, of 10 seconds
    assert comparison.regret([one], times)[0] == pytest.approx([np.inf, 0.6, 0.6, 0.1])
    assert {at: e.value for at, e in comparison.rows()[0].regret.items()} == pytest.approx({5: 0.6, 10: 0.1, 25: 0.1})


def test_regret_of_a_loss_counts_downwards(table):
    losses = CurveTable("known", "log_loss", False, table.curves, {})
    one = ends((10.0, 0.4), (20.0, 0.5), (30.0, 0.1))
    comparison = Comparison(losses, {"random": [one]})
    assert comparison.regret([one], [1, 2, 3])[0] == pytest.approx([0.4 - 1 / N, 0.4 - 1 / N, 0.1 - 1 / N])


def test_an_interval_covers_the_true_median_as_often_as_it_says(table):
    """95 % of 200 intervals: with fewer than 180, one run in 1,000 would fail by chance (binomial, sd 3.1)."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        searches = [ends((at, 1 - at / 100)) for at in rng.uniform(0, 40, 60)]
        estimate = Comparison(table, {"random": searches}).rows()[0].regret[25]
        covered += estimate.low <= 0.2 <= estimate.high
    assert covered >= 180


def spread(rng, median):
    return [ends((at, BEST)) for at in rng.uniform(0.5 * median, 1.5 * median, 60)]


def test_the_last_sentence_says_what_is_more_than_chance(table):
    rng = np.random.default_rng(0)
    random, ours, near = spread(rng, 100.0), spread(rng, 25.0), spread(rng, 26.0)
    said = conclusion(Comparison(table, {"random": random, "ours": ours, "near": near}))
    best, other = ("ours", "near") if said.startswith("ours") else ("near", "ours")
    assert said.startswith(f"{best} reaches the best 1 %")
    assert "times as fast as random search" in said
    assert "more than chance) and" in said
    assert f"as fast as {other}" in said
    assert "within noise)" in said


def test_the_last_sentence_admits_that_nothing_beats_random_search(table):
    rng = np.random.default_rng(0)
    said = conclusion(Comparison(table, {"random": spread(rng, 20.0), "ours": spread(rng, 200.0)}))
    assert said.startswith("No policy reaches the best 1 % sooner than random search; the nearest is ours (slower")


def test_the_last_sentence_tells_slower_from_never(table):
    rng = np.random.default_rng(0)
    random, never = spread(rng, 20.0), [ends()] * 60
    assert conclusion(Comparison(table, {"random": random, "ours": never})).endswith(
        "most searches of the others never get there."
    )
    assert conclusion(Comparison(table, {"random": never, "ours": never})).startswith("Neither random search nor")


def test_twice_the_workers_are_never_called_the_best_policy(table):
    rng = np.random.default_rng(0)
    found = {"random": spread(rng, 100.0), "random, twice the workers": spread(rng, 5.0), "ours": spread(rng, 50.0)}
    assert conclusion(Comparison(table, found)).startswith("ours reaches")


def test_the_table_shows_what_is_infinite_in_words(table):
    found = {"random": [ends((50.0, BEST))] * 3, "never": [ends()] * 3}
    page = Console(file=io.StringIO(), width=160)
    page.print(comparison_table(Comparison(table, found), seeds=3, workers=4))
    row = next(line for line in page.file.getvalue().splitlines() if "never" in line)
    assert "never (median)" in row
    assert "100.0% / 100.0%" in row
    assert "none in full yet" in row
