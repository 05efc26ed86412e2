"""What the built-in data set promises: the same invented patients everywhere, whose signs can be seen and learnt."""

import pickle
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from cxr_core.data.data_sets.phantom import PATIENTS, Phantom, Visit, draw, patient
from cxr_core.data.data_sets.phantom_chest import SIDE, Box, Exposure, Film
from cxr_core.data.data_sets.phantom_signs import SIGNS
from cxr_core.data.source import DataError, DataName
from cxr_core.labels import CHESTXRAY14

LABELS = list(CHESTXRAY14)
CHESTXRAY14_POSITIVES = dict(
    zip(LABELS, [11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227], strict=True)
)
THREE_CENTIMETRES = 3 / 40 * SIDE  # a film is about 40 cm wide


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom()


def films_with(finding: str, patients: int) -> Iterator[Visit]:
    return (Visit(index, 0, "PA", {finding: 0}) for index in range(patients))


def without_signs(visit: Visit) -> np.ndarray:
    return draw(Visit(visit.patient, visit.number, visit.view, {}))[0]


def inside(boxes: list[tuple[str, Box]]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    for _, (x, y, width, height) in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


# The table


def test_two_phantoms_have_the_same_films_and_labels(phantom: Phantom) -> None:
    pd.testing.assert_frame_equal(phantom.films, Phantom().films)


def test_each_film_has_a_name_of_its_own(phantom: Phantom) -> None:
    assert phantom.films["image"].is_unique


def test_no_patient_is_in_both_official_splits(phantom: Phantom) -> None:
    assert (phantom.films.groupby("patient")["split"].nunique() == 1).all()


def test_a_fifth_of_the_patients_is_in_the_test_split(phantom: Phantom) -> None:
    by_patient = phantom.films.groupby("patient")["split"].first()
    assert len(by_patient) == PATIENTS
    assert (by_patient == "test").mean() == pytest.approx(0.2)


def test_a_patient_keeps_sex_and_age(phantom: Phantom) -> None:
    assert (phantom.films.groupby("patient")[["sex", "age"]].nunique() == 1).all(axis=None)


def test_every_label_has_at_least_40_positives(phantom: Phantom) -> None:
    assert phantom.films[LABELS].sum().min() >= 40


def test_every_label_has_positives_in_the_test_split(phantom: Phantom) -> None:
    assert phantom.films.query("split == 'test'")[LABELS].sum().min() >= 10


def test_labels_are_as_frequent_as_in_chestxray14_in_rank(phantom: Phantom) -> None:
    positives = phantom.films[LABELS].sum()
    assert spearmanr(positives, [CHESTXRAY14_POSITIVES[label] for label in LABELS]).statistic > 0.85
    assert positives.idxmax() == "Infiltration"
    assert positives.idxmin() == "Hernia"


def test_about_half_of_the_films_have_no_finding(phantom: Phantom) -> None:
    assert 0.4 < (phantom.films[LABELS].sum(axis=1) == 0).mean() < 0.6


@pytest.mark.parametrize(
    ("finding", "companion"),
    [
        ("Effusion", "Atelectasis"),
        ("Edema", "Cardiomegaly"),
        ("Emphysema", "Pneumothorax"),
        ("Pneumonia", "Infiltration"),
    ],
)
def test_a_finding_brings_its_companion_more_often_than_other_findings_do(
    phantom: Phantom, finding: str, companion: str
) -> None:
    sick = phantom.films[phantom.films[LABELS].sum(axis=1) > 0]
    present = sick[finding] == 1
    assert sick.loc[present, companion].mean() > 1.4 * sick.loc[~present, companion].mean()


def test_a_finding_often_persists_on_the_next_film(phantom: Phantom) -> None:
    films = phantom.films.sort_values("image")
    before = films.groupby("patient")[LABELS].shift()
    assert films[LABELS][before == 1].stack().mean() > 3 * films[LABELS][before == 0].stack().mean()


def test_sick_patients_more_often_have_ap_films(phantom: Phantom) -> None:
    sick = phantom.films[LABELS].sum(axis=1) > 0
    lying = phantom.films["view"] == "AP"
    assert lying[sick].mean() > 1.5 * lying[~sick].mean()


# The films


def test_a_film_does_not_depend_on_the_films_read_before_it(phantom: Phantom) -> None:
    some = list(phantom.films["image"][:200:20])
    forwards = {image: phantom.read(image) for image in some}
    other = Phantom()
    for image in reversed(some):
        np.testing.assert_array_equal(other.read(image), forwards[image])


def test_a_pickled_phantom_reads_the_same_film(phantom: Phantom) -> None:
    image = phantom.films["image"].iloc[-1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(phantom)).read(image), phantom.read(image))


def test_a_film_is_a_grey_8_bit_square(phantom: Phantom) -> None:
    film = phantom.read(phantom.films["image"].iloc[0])
    assert (film.shape, film.dtype) == ((SIDE, SIDE), np.uint8)


def test_films_of_one_patient_differ(phantom: Phantom) -> None:
    first, second = (draw(Visit(7, number, "PA", {}))[0] for number in (0, 1))
    assert (first != second).mean() > 0.5


def test_a_patients_films_resemble_each_other_more_than_those_of_others() -> None:
    first, second = (
        np.stack([draw(Visit(index, number, "PA", {}))[0].ravel() for index in range(40)]) for number in (0, 1)
    )
    likeness = np.corrcoef(first, second)[:40, 40:]
    closer_than_most = likeness.diagonal() > np.median(likeness, axis=1)
    assert closer_than_most.mean() > 0.75  # 0.5 if the anatomy were drawn anew for each film, standard error 0.08


def test_an_unknown_film_cannot_be_read(phantom: Phantom) -> None:
    with pytest.raises(ValueError, match="no film '9999_00'"):
        phantom.read("9999_00")


def test_the_built_in_data_set_refuses_a_path() -> None:
    with pytest.raises(DataError, match="no path"):
        DataName.parse("phantom:somewhere").open()


# The signs


def test_every_finding_has_a_sign() -> None:
    assert set(SIGNS) == set(CHESTXRAY14)


@pytest.mark.parametrize("finding", LABELS)
def test_a_sign_changes_the_film_inside_its_boxes_more_than_outside(finding: str) -> None:
    for visit in films_with(finding, patients=10):
        film, boxes = draw(visit)
        change = np.abs(film.astype(float) - without_signs(visit))
        assert change[inside(boxes)].mean() > 2 * change[~inside(boxes)].mean()


@pytest.mark.parametrize("finding", ["Nodule", "Mass", "Consolidation"])
def test_a_finding_that_persists_stays_in_its_place(finding: str) -> None:
    for index in range(10):
        (_, before), (_, after) = (draw(Visit(index, number, "PA", {finding: 0}))[1][0] for number in (0, 1))
        assert np.hypot(before.x - after.x, before.y - after.y) < 40  # the patient stands and breathes differently


def test_a_nodule_is_smaller_than_three_centimetres_and_a_mass_is_larger() -> None:
    sizes = {
        finding: [max(box.width, box.height) for visit in films_with(finding, 40) for _, box in draw(visit)[1]]
        for finding in ("Nodule", "Mass")
    }
    assert max(sizes["Nodule"]) < THREE_CENTIMETRES
    assert min(sizes["Mass"]) > THREE_CENTIMETRES


def test_cardiomegaly_is_a_heart_wider_than_half_of_the_rib_cage() -> None:
    for index in range(20):
        film = Film(patient(index).chest, Exposure(gain=1.5, noise=2, zoom=1, tilt=0, dx=0, dy=0))
        assert cardiothoracic_ratio(film) == pytest.approx(film.chest.ctr, abs=0.02)
        SIGNS["Cardiomegaly"](film, np.random.default_rng(index))
        assert cardiothoracic_ratio(film) > 0.49


def cardiothoracic_ratio(film: Film) -> float:
    """Measured as on a film: widest extent of the heart over the widest extent of the rib cage's inside."""
    return float(np.ptp(np.flatnonzero((film.heart > 0).any(0))) / np.ptp(np.flatnonzero((film.thorax > 0).any(0))))


def test_boxes_lie_inside_the_film(phantom: Phantom) -> None:
    boxes = phantom.boxes
    assert (boxes[["x", "y"]] >= 0).all(axis=None)
    assert (boxes[["width", "height"]] > 0).all(axis=None)
    assert (boxes["x"] + boxes["width"] <= SIDE).all()
    assert (boxes["y"] + boxes["height"] <= SIDE).all()


def test_only_positive_labels_have_boxes(phantom: Phantom) -> None:
    labels = phantom.films.set_index("image")[LABELS].stack()
    assert (labels.loc[list(zip(phantom.boxes["image"], phantom.boxes["label"], strict=True))] == 1).all()


def test_all_but_about_3_percent_of_the_positive_labels_have_a_sign(phantom: Phantom) -> None:
    positives = phantom.films[LABELS].sum().sum()
    assert 0.95 < len(phantom.boxes[["image", "label"]].drop_duplicates()) / positives < 0.99


def test_a_linear_model_of_thumbnails_beats_chance_on_new_patients(phantom: Phantom) -> None:
    thumbnails = np.stack(
        [phantom.read(image).reshape(32, 8, 32, 8).mean(axis=(1, 3)).ravel() for image in phantom.films["image"]]
    )
    targets, test = phantom.films[LABELS].to_numpy(), (phantom.films["split"] == "test").to_numpy()
    model = Ridge(alpha=1e6).fit(thumbnails[~test], targets[~test])
    auroc = roc_auc_score(targets[test], model.predict(thumbnails[test]), average=None)
    assert auroc.mean() > 0.65
