"""The page of a study after its finals, in a reader's eyes and in a program's, without a browser."""

import importlib.resources
import json
import re
import shutil

import pytest

from search.finals.record import read_record
from search.report.machine import describe
from search.report.reading import Reading
from search.report.sections import GROUPS
from search.study import Study
from tests.search.report_page import Page

SECTIONS = [section for group in GROUPS.values() for section in group]


@pytest.fixture(scope="module")
def page(finalized):
    return Page(finalized)


@pytest.fixture(scope="module")
def told(finalized, page):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((finalized.folder / "report.json").read_text(), parse_constant=refuse)


def links(page):
    return [attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and attrs["href"].startswith("#")]


def test_the_list_of_contents_has_every_section_once_in_the_order_of_the_page(page):
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert links(page) == sections
    assert len(set(sections)) == len(sections)
    assert not [name for name in links(page) if name not in sections]


def test_the_list_of_contents_is_in_groups_with_headings(page):
    for heading in GROUPS:
        assert heading in page.first_screen


def test_a_page_after_the_finals_lacks_only_what_the_study_does_not_have(page):
    absent = [section.name for section in SECTIONS if section.name not in page.sections]
    assert absent == ["refit", "seeds", "front", "constraints"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_section_is_one_template_that_begins_with_its_heading(section):
    folder = importlib.resources.files("search.report") / "sections"
    text = (folder / f"{section.name}.html.j2").read_text()
    assert re.match(r"(\{%[^%]*%\}\n)?\s*<h2>", text)


def test_no_template_is_left_over():
    folder = importlib.resources.files("search.report") / "sections"
    names = {entry.name.removesuffix(".html.j2") for entry in folder.iterdir() if entry.name.endswith(".j2")}
    assert names == {section.name for section in SECTIONS}


def test_every_section_has_its_figure_or_table(page):
    for name in ("performance", "operating_points", "calibration", "confusion", "groups", "shortcuts"):
        inside = page.source.split(f'<section id="{name}">')[1].split("</section>")[0]
        assert "<table>" in inside, name
        drawn = inside.count("Plotly.newPlot(")
        expected = {
            "performance": 2,
            "operating_points": 0,
            "calibration": 3,
            "confusion": 0,
            "groups": 1,
            "shortcuts": 1,
        }
        assert drawn == expected[name]


def test_the_first_screen_says_what_was_found_and_how_sure_it_is(page, finalized):
    first, record = page.first_screen, read_record(finalized.folder)
    assert "Best of 2 finalists on validation: trial" in first
    assert "95 % interval" in first
    assert record["sentence"] in first
    assert "Optimism gap" in first
    assert f"Handed over is training {record['delivered']}: test macro AUROC over 2 of 3 findings" in first
    assert "Age, sex and view alone, without the film, reach" in first
    assert "The test split was opened once." in first
    assert "Research only" in first
    for warning in record["warnings"]:
        assert warning in first
    assert first.index("Best of 2 finalists") < first.index("Trials")


def test_figures_of_the_evidence_stand_in_their_sections(page, told):
    evidence = told["evidence"]
    area = evidence["discrimination"]["auroc"]["labels"]["Mass"]
    assert f"{area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]" in page["performance"]
    assert "Hernia undefined (no film has it)" in page["performance"]
    for point in evidence["operating_points"].values():
        sensitivity = point["sensitivity"]["labels"]["Mass"]
        assert (
            f"{sensitivity['value']:.3f} [{sensitivity['low']:.3f}, {sensitivity['high']:.3f}]"
            in page["operating_points"]
        )
    for group in evidence["groups"]["groups"]:
        assert f"{group['kind']}: {group['name']} {group['films']} {group['patients']}" in page["groups"]
    counts = evidence["operating_points"]["youden"]["labels"]["Mass"]
    assert f"has it {counts['tp']} {counts['fn']} has it not {counts['fp']} {counts['tn']}" in page["confusion"]
    assert "3 x 3" in page["confusion"]
    assert page["confusion"].count("4 x 4") == 2


def test_a_study_whose_evidence_is_of_other_finals_shows_none(finalized, tmp_path):
    folder = shutil.copytree(finalized.folder, tmp_path / "copy")
    record = read_record(folder)
    (folder / "finalists.json").write_text(json.dumps({**record, "delivered": 1 - record["delivered"]}))
    page = Page(Study(folder))
    assert not {"performance", "explanation", "model"} & set(page.sections)
    assert "Handed over" not in page.first_screen
    assert json.loads((folder / "report.json").read_text())["evidence"] is None


def test_finals_and_ensemble_are_told_by_their_own_metric(finalized, tmp_path):
    """An objective over folds or under stress is of no single training: its plain metric is what they are judged by."""
    folder = shutil.copytree(finalized.folder, tmp_path / "copy")
    for name in ("finalists", "ensemble"):
        record = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps({**record, "metric": "auprc_macro"}))
    page = Page(Study(folder))
    assert "Values are macro AUPRC of the best full trials" in page["finalists"]
    assert "by macro AUPRC of the mean of their probabilities" in page["ensemble"]


# For machines


def test_the_json_has_what_the_page_says(told, page, finalized):
    assert told["finalists"] == read_record(finalized.folder)
    assert told["evidence"] == json.loads((finalized.folder / "evidence.json").read_text())
    assert told["opened"] == len(told["openings"]) == 1
    for sentence in told["headline"]:
        assert sentence in page.first_screen
    assert [str(row["trial"]) for row in told["leaderboard"]] == page.column("trial")
    assert told["winner"]["trial"] == told["finalists"]["winner"]
    assert sum(share["trials"] for share in told["costs"]["shares"]) == 2
    assert told["failures"] == []


def test_every_key_of_the_json_is_documented(told):
    documented = set(re.findall(r"`(\w+)`", describe.__doc__))
    assert set(told) <= documented
    assert set(told["leaderboard"][0]) <= documented


def test_a_study_without_any_trial_has_a_json(make_study):
    study = make_study()
    Page(study)
    told = json.loads((study.folder / "report.json").read_text())
    assert told["winner"] is None
    assert told["finalists"] is None
    assert told["leaderboard"] == []
    assert "no winner" in told["headline"][0]
    assert describe(Reading(study))["study"] == study.name
