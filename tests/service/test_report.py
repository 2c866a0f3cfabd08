"""The report over real runs: differences are marked and stay text, the S-curve shows the chosen point."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from catalog.database import Catalog
from catalog.store import Store
from curation.dedup.curve import curve
from service.report import render_report, shown_differences
from tests.workers.building import clean_dataset
from workers import manifests

WORDS = "we waited at the counter of the big shop downtown for more than two hours and nobody came to help"
KEPT = f"<script>alert(1)</script> & <b onclick=x()>bold</b> {WORDS}"
REMOVED = f"<script>steal(2)</script> & <b onclick=x()>bold</b> {WORDS[:-8]}"
NEAR = "near: {threshold: 0.6, bands: 40, rows: 4}"


def report(catalog: Catalog, folder: Path, bodies: list[str], near: str = NEAR) -> str:
    recipe = f"name: small\nrules: {{}}\n{near}\nencoder: hashing\n"
    clean_dataset(catalog, folder, [{"body": body, "queue": "a"} for body in bodies], recipe)
    with catalog.read() as session:
        return render_report(session, Store.of(catalog.settings), manifests.find_dataset(session, "tickets"))


class Cells(HTMLParser):
    """Text of every cell of a page, with the kind of each marked part of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[list[tuple[str, str]]] = []
        self.kind = ""
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append([])
            self.in_cell = True
        if tag in ("mark", "del"):
            self.kind = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("mark", "del"):
            self.kind = ""
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.cells[-1].append((data, self.kind))


def test_marked_differences_are_text_whatever_is_in_them(database: Catalog, tmp_path: Path) -> None:
    page = report(database, tmp_path, [KEPT, REMOVED, "배송이 늦어서 환불을 요청합니다 빨리 부탁드려요"])
    assert "<mark>steal</mark>(<del>1</del><mark>2</mark>)&lt;/script&gt; &amp; &lt;b onclick=x()&gt;" in page
    assert "<del> to help</del>" in page
    found = Cells(page)
    assert not found.tags & {"script", "b", "img"}
    (cell,) = [one for one in found.cells if ("steal", "mark") in one]
    assert "".join(text for text, kind in cell if kind != "del") == REMOVED
    assert [cell for cell in found.cells if cell == [(KEPT, "")]]


def test_a_whole_tag_that_only_one_text_has_stays_text(database: Catalog, tmp_path: Path) -> None:
    page = report(database, tmp_path, [f"{WORDS} <img src=x onerror=alert(1)> again", WORDS])
    assert "<del> &lt;img src=x onerror=alert(1)&gt; again</del>" in page
    assert "img" not in Cells(page).tags


def test_s_curve_shows_the_banding_and_the_chosen_point(database: Catalog, tmp_path: Path) -> None:
    page = report(database, tmp_path, [KEPT, REMOVED])
    found = 100 * (1 - (1 - 0.6**4) ** 40)
    assert f"<title>threshold 0.6: {found:.1f}% found: 0.6 similarity, {found / 100:.3f}</title>" in page
    # The curve is a line through the same point, too fine for a dot at each.
    lines = [points.split() for points in re.findall(r'<polyline[^>]* points="([^"]+)"', page)]
    (line,) = [points for points in lines if len(points) == len(curve(40, 4))]
    assert [points[-1] for points in lines if len(points) == 2] == [line[30]]
    assert "<title>40 bands of 4 rows" not in page
    text = unescape(re.sub(r"<[^>]+>", "", page))
    assert f"40 bands of 4 rows find {found:.1f} % of pairs with a Jaccard similarity of 0.6, the threshold" in text


def test_report_without_near_duplicates_has_no_curve(database: Catalog, tmp_path: Path) -> None:
    page = report(database, tmp_path, [WORDS, WORDS.upper()], near="near: null")
    assert "What the banding finds" not in page
    assert "<strong>1</strong> record left in favour of:" in page
    assert "<mark>" not in page.split("<strong>1</strong>")[1].split("</details>")[0]


def test_more_members_than_are_shown_are_counted(database: Catalog, tmp_path: Path) -> None:
    page = report(database, tmp_path, [f"{WORDS} {'!' * number}" for number in range(9)])
    assert "<strong>8</strong> records left in favour of:" in page
    assert "and 3 more, at least as near as these" in page


@pytest.mark.parametrize("length", [500, 3_000])
def test_difference_is_shown_wherever_it_is(length: int) -> None:
    text = " ".join(f"word{number}" for number in range(length))
    assert ("other77", "own") in shown_differences(text, text.replace("word77 ", "other77 "))


def test_what_comes_before_does_not_make_the_end_look_different() -> None:
    text = " ".join(f"word{number}" for number in range(300))
    runs = shown_differences(f"Dear all, good morning. {text}", text)
    assert [run for run in runs if run[1] != "shared"] == [("Dear all, good morning. ", "missing")]
    assert runs[-1][0].endswith("…")


@pytest.mark.parametrize("text", ["a" * 5_000, "啊" * 5_000, "a b " * 2_000])
def test_long_equal_texts_are_cut_and_not_marked(text: str) -> None:
    assert shown_differences(text, text) == [(text[:400] + "…", "shared")]
