"""Every other page in a real browser: hostile names stay text, the policy is never violated, runs are live."""

import re
from datetime import timedelta
from urllib.parse import quote

import pytest

from catalog.tables.base import new_id
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Quarantined, Source, Version
from catalog.tables.engine import Run, Unit, UnitLog
from catalog.tables.labeling import LabelQueue, LabelRound
from labeling.schema import Label, LabelSchema

EVIL = "<img src=x onerror=alert(1)>"
HOSTILE_SCHEMA = LabelSchema(
    question=EVIL,
    guidelines=EVIL,
    labels=(Label(name=EVIL, description='"><script>alert(2)</script>'), Label(name="b")),
)


@pytest.fixture
def hostile(site):
    """A queue, its dataset and a run whose every text field is an attack; returns their ids."""
    queue_id = site.add_queue([EVIL], schema=HOSTILE_SCHEMA, name=EVIL)
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        found = session.get_one(LabelQueue, queue_id)
        session.get_one(Dataset, found.dataset_id).name = name = f"{EVIL}/{new_id()}"
        version = session.get_one(Version, found.version_id)
        run = session.get_one(Run, version.run_id)
        run.requested_by = run.reason = EVIL
        session.add(
            Unit(
                run_id=run.id,
                stage=0,
                stage_name=EVIL,
                position=0,
                payload={},
                state="poisoned",
                attempts=3,
                owner=EVIL,
                reason=EVIL,
                ready_at=now,
            )
        )
        source = Source(
            id=new_id(), dataset_id=found.dataset_id, run_id=run.id, name=EVIL, sha256="0", size_bytes=1, refused=EVIL
        )
        session.add(source)
        session.flush()
        session.add(Quarantined(source_id=source.id, line=1, run_id=run.id, reason=EVIL, detail=EVIL))
        for number in range(3):
            session.add(
                LabelRound(
                    queue_id=queue_id,
                    arm=EVIL,
                    round=number,
                    num_labels=number,
                    num_examples=9,
                    accuracy=0.5,
                    accuracy_low=0.4,
                    accuracy_high=0.6,
                    macro_f1=0.5,
                    seconds=1,
                    created_at=now,
                )
            )
            reason = EVIL if number else None
            session.add(
                Verdict(
                    run_id=run.id,
                    record_id=f"r{number}",
                    kept=not number,
                    reason=reason,
                    failed=[],
                    measured={},
                    scores={},
                )
            )
        return {"queue": queue_id, "run": run.id, "dataset": name}


def test_hostile_names_are_text_on_every_page(visitor, site, hostile):
    visitor.log_in(site, "mina", "/")
    paths = [
        "/",
        f"/datasets/{quote(hostile['dataset'], safe='')}",
        f"/runs/{hostile['run']}",
        f"/queues/{hostile['queue']}",
        f"/label/{hostile['queue']}",
    ]
    for path in paths:
        visitor.page.goto(site.url + path)
        visitor.page.wait_for_load_state("networkidle")
        assert EVIL in visitor.page.inner_text("main"), path
        assert visitor.page.locator("main img, main script, main iframe").count() == 0, path
        assert visitor.violations() == [], path
    assert visitor.troubles == []


def test_policy_blocks_what_escaping_would_miss(visitor, site):
    visitor.log_in(site, "mina", "/")
    outcome = visitor.page.evaluate(
        """() => {
          try { document.body.innerHTML = "<img src=x onerror=alert(1)>"; } catch (error) { return error.name; }
          return "set";
        }"""
    )
    assert outcome == "TypeError"
    assert any("trusted-types" in one for one in visitor.violations())


def test_run_page_follows_the_run_until_it_ends(visitor, site):
    queue_id = site.add_queue(["a"])
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        dataset_id = session.get_one(LabelQueue, queue_id).dataset_id
        run_id, unit_id = new_id(), new_id()
        session.add(
            Run(
                id=run_id,
                kind="ingest",
                dataset_id=dataset_id,
                idempotency_key=run_id,
                config={},
                config_hash="0",
                created_at=now,
            )
        )
        session.flush()
        session.add(
            Unit(
                id=unit_id,
                run_id=run_id,
                stage=0,
                stage_name="parse",
                position=0,
                payload={},
                state="running",
                attempts=1,
                owner="w1@here",
                num_done=100,
                num_total=1000,
                ready_at=now - timedelta(seconds=10),
            )
        )
    visitor.log_in(site, "mina", f"/runs/{run_id}")
    page = visitor.page
    page.wait_for_function("() => document.getElementById('pace').textContent.includes('left in this stage')")
    assert re.search(r"[\d.]+ a second", page.inner_text("#pace"))
    assert "w1@here" in page.inner_text("#units")
    with site.catalog.write() as session:
        unit, run = session.get_one(Unit, unit_id), session.get_one(Run, run_id)
        unit.num_done, unit.state, unit.reason = 777, "poisoned", "ran out of memory 3 times"
        run.state, run.reason, run.finished_at = "failed", "1 unit gave up", site.catalog.now(session)
    page.wait_for_function("() => document.querySelector('main').dataset.state === 'failed'")
    page.wait_for_function("() => document.getElementById('units').textContent.includes('ran out of memory 3 times')")
    assert "777" in page.inner_text("#stages")
    assert page.inner_text("#reason") == "1 unit gave up"
    assert visitor.violations() == visitor.troubles == []


def test_a_link_leads_through_login_to_where_it_pointed_and_log_out_ends_it(visitor, site):
    queue_id = site.add_queue(["a"])
    visitor.log_in(site, "지훈", f"/label/{queue_id}")
    visitor.page.get_by_role("button", name="Log out").click()
    visitor.page.wait_for_url(f"{site.url}/login")
    visitor.page.goto(f"{site.url}/label/{queue_id}")
    assert "/login?next=" in visitor.page.url


def test_a_run_is_paused_resumed_and_steered_from_its_page(visitor, site):
    queue_id = site.add_queue(["a"])
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        dataset_id = session.get_one(LabelQueue, queue_id).dataset_id
        run_id = new_id()
        session.add(
            Run(
                id=run_id, kind="ingest", dataset_id=dataset_id, idempotency_key=run_id, config={}, config_hash="0",
                created_at=now,
            )
        )  # fmt: skip
        session.flush()
        unit_id = new_id()
        session.add(Unit(id=unit_id, run_id=run_id, stage=0, stage_name="parse", position=3, payload={}, ready_at=now))
        session.flush()
        line = "line 7 is odd\n<b>so</b>"
        session.add(UnitLog(run_id=run_id, unit_id=unit_id, epoch=1, at=now, level="WARNING", message=line))
    visitor.log_in(site, "mina", f"/runs/{run_id}")
    page = visitor.page
    assert "parse/3" in page.inner_text("#log")
    assert "<b>so</b>" in page.inner_text("#log")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("() => document.getElementById('state').textContent === 'paused'")
    # On a phone too the word stays whole, however much stands beside it.
    page.set_viewport_size({"width": 390, "height": 800})
    page.evaluate("() => { document.getElementById('pace').textContent = 'after 33 s · '.repeat(20); }")
    assert page.locator("#state .state").bounding_box()["height"] < 40
    # What was logged stands below when and where, at full width.
    time, message = (page.locator("#log tbody td").nth(cell).bounding_box() for cell in (0, -1))
    assert message["y"] >= time["y"] + time["height"]
    assert 300 < message["width"] <= 390 - message["x"]
    page.set_viewport_size({"width": 1280, "height": 800})
    assert not page.get_by_role("button", name="Pause").is_visible()
    page.get_by_role("button", name="Resume").click()
    page.wait_for_function("() => document.getElementById('state').textContent === 'running'")
    page.get_by_label("Priority").fill("9")
    page.get_by_label("Priority").press("Tab")
    page.get_by_label("Units at once").fill("1")
    page.get_by_label("Units at once").press("Tab")
    for _ in range(50):
        with site.catalog.read() as session:
            run = session.get_one(Run, run_id)
            if (run.priority, run.max_units, run.paused_at) == (9, 1, None):
                break
        page.wait_for_timeout(100)
    else:
        raise AssertionError(f"not steered: {run.priority}, {run.max_units}")
    page.get_by_role("button", name="Cancel the run").click()
    page.wait_for_function("() => document.getElementById('state').textContent === 'cancelled'")
    assert visitor.violations() == visitor.troubles == []


def test_a_schedule_is_added_switched_off_and_removed_on_its_page(visitor, site):
    queue_id = site.add_queue(["a"])
    with site.catalog.read() as session:
        name = session.get_one(Dataset, session.get_one(LabelQueue, queue_id).dataset_id).name
    visitor.log_in(site, "mina", "/schedules")
    page = visitor.page
    page.get_by_label("Name", exact=True).fill("매일밤")
    page.get_by_label("Dataset").select_option(name)
    page.get_by_label("Minute hour day month weekday", exact=True).fill("0 3 * *")
    page.get_by_role("button", name="Add").click()
    page.wait_for_function("() => document.getElementById('answer').textContent.includes('five fields')")
    page.get_by_label("Minute hour day month weekday", exact=True).fill("0 3 * * *")
    page.get_by_role("button", name="Add").click()
    page.wait_for_selector("#schedules")
    # Every change loads the page anew; a click before its script has run does nothing.
    page.wait_for_load_state()
    assert "매일밤" in page.inner_text("#schedules")
    page.get_by_role("button", name="Change").click()
    page.get_by_label("Time zone of").fill("Asia/Seoul")
    page.get_by_label("Minute hour day month weekday of").fill("15 4 * * *")
    page.get_by_role("button", name="Save").click()
    page.wait_for_function("() => document.getElementById('schedules').textContent.includes('15 4 * * *, Asia/Seoul')")
    page.wait_for_load_state()
    # On a phone a row is a card, with its buttons on the screen.
    page.set_viewport_size({"width": 390, "height": 800})
    for button in page.locator("#schedules button:visible").all():
        box = button.bounding_box()
        assert box["x"] + box["width"] <= 390
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("pending").wait_for()
    page.wait_for_load_state()
    page.get_by_role("button", name="Switch off").click()
    page.get_by_role("button", name="Switch on").wait_for()
    page.wait_for_load_state()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Remove with its history?").click()
    page.get_by_text("No schedule yet").wait_for()
    assert visitor.violations() == []
