"""What a cleaning measured, as the report shows it."""

from pathlib import Path

from catalog.database import Catalog
from catalog.store import Store
from catalog.tables.engine import Run
from service.report import render_report
from tests.workers.building import clean_dataset
from workers import findings, manifests

RECIPE = """
name: small
rules: {word_count: {minimum: 3, maximum: 8}, char_count: {minimum: 5}}
near: null
encoder: hashing
"""
BODIES = [" ".join(f"w{number}" for number in range(count)) for count in (1, 2, 3, 4, 5, 8, 9, 30, 60, 61)]


def test_findings_count_all_and_show_what_is_near_a_bound(database: Catalog, tmp_path: Path) -> None:
    clean_dataset(database, tmp_path, [{"body": body, "queue": "a"} for body in BODIES], RECIPE)
    store = Store.of(database.settings)
    with database.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        run = session.get_one(Run, manifests.require_version(session, dataset, "curated").run_id)
        found = findings.find(session, store, run)
        costs = findings.costs(session, run)
        page = render_report(session, store, dataset)
        texts = findings.texts(session, store, run, found.samples) if found else {}
    assert found is not None
    assert found.num_records == 10
    # Values by hand: 1, 2, 9, 30, 60, 61 words are outside 3 to 8; "w0" alone has fewer than five characters.
    assert found.failing == {"word_count": 6, "char_count": 1}
    assert found.values.filter("kept")["word_count"].sort().to_list() == [3, 4, 5, 8]
    assert found.languages["before"].sum() == 10
    assert found.languages["after"].sum() == 4
    rows = found.samples.filter(rule="word_count").to_dicts()
    assert [row["kind"] for row in rows] == ["near", "near", "any", "any"]
    assert sorted(row["value"] for row in rows[:2]) == [2, 9]
    assert all(len(texts[row["id"]].split()) == row["value"] for row in rows)
    (judged,) = [one for one in costs if one.stage == "judge"]
    assert judged.records == 10
    assert judged.peak_bytes is not None
    assert judged.peak_bytes > 50_000_000
    assert next(one.stage for one in costs) == "measure"
    assert "<code>word_count</code>: 6 outside (60.0 %)" in page
    assert "kept from 3, kept to 8" in page
    assert '6 records outside <span class="muted">from 3 to 8</span>' in page
