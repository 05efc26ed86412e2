"""The page of a data set: its figures are those of the films' table, and it keeps the test split sealed."""

import base64
import csv
import io
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_core.data import DataError, DataName, DataPolicy, PreparedData, Source, build_cache, prepare
from cxr_core.data.page import Axis, percent, write_page
from cxr_core.labels import CHESTXRAY14, NO_FINDING, Task

LABELS = ("Mass", "Nodule", "Hernia")
HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"
PARTS = ("train", "val", "test")


class Greys(Source):
    """Films of one grey each, by which a picture on the page tells whose it is."""

    kind = "greys"

    def __init__(self, greys: dict[str, int]):
        self.greys = greys

    def read(self, image: str) -> np.ndarray:
        return np.full((16, 16), self.greys[image], np.uint8)

    def stamp(self, image: str) -> str:
        return str(self.greys[image])


class Page(HTMLParser):
    """A page as a reader sees it: text by section (`""` is the first screen), cells by table, pictures by section."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {"": ""}
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: dict[str, list[tuple[dict[str, str | None], str]]] = {}
        self.figures: dict[str, list[str]] = {}
        self._section = self._table = self._figure = ""
        self._hidden = False
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        self._hidden = tag == "style" or (self._hidden and tag != "body")
        if tag == "section":
            self._section = named["id"] or ""
            self.sections[self._section] = ""
        elif tag == "table":
            self._table = named.get("id") or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag == "figure":
            self._figure = named.get("id") or ""
            self.figures[self._figure] = []
        elif tag == "img":
            self.pictures.setdefault(self._section, []).append((named, ""))
        if self._figure and "title" in named:
            self.figures[self._figure].append(named["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        words = " ".join(data.split())
        if self._hidden or not words:
            return
        self.sections[self._section] += words + " "
        if self._table and self.tables[self._table]:
            cell = self.tables[self._table][-1]
            cell[-1] = f"{cell[-1]} {words}".strip()
        if pictures := self.pictures.get(self._section):
            pictures[-1] = (pictures[-1][0], f"{pictures[-1][1]} {words}".strip())

    def table(self, name: str) -> dict[str, list[str]]:
        """Rows of a table by their first cell, without those that are empty for the eye."""
        return {row[0]: [cell for cell in row[1:] if cell] for row in self.tables[name]}


def grey_of(picture: dict[str, str | None]) -> int:
    content = base64.b64decode((picture["src"] or "").removeprefix("data:image/jpeg;base64,"))
    return round(float(np.asarray(Image.open(io.BytesIO(content))).mean()))


def some_films() -> pd.DataFrame:
    """Films of 90 patients, 1 to 5 each, with findings, views, sexes and ages that are not always known."""
    rng = np.random.default_rng(7)
    rows: list[dict[str, object]] = []
    for patient in range(90):
        part = "train" if patient < 60 else "val" if patient < 75 else "test"
        for number in range(int(rng.integers(1, 6))):
            findings = [float(rng.random() < share) for share in (0.3, 0.1)]
            rows.append(
                {"image": f"{part}_{patient}_{number}.png", "patient": f"{part}-{patient}", "split": part}
                | dict(zip(LABELS, [*findings, 0.0], strict=True))
                | {"view": rng.choice(["AP", "PA", None], p=[0.4, 0.5, 0.1])}
                | {"sex": rng.choice(["F", "M", None], p=[0.5, 0.4, 0.1])}
                | {"age": float(rng.integers(0, 96)) if rng.random() < 0.9 else np.nan}
            )
    films = pd.DataFrame(rows)
    films.loc[rng.random(len(films)) < 0.2, "Nodule"] = np.nan
    films.loc[[3, 40], "Hernia"] = 1.0  # in training films only
    films[NO_FINDING] = (films[list(LABELS)].fillna(0).sum(axis=1) == 0).astype(float)
    return films


def greys(films: pd.DataFrame) -> dict[str, int]:
    return {image: 37 * row % 256 for row, image in enumerate(films["image"])}


@dataclass
class Made:
    """Writes pages of films that were prepared by hand, in a folder that is empty but for them."""

    folder: Path
    caches: Path

    def prepared(self, films: pd.DataFrame | None = None, **changes: Any) -> PreparedData:
        films = some_films() if films is None else films
        sealed = films["split"] == "test"
        caches = [
            build_cache(Greys(greys(films)), films.loc[rows, "image"].tolist(), 16, root=self.caches)
            if rows.any()
            else None
            for rows in (~sealed, sealed)
        ]
        values = {
            "name": DataName("csv", "films.csv"),
            "policy": DataPolicy(image_size=16, blank="nan"),
            "seed": 0,
            "task": Task("multilabel", LABELS),
            "labels": (*LABELS, NO_FINDING),
            "films": films,
            "cache": caches[0],
            "test_cache": caches[1],
            "unreadable": pd.DataFrame({"image": [], "reason": []}),
            "missing": (),
            "copies": 0,
            "notes": (),
            "seconds": 1.0,
        }
        return PreparedData(**values | changes)

    def page(self, films: pd.DataFrame | None = None, **changes: Any) -> Page:
        write_page(self.prepared(films, **changes), self.folder / "page.html")
        return Page(self.folder / "page.html")


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def made(tmp_path: Path, caches: Path) -> Made:
    return Made(tmp_path, caches)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Page:
    """The page of `some_films`."""
    return Made(tmp_path_factory.mktemp("page"), caches).page()


def rows_of(part: str) -> list[dict[Any, Any]]:
    films = some_films().astype({"view": object, "sex": object})
    films[["view", "sex"]] = films[["view", "sex"]].where(films[["view", "sex"]].notna(), None)
    return [row for row in films.to_dict("records") if row["split"] == part]


def shares(counts: list[int], of: list[int]) -> list[str]:
    return [f"{count} {percent(count / total)}".replace("\xa0", " ") for count, total in zip(counts, of, strict=True)]


# Figures


def test_films_and_patients_of_each_split_are_counted(page: Page) -> None:
    table = page.table("splits")
    for part in PARTS:
        films, patients = len(rows_of(part)), len({row["patient"] for row in rows_of(part)})
        assert table[part] == [str(films), str(patients), f"{films / patients:.1f}"]


def test_a_label_is_counted_in_each_split(page: Page) -> None:
    positive = [sum(row["Mass"] == 1 for row in rows_of(part)) for part in PARTS]
    assert page.table("label-chart")["Mass"] == shares(positive, [len(rows_of(part)) for part in PARTS])


def test_a_share_is_of_the_films_whose_label_is_known(page: Page) -> None:
    expected = []
    for part in PARTS:
        known = [row["Nodule"] for row in rows_of(part) if not np.isnan(row["Nodule"])]
        assert len(known) < len(rows_of(part))
        expected.append(f"{known.count(1)} of {len(known)} {percent(known.count(1) / len(known))}".replace("\xa0", " "))
    assert page.table("label-chart")["Nodule"] == expected


def test_a_label_without_positives_in_a_split_is_pointed_out(page: Page) -> None:
    assert page.table("label-chart")["Hernia"][1:] == ["none", "none"]
    assert "No positives in val: Hernia." in page.sections[""]
    assert "No positives in train" not in page.sections[""]


def test_a_label_that_is_known_of_no_film_of_a_split_is_not_called_absent(made: Made) -> None:
    films = some_films()
    films.loc[films["split"] == "val", "Mass"] = np.nan
    assert made.page(films).table("label-chart")["Mass"][1] == "not labelled"


def test_labels_together_are_counted_over_training_and_validation_films(page: Page) -> None:
    rows = [row for row in some_films().to_dict("records") if row["split"] != "test"]
    masses = [row for row in rows if row["Mass"] == 1]
    told = [row for row in masses if not np.isnan(row["Nodule"])]
    both = [row for row in told if row["Nodule"] == 1]
    alone = [row for row in masses if row["Nodule"] != 1 and row["Hernia"] != 1]
    titles = [named.get("title") for tag, named in page.tags if tag == "td"]
    assert f"{len(both)} of {len(told)} films with Mass have Nodule" in titles
    cells = page.table("together-table")["Mass"]
    assert cells[:2] == [str(len(masses)), f"{100 * len(alone) / len(masses):.0f} %"]


@pytest.mark.parametrize(("column", "kinds"), [("view", ("AP", "PA")), ("sex", ("F", "M"))])
def test_views_and_sexes_are_counted_and_the_unknown_are_called_unknown(
    page: Page, column: str, kinds: tuple[str, str]
) -> None:
    table = page.table(f"{column}-chart")
    counted = [Counter(row[column] or "unknown" for row in rows_of(part)) for part in PARTS]
    for kind in (*kinds, "unknown"):
        assert table[kind] == shares([one[kind] for one in counted], [one.total() for one in counted])


def test_of_many_views_the_rare_ones_are_taken_together(made: Made) -> None:
    films = some_films()
    films["view"] = [f"view {row}" if row < 30 else "AP" for row in range(len(films))]
    table = made.page(films).table("view-chart")
    assert len(table) == 1 + 8 + 1
    assert table["other"][0].split()[0] == str(30 - 7)


def test_patients_are_counted_by_the_number_of_their_films(page: Page) -> None:
    table = page.table("films-a-patient-chart")
    bands = {"1": {1}, "2": {2}, "3-4": {3, 4}, "5-9": {5}}
    films = [Counter(row["patient"] for row in rows_of(part)) for part in PARTS]
    for name, numbers in bands.items():
        counts = [sum(count in numbers for count in patients.values()) for patients in films]
        assert table[name] == shares(counts, [len(patients) for patients in films])
    assert len(table) == 1 + len(bands)


def test_ages_are_counted_by_decade_and_sex(page: Page) -> None:
    bars = page.figures["ages-train"]
    for sex, (name, column) in enumerate((("women", "F"), ("men", "M"))):
        decades = Counter(row["age"] // 10 for row in rows_of("train") if row["sex"] == column and row["age"] >= 0)
        expected = [f"{decades[n]} {'film' if decades[n] == 1 else 'films'} of {name}" for n in range(10)]
        assert bars[sex::2] == expected


def test_films_without_age_or_sex_are_told_beside_the_ages(page: Page) -> None:
    rows = rows_of("train")
    ageless = sum(np.isnan(row["age"]) for row in rows)
    sexless = sum(row["sex"] is None and not np.isnan(row["age"]) for row in rows)
    said = page.sections["patients"]
    assert f"age of {ageless} films unknown" in said
    assert f"sex of {sexless} films unknown, not drawn" in said


def test_the_median_age_is_that_of_the_films(page: Page) -> None:
    median = np.nanmedian([row["age"] for row in rows_of("val")])
    assert f"median {median:.0f}," in page.sections["patients"].partition("val :")[2]


def test_ages_are_shown_where_sexes_are_not_known(made: Made) -> None:
    bars = made.page(some_films().drop(columns="sex")).figures["ages-test"]
    decades = Counter(row["age"] // 10 for row in rows_of("test") if row["age"] >= 0)
    assert [int(bar.split()[0]) for bar in bars] == [decades[n] for n in range(len(bars))]
    assert sum(decades.values()) == sum(int(bar.split()[0]) for bar in bars)


def test_an_age_that_no_one_reaches_has_a_line_of_its_own(made: Made) -> None:
    films = some_films()
    films.loc[0, ["age", "sex"]] = [412, "M"]
    page = made.page(films)
    assert "120 or more" in page.sections["patients"]
    assert page.figures["ages-train"][-1] == "1 film of men"
    assert "120 or more" not in made.page().sections["patients"]


def test_on_the_logarithmic_axis_equal_ratios_are_equal_distances() -> None:
    axis = Axis(0.001)
    assert [axis.place(share) for share in (0.001, 0.01, 0.1, 1)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert axis.ticks == pytest.approx([0.001, 0.01, 0.1, 1])


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.00204, "0.20 %"), (0.0312, "3.1 %"), (0.18249, "18.2 %"), (1, "100 %")]
)
def test_a_rare_finding_keeps_two_digits(share: float, text: str) -> None:
    assert percent(share).replace("\xa0", " ") == text


def test_what_was_left_out_is_counted_and_named_up_to_a_limit(made: Made) -> None:
    unreadable = pd.DataFrame({"image": [f"torn{n:03d}.png" for n in range(120)], "reason": "truncated"})
    missing = tuple(f"gone{n:02d}.png" for n in range(25))
    page = made.page(unreadable=unreadable, missing=missing, copies=7)
    assert "120 unreadable, 25 missing on disk, 7 identical" in page.sections[""]
    lost = page.sections["lost"]
    assert "torn099.png truncated" in lost
    assert "torn100.png" not in lost
    assert "gone19.png" in lost
    assert "gone20.png" not in lost


def test_the_page_says_how_the_data_were_made(made: Made) -> None:
    policy = DataPolicy(image_size=16, aspect="pad", split="random", folds=5, fold=2, uncertain="ones", blank="zero")
    prepared = made.prepared(policy=policy, notes=("Two rows were repeated",))
    write_page(prepared, made.folder / "page.html")
    said = Page(made.folder / "page.html").sections[""]
    for fact in ("padded with black", "drawn by patient: validation is fold 2 of the 5", "Two rows were repeated."):
        assert fact in said
    assert "Uncertain findings positive Findings not mentioned negative" in said
    assert prepared.facts["split_hash"] in said


def test_films_of_the_phantom_are_called_synthetic(made: Made) -> None:
    assert "Synthetic films." in made.page(name=DataName("phantom")).sections[""]
    assert "Synthetic" not in made.page().source


# Contact sheets


def test_each_picture_stands_above_its_own_findings_view_and_patient(page: Page) -> None:
    grey = greys(some_films())
    films = {row["image"]: row for row in rows_of("train")}
    for named, caption in page.pictures["sheet-train"]:
        film = films[named["alt"]]
        found = ", ".join(label for label in (*LABELS, NO_FINDING) if film[label] == 1)
        assert caption == f"{found} {' · '.join(filter(None, (film['view'], film['patient'])))}"
        assert abs(grey_of(named) - grey[named["alt"]]) <= 2


def test_a_sheet_has_48_films_or_all_there_are(made: Made) -> None:
    films = some_films()
    films = pd.concat([films[films["split"] == "train"], films[films["split"] == "val"][:9]], ignore_index=True)
    pictures = made.page(films).pictures
    assert len(pictures["sheet-train"]) == 48 < (films["split"] == "train").sum()
    assert len(pictures["sheet-val"]) == 9
    assert len({named["alt"] for named, _ in pictures["sheet-train"]}) == 48


@pytest.mark.parametrize("film", range(0, 150, 25))
def test_a_label_that_one_film_has_is_on_the_sheet(made: Made, film: int) -> None:
    films = some_films()
    assert films.loc[film, "split"] == "train"
    films["Hernia"] = (films.index == film).astype(float)
    shown = {named["alt"] for named, _ in made.page(films).pictures["sheet-train"]}
    assert films.loc[film, "image"] in shown


def test_the_test_sheet_holds_pictures_and_nothing_of_what_is_on_them(page: Page) -> None:
    pictures = page.pictures["sheet-test"]
    sealed = [greys(some_films())[row["image"]] for row in rows_of("test")]
    assert len(pictures) == min(48, len(rows_of("test")))
    for number, (named, caption) in enumerate(pictures, 1):
        assert named.keys() == {"src", "alt", "decoding"}
        assert named["alt"] == f"test film {number}"
        assert caption == ""
        assert min(abs(grey_of(named) - grey) for grey in sealed) <= 2
    assert not [label for label in (*LABELS, NO_FINDING) if label in page.sections["sheet-test"]]


def test_no_name_of_a_test_film_or_patient_is_on_the_page(page: Page) -> None:
    source = page.source
    assert not [row for row in rows_of("test") if row["image"] in source or row["patient"] in source]


def test_findings_do_not_choose_the_test_films_that_are_shown(made: Made) -> None:
    films = some_films()
    other = films.copy()
    sealed = films["split"] == "test"
    other.loc[sealed, list(LABELS)] = 1 - films.loc[sealed, list(LABELS)].fillna(0)
    sheets = [[named["src"] for named, _ in made.page(table).pictures["sheet-test"]] for table in (films, other)]
    assert sheets[0] == sheets[1]


def test_the_same_films_give_the_same_page(made: Made) -> None:
    assert made.page().source == made.page().source


# The file


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    for tag, named in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href"):
            assert (named.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "http" not in page.source
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_every_entry_of_the_contents_leads_somewhere(made: Made) -> None:
    for page in (made.page(), made.page(some_films().query("split != 'test'"), missing=("gone.png",))):
        targets = {named["href"] for tag, named in page.tags if tag == "a"}
        assert targets == {f"#{section}" for section in page.sections if section}


def test_names_from_a_table_are_shown_and_never_run(made: Made) -> None:
    films = some_films().rename(columns={"Mass": HOSTILE})
    films["patient"] += HOSTILE
    films["image"] += HOSTILE
    films["view"] = HOSTILE
    labels = (HOSTILE, *LABELS[1:])
    page = made.page(
        films,
        task=Task("multilabel", labels),
        labels=(*labels, NO_FINDING),
        name=DataName("csv", HOSTILE),
        unreadable=pd.DataFrame({"image": [HOSTILE], "reason": [HOSTILE]}),
        missing=(HOSTILE,),
        notes=(HOSTILE,),
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [named for _, named in page.tags if "onerror" in named]
    assert HOSTILE in page.table("label-chart")
    assert page.table("view-chart")[HOSTILE]


def test_a_data_set_may_tell_nothing_but_one_label(made: Made) -> None:
    films = some_films()[["image", "split", "Mass"]]
    films["patient"] = films["image"]
    page = made.page(films, task=Task("binary", ("Mass",)), labels=("Mass",))
    assert "together" not in page.sections
    assert not {"view-chart", "sex-chart", "films-a-patient-chart"} & set(page.tables)
    assert "does not tell view or sex or age" in page.sections["patients"]
    assert "binary: Mass against the rest" in page.sections[""]


def test_columns_without_a_value_are_like_absent_ones(made: Made) -> None:
    page = made.page(some_films().assign(view=None, sex=None, age=np.nan))
    assert "does not tell view or sex or age" in page.sections["patients"]


def test_a_data_set_may_have_no_test_split(made: Made) -> None:
    page = made.page(some_films().query("split != 'test'").reset_index(drop=True))
    assert "sheet-test" not in page.sections
    assert page.tables["label-chart"][0][-2:] == ["train", "val"]


def test_a_page_that_fails_leaves_the_earlier_one_as_it_was(made: Made) -> None:
    made.caches = made.folder / "caches"  # one of its own, to be damaged
    prepared, path = made.prepared(), made.folder / "page.html"
    write_page(prepared, path)
    before = path.read_bytes()
    (prepared.cache / "manifest.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        write_page(prepared, path)
    assert path.read_bytes() == before
    assert {entry.name for entry in made.folder.iterdir()} == {"page.html", "caches"}


# Real films


def test_the_page_of_real_films_counts_as_the_published_table(made: Made, real_data: Path) -> None:
    folder = real_data / "nih_mini"
    prepared = prepare(DataName("nih", str(folder)), DataPolicy(image_size=32), root=made.folder)
    write_page(prepared, made.folder / "page.html")
    page = Page(made.folder / "page.html")
    test = set((folder / "test_list.txt").read_text().split())
    with (folder / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Image Index"] in test]
    for label in CHESTXRAY14:
        positive = sum(label in row["Finding Labels"].split("|") for row in rows)
        assert page.table("label-chart")[label][2] == shares([positive], [len(rows)])[0]
    views = Counter(row["View Position"] for row in rows)
    assert page.table("view-chart")["AP"][2] == shares([views["AP"]], [len(rows)])[0]
    assert (made.folder / "page.html").stat().st_size < 600_000
