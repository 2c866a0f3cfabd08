"""``winnow train`` and ``winnow report``: measured models, and the page that shows everything."""

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.cli import corpus
from tests.cli.command import Done
from tests.cli.conftest import Prepared


@pytest.fixture(scope="module")
def trained(prepared: Prepared) -> dict[str, Any]:
    recipe = prepared.folder / "quick.yaml"
    recipe.write_text(corpus.TRAIN_RECIPE)
    answer: dict[str, Any] = prepared.winnow.ok("train", "tickets", "--recipe", recipe)
    return answer


@pytest.fixture(scope="module")
def printed(prepared: Prepared, trained: dict[str, Any]) -> Done:
    """The same command again, for people."""
    return prepared.winnow("train", "tickets", "--recipe", prepared.folder / "quick.yaml")


def test_each_variant_is_measured_and_the_arm_compared_with_random_order(trained: dict[str, Any]) -> None:
    measured = {(one["arm"], one["variant"]): one for one in trained["variants"]}
    assert set(measured) == {("small", "none"), ("small", "int8"), ("small-random", "none")}
    assert trained["classes"] == sorted(corpus.WORDS)
    assert 40 <= trained["test"] <= 110
    for one in measured.values():
        assert 0 <= one["accuracy"] <= 1
        assert min(one["latency_ms"], one["flops"], one["size_bytes"]) > 0
    assert measured["small", "int8"]["size_bytes"] < measured["small", "none"]["size_bytes"]
    (comparison,) = trained["comparisons"]
    assert (comparison["arm"], comparison["control"], comparison["steps"]) == ("small", "small-random", 6)


def test_the_same_training_again_shows_the_same_table(trained: dict[str, Any], printed: Done) -> None:
    assert printed.code == 0
    assert "trained by this recipe before" in printed.err
    assert "memory of small: " in printed.err
    assert [one["arm"] for one in trained["memory"]] == ["small", "small-random"]
    assert "small against random order at 6 equal steps" in printed.err
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("small")]
    assert [row[:2] for row in rows] == [["small", "as"], ["small", "int8"], ["small-random", "as"]]


def test_watching_a_training_that_is_done_shows_its_table(
    prepared: Prepared, trained: dict[str, Any], printed: Done
) -> None:
    watched = prepared.winnow("watch", trained["run"][:8])
    assert (watched.code, watched.out) == (0, printed.out)
    assert "against random order" in watched.err


def test_a_trained_model_becomes_a_folder_once(prepared: Prepared, trained: dict[str, Any], tmp_path: Path) -> None:
    model = f"{trained['run'][:8]}/small"
    written = prepared.winnow.ok("export-model", model, "--output", tmp_path / "small")
    assert written["files"] == sorted(one.name for one in (tmp_path / "small").iterdir())
    assert "model.safetensors" in written["files"]
    again, foreign = prepared.winnow.each(
        ["export-model", model, "--output", str(tmp_path / "small")],
        ["export-model", model, "--output", str(tmp_path / "other"), "--transformers"],
    )
    assert (again.code, "is there already; remove it, or name a new folder" in again.err) == (1, True)
    assert (foreign.code, "order='encoder' (needs 'causal')" in foreign.err) == (2, True)
    assert [one.name for one in tmp_path.iterdir()] == ["small"]


class Page(HTMLParser):
    """What a page would fetch, its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(prepared: Prepared, rehearsed: dict[str, Any], trained: dict[str, Any]) -> str:
    assert trained["classes"]
    assert rehearsed["queues"]
    path = prepared.folder / "out" / "report.html"
    assert prepared.winnow.ok("report", "tickets", "--output", path) == {"report": str(path)}
    return path.read_text(encoding="utf-8")


def test_report_fetches_nothing_and_runs_nothing(page: str) -> None:
    found = Page(page)
    assert "script" not in found.tags
    assert found.handlers == []
    assert [one for one in found.addresses if not one.startswith("#")] == []
    assert re.findall(r"url\(\s*[\"']?(?!#)[^)]+", page) == []
    assert "@import" not in page


def test_report_shows_markup_in_records_as_text(page: str) -> None:
    assert corpus.MARKUP in Page(page).text
    assert "<script" not in page.lower()


def test_report_holds_the_funnel_the_curves_and_the_variants(page: str, trained: dict[str, Any]) -> None:
    text = " ".join(Page(page).text.split())
    for told in ("400 records in, 370 kept", "word_count 8", "exact_duplicate 12", "near_duplicate 10"):
        assert told in text
    assert "small against small-random at 6 steps" in text
    assert "int8" in text
    assert "margin" in text
    assert page.count("<svg") >= 2
    for one in trained["variants"]:
        assert f"{one['accuracy']:.3f}" in text


def test_report_is_written_whole_or_not_at_all(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder, under = prepared.winnow.each(
        *[["report", "tickets", "--output", str(path)] for path in (tmp_path, tmp_path / "file" / "page.html")]
    )
    assert folder.code == under.code == 2
    assert "is a folder" in folder.err
    assert "cannot be written" in under.err
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="mounting a small filesystem needs root")
def test_report_on_a_full_disk_leaves_nothing_behind_and_can_be_tried_again(prepared: Prepared, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(small)], check=True)
    try:
        done = prepared.winnow("report", "tickets", "--output", small / "page.html")
        assert (done.code, done.out) == (1, "")
        assert f"no space left for the report at {small / 'page.html'}; free space, then run" in done.err
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_recipe_that_is_refused_says_why(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("arms: [{name: a, stepz: 3}]")
    unknown, missing = prepared.winnow.each(
        ["train", "tickets", "--recipe", str(path)], ["train", "tickets", "--recipe", "clasify"]
    )
    assert unknown.code == missing.code == 2
    assert "did you mean 'steps'?" in unknown.err
    assert "'clasify'; did you mean 'classify'?" in missing.err
