"""Edits through the engine: every later stage has the edited texts, and what was changed is told."""

from pathlib import Path

from catalog.store import Store
from catalog.tables.curation import Verdict
from catalog.tables.engine import Run
from curation.dedup.substring import SubstringConfig
from curation.recipe import Recipe
from curation.rules import RULES
from service.report import render_report
from tests.workers.building import drain
from tests.workers.test_dedup import ingest
from tests.workers.test_determinism import make_catalog
from workers import curated, manifests
from workers.biography import biography
from workers.pipelines.clean import submit_clean

MENU = "Home | News | About\nWe use cookies on every page of ours.\n"
OWN = "The committee met on Monday and talked. Afterwards {} people of it went home."
PASSAGE = "This passage of twelve tokens or more stands in two of the records here."


def test_edited_texts_are_measured_compared_published_and_told_of(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    long_ones = [f"{OWN.format(at)}\n{PASSAGE}" for at in range(2)]
    bodies = [OWN.format(7), MENU + OWN.format(7), MENU, *(MENU + one for one in long_ones)]
    bodies += [f"caf\u00c3\u00a9 {OWN.format(9)}", *(OWN.format(100 + at) for at in range(4))]
    ingest(catalog, tmp_path, "tickets", bodies)
    ingest(catalog, tmp_path, "held-out", [MENU + OWN.format(100)])
    recipe = Recipe(
        name="edited",
        edit=("fix_encoding", "c4_lines"),
        rules={"policy_line_ratio": RULES["policy_line_ratio"].configured({"maximum": 0})},
        substring=SubstringConfig(min_tokens=12, action="remove"),
        encoder="hashing",
    )
    run_id, _ = submit_clean(catalog, dataset="tickets", recipe=recipe, against=["held-out"])
    drain(catalog)
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        dataset = manifests.find_dataset(session, "tickets")
        stays = curated.read_records(store, manifests.require_version(session, dataset, "curated"))
        story = biography(session, store, dataset, "tickets.jsonl:5")
        gone = biography(session, store, dataset, "tickets.jsonl:3")
        page = render_report(session, store, dataset)
        reasons = {one.reason for one in session.query(Verdict).filter_by(run_id=run_id)}
    # Two are equal once the menu is gone, one is all menu, one stands in the other dataset; one loses the passage.
    kept = [OWN.format(7), f"café {OWN.format(9)}", *(OWN.format(101 + at) for at in range(3))]
    assert sorted(stays["text"]) == sorted([*kept, long_ones[0], OWN.format(1)])
    assert reasons == {None, "exact_duplicate", "edited_away"}
    assert gone["reason"] == "edited_away"
    assert run.result is not None
    assert run.result["dropped"] == {"edited_away": 1, "exact_duplicate": 2}
    told = run.result["edits"]
    assert (told["changed"], told["emptied"]) == (5, 1)
    assert {"edit": "c4_lines", "reason": "no end mark", "changes": 4, "records": 4, "characters": 76} in told["counts"]
    # The first edit found what was ingested; the passages are of the text as it was judged.
    assert story["text"].startswith(MENU)
    assert [one["before"] for one in story["edits"]] == MENU.splitlines()
    assert [one["after"] for one in story["edits"]] == [None, None]
    passages = [*story["passages"]["repeats"], *story["passages"]["repeated_by"]]
    assert [one["text"].strip() for one in passages] == [PASSAGE]
    assert "cookies and terms of use" in page
