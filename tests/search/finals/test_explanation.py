"""The explanation of the training that is handed over, and what the report shows of it."""

import base64
import io
import json
import logging
import re

import pytest
from PIL import Image

from search.finalize import main
from search.finals.explanation import explain_delivered, explanation_folder, read_explanation
from search.report import write_report
from tests.search.conftest import SPACE
from tests.search.small_study import new_study, train


@pytest.fixture(scope="module")
def finalized(tmp_path_factory):
    """A study of two finalists after its finals."""
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(folder / "cache"))
        patch.setattr("cxr_core.console.show_log", lambda *packages: None)  # a handler would outlive this test
        from search.space import load_space

        (folder / "space.yaml").write_text(SPACE)
        study = new_study(folder, load_space(folder / "space.yaml", []))
        for seed in (0, 1):
            train(study, seed)
        assert main([str(study.folder), "--seeds", "1", "--json"]) == 0
        yield study


def files(study):
    return {path.name: path.stat().st_mtime_ns for path in explanation_folder(study.folder).iterdir()}


def test_the_finals_leave_an_explanation_of_what_is_handed_over_on_test_films(finalized):
    told = read_explanation(finalized.folder)
    final = json.loads((finalized.folder / "finalists.json").read_text())
    assert told["training"] == final["delivered"]
    assert (told["split"], told["films"]) == ("test", 80)
    assert {of["picture"] for of in told["labels"].values()} <= set(files(finalized))


def test_its_counts_are_those_of_the_kept_test_scores(finalized):
    told = read_explanation(finalized.folder)
    truth = finalized.arrays["test_labels"][:, 0] == 1
    found = told["labels"]["Pneumonia"]
    assert found["true positives"] + found["false negatives"] == truth.sum()
    assert found["films"] == 80


def test_the_finals_given_again_leave_it_as_it_is(finalized, capsys):
    before = files(finalized)
    assert main([str(finalized.folder), "--seeds", "1"]) == 0
    assert files(finalized) == before


def test_another_training_that_is_handed_over_is_explained_anew(finalized):
    delivered = read_explanation(finalized.folder)["training"]
    before = files(finalized)
    explain_delivered(finalized, finalized.space, 1 - delivered, "cpu")
    assert read_explanation(finalized.folder)["training"] == 1 - delivered
    explain_delivered(finalized, finalized.space, delivered, "cpu")
    assert read_explanation(finalized.folder)["training"] == delivered
    assert files(finalized).keys() == before.keys()
    assert all(when > before[name] for name, when in files(finalized).items())


def test_where_films_have_gone_the_finals_stand_and_the_reason_is_logged(finalized, caplog):
    delivered = read_explanation(finalized.folder)["training"]
    films = finalized.folder.parent.parent / "pneumoniamnist.npz"
    films.rename(films.with_suffix(".away"))
    try:
        with caplog.at_level(logging.WARNING, "search"):
            explain_delivered(finalized, finalized.space, 1 - delivered, "cpu")
    finally:
        films.with_suffix(".away").rename(films)
    assert "no explanation of trial" in caplog.text
    assert "pneumoniamnist.npz" in caplog.text
    assert read_explanation(finalized.folder)["training"] == delivered


def test_the_report_shows_the_panels_within_the_page(finalized):
    page = write_report(finalized).read_text()
    section = page[page.index('<section id="explanation">') :].partition("</section>")[0]
    assert '<a href="#explanation">' in page
    told = read_explanation(finalized.folder)
    assert told["randomised"]["sentence"].partition(":")[0] in section
    assert "None of these films has a box" in section
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', section)
    assert len(pictures) == len(files(finalized)) - 1
    for picture in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(picture))).width <= 1280
    assert len(section) < 2e6


def test_a_report_before_the_finals_has_no_such_section(tmp_path, make_study):
    page = write_report(make_study()).read_text()
    assert "#explanation" not in page
    assert '<section id="explanation">' not in page


def test_rates_of_boxes_are_a_table_of_the_report(finalized):
    """As films with boxes would have left them."""
    from cxr_core.explanation.localisation import Located, in_words, localisation

    path = explanation_folder(finalized.folder) / "explanation.json"
    kept = path.read_text()
    pairs = [Located(f"{n}.png", str(n), "Pneumonia", 0.9, True, False, n < 3, 0.4, 0.1, False) for n in range(5)]
    found = localisation(pairs, ("Pneumonia",))
    found |= {"films_with_boxes": 9, "films_taken": 5, "sentence": in_words(found["overall"])}
    try:
        path.write_text(json.dumps({**json.loads(kept), "localisation": found}))
        page = write_report(finalized).read_text()
    finally:
        path.write_text(kept)
    section = page[page.index('<section id="explanation">') :].partition("</section>")[0]
    assert "5 of 9 test films with boxes" in section
    row = re.search(r"<td>Pneumonia</td>(.*?)</tr>", section, re.S)[1]
    cells = [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.S)]
    assert cells[:2] == ["5", "3"]
    assert cells[2].startswith("60 % [")
    assert cells[3:5] == ["10 %", "0 %"]
