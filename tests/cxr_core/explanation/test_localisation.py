"""The pointing game and the energy in boxes, on maps that are known."""

import math

import numpy as np
import pytest

from cxr_core.explanation.localisation import Located, brightest, in_words, localisation, locate

BOX = (10, 20, 30, 30)  # 200 of 1,600 pixels


def judged(heat: np.ndarray, *boxes: tuple[float, float, float, float], threshold: float = 0.5) -> Located:
    return locate(heat, boxes or (BOX,), "film.png", "7", "Mass", 0.7, threshold)


def spot(x: int, y: int) -> np.ndarray:
    heat = np.zeros((40, 40))
    heat[y, x] = 3.0
    return heat


def test_a_map_that_is_bright_in_the_box_alone_hits_it_and_has_all_energy_there() -> None:
    one = judged(spot(15, 25))
    assert (one.hit, one.energy, one.area, one.is_empty) == (True, 1.0, 200 / 1600, False)


def test_a_map_that_is_bright_elsewhere_misses_and_has_no_energy_there() -> None:
    one = judged(spot(35, 5))
    assert (one.hit, one.energy) == (False, 0.0)


def test_any_of_several_boxes_is_a_hit() -> None:
    assert judged(spot(35, 5), BOX, (34, 4, 37, 7)).hit


def test_a_map_without_places_has_the_energy_of_chance() -> None:
    one = judged(np.ones((40, 40)))
    assert one.energy == pytest.approx(one.area)


def test_energy_is_the_share_of_the_sum_inside() -> None:
    heat = spot(15, 25) + spot(0, 0) / 2
    assert judged(heat).energy == pytest.approx(2 / 3)


def test_an_empty_map_counts_as_a_miss() -> None:
    one = judged(np.zeros((40, 40)), (0, 0, 40, 40))
    assert (one.is_empty, one.hit, one.energy, one.area) == (True, False, 0.0, 1.0)


def test_the_centre_of_the_film_is_a_baseline() -> None:
    assert judged(spot(0, 0), (19, 19, 21, 21)).centre
    assert not judged(spot(0, 0), (0, 0, 19, 40)).centre


def test_the_brightest_of_a_plateau_is_its_middle() -> None:
    heat = np.zeros((40, 40))
    heat[10:15, 20:31] = 1
    assert brightest(heat) == (25.5, 12.5)


def test_whether_a_finding_was_called_is_told_unless_it_has_no_threshold() -> None:
    assert [judged(spot(0, 0), threshold=at).called for at in (0.7, 0.8, math.nan)] == [True, False, None]


def pair(hit: bool, patient: int, label: str = "Mass", called: bool = True, energy: float = 0.5) -> Located:
    return Located(f"{patient}.png", str(patient), label, 0.9, called, False, hit, energy, 0.1, patient % 2 == 0)


def test_rates_are_told_overall_for_called_ones_and_for_each_finding() -> None:
    located = [pair(True, 0), pair(True, 1), pair(False, 2, called=False), pair(False, 3, "Nodule")]
    told = localisation(located, ("Nodule", "Mass", "Hernia"))
    assert told["overall"]["pairs"] == 4
    assert told["overall"]["pointing"]["rate"] == 0.5
    assert told["called"]["pointing"]["hits"] == 2
    assert told["called"]["pairs"] == 3
    assert list(told["labels"]) == ["Nodule", "Mass"]
    assert told["labels"]["Mass"]["pointing"]["rate"] == pytest.approx(2 / 3)
    assert told["overall"]["pointing"]["chance"] == pytest.approx(0.1)
    assert told["overall"]["pointing"]["centre"] == 0.5
    assert [one["hit"] for one in told["pairs"]] == [True, True, False, False]


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (2, 7), (49, 49)])
def test_the_interval_of_a_hit_rate_is_wilsons(hits: int, count: int) -> None:
    """Wilson 1927, eq. 1, with z = 1.96."""
    rate = localisation([pair(row < hits, row) for row in range(count)], ("Mass",))["overall"]["pointing"]
    z, p = 1.959964, hits / count
    middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    assert (rate["low"], rate["high"]) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_the_interval_of_the_energy_is_over_patients_and_not_over_films() -> None:
    """40 patients with 10 films alike are as uncertain as 40 with one: sd / sqrt(40), within 15 %."""
    energies = np.random.default_rng(3).random(40)
    for films in (1, 10):
        located = [pair(True, patient, energy=energies[patient]) for patient in range(40) for _ in range(films)]
        energy = localisation(located, ("Mass",))["overall"]["energy"]
        expected = 2 * 1.96 * energies.std() / math.sqrt(40)
        assert energy["mean"] == pytest.approx(energies.mean())
        assert energy["high"] - energy["low"] == pytest.approx(expected, rel=0.15)


def test_one_patient_has_no_interval() -> None:
    energy = localisation([pair(True, 1), pair(False, 1)], ("Mass",))["overall"]["energy"]
    assert (energy["low"], energy["high"]) == (None, None)


@pytest.mark.parametrize(
    ("hits", "verdict"),
    [(90, "do better than both"), (50, "may do no better than these"), (3, "do worse than the better of these")],
)
def test_words_say_whether_hits_are_more_than_chance(hits: int, verdict: str) -> None:
    told = localisation([pair(row < hits, row) for row in range(100)], ("Mass",))["overall"]
    assert verdict in in_words(told)
    assert f"in {hits} of 100" in in_words(told)


def test_without_a_pair_there_is_nothing_to_say() -> None:
    assert in_words(localisation([], ("Mass",))["overall"]) == ""
