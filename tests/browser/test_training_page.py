"""The page of a training: its curves grow and its result comes without loading the page anew."""

from collections.abc import Callable

import pytest

from catalog.tables.base import new_id
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import LabelQueue
from catalog.tables.training import LossPoint
from tests.browser.conftest import Site, Visitor

EVIL = "<img src=x onerror=alert(1)>"
ARMS = {
    "paced": {},
    EVIL: {"control_of": "paced"},
    "paced-anti": {"control_of": "paced"},
    "paced-seed1": {"replica_of": "paced", "seed": 1},
}
GREW = """() => document.querySelectorAll("#training polyline")[0].getAttribute("points").split(" ").length === 30"""


@pytest.fixture
def training(site: Site) -> str:
    """A training of which one arm has begun; returns its id."""
    queue_id = site.add_queue(["a"])
    run_id = new_id()
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        dataset_id = session.get_one(LabelQueue, queue_id).dataset_id
        session.add(
            Run(
                id=run_id, kind="train", dataset_id=dataset_id, idempotency_key=run_id, config={}, config_hash="0",
                created_at=now,
            )
        )  # fmt: skip
        session.flush()
        for position, (arm, more) in enumerate(ARMS.items()):
            session.add(
                Unit(
                    run_id=run_id,
                    stage=1,
                    stage_name="fit",
                    position=position,
                    payload={"arm": arm, "index": position, "steps": 60, "seed": 0} | more,
                    state="ready" if position else "running",
                    num_total=60,
                    ready_at=now,
                    result=None if position else {"memory": {"total_bytes": 3 * 2**29, "free_bytes": 2**33}},
                )
            )
    return run_id


def learn(site: Site, run_id: str, arm: str, loss_at: Callable[[int], float], *steps: int) -> None:
    """Write points as a worker's heartbeat does, with its progress."""
    with site.catalog.write() as session:
        session.add_all(LossPoint(run_id=run_id, arm=arm, step=step, loss=loss_at(step)) for step in steps)
        unit = session.query(Unit).filter_by(run_id=run_id, position=list(ARMS).index(arm)).one()
        unit.num_done = max(steps)


def test_curves_grow_while_a_training_goes_on(visitor: Visitor, site: Site, training: str) -> None:
    learn(site, training, "paced", lambda step: 4 / step, *range(1, 11))
    visitor.log_in(site, "mina", f"/runs/{training}")
    page = visitor.page
    assert page.locator("#training polyline").count() == 1
    assert page.locator("#training circle").count() == 10
    assert "1.5 GiB of 8.0 GiB" in page.inner_text("#arms")
    page.evaluate("window.same = document.querySelector('h1')")
    learn(site, training, "paced", lambda step: 4 / step, *range(11, 31))
    learn(site, training, EVIL, lambda step: 5 / step, *range(1, 21))
    learn(site, training, "paced-anti", lambda step: 7 / step, *range(1, 21))
    learn(site, training, "paced-seed1", lambda step: 3 / step, *range(1, 16))
    page.wait_for_function(GREW)
    # The page was not loaded anew.
    assert page.evaluate("window.same === document.querySelector('h1')")
    chart = page.get_by_role("img", name="Training loss against steps")
    assert chart.count() == 1
    assert "paced (2 seeds)" in (chart.get_attribute("aria-label") or "")
    assert page.locator("#training polyline").count() == 3
    assert page.locator("#training .band").count() == 1
    looks = page.locator("#training polyline").evaluate_all(
        "lines => lines.map((one) => getComputedStyle(one).strokeDasharray)"
    )
    assert len(set(looks[1:])) == 2, "controls are told apart"
    assert EVIL in page.inner_text("#arms")
    assert page.locator("main img").count() == 0
    assert [page.locator("#arms tbody tr").nth(row).locator("td").nth(2).inner_text() for row in range(4)] == [
        "30", "20", "20", "15",
    ]  # fmt: skip
    page.set_viewport_size({"width": 390, "height": 800})
    assert "Memory" in page.locator("#arms td").nth(6).evaluate("cell => getComputedStyle(cell, '::before').content")
    for cell in page.locator("#arms td, #arms tbody th, #units td").all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= 390
    assert visitor.violations() == visitor.troubles == []


def test_result_comes_once_a_training_ends(visitor: Visitor, site: Site, training: str) -> None:
    learn(site, training, "paced", lambda step: 4 / step, 1)
    visitor.log_in(site, "mina", f"/runs/{training}")
    page = visitor.page
    page.evaluate("window.same = document.querySelector('h1')")
    assert page.locator("#result").count() == 0
    row = {"objective": "mlm", "loss": 1.25, "perplexity": 3.49, "size_bytes": 2_000_000}
    paid = {"control": "x", "steps": 60, "loss_saved": 0.2, "low": 0.1, "high": 0.3, "verdict": "paid"}
    with site.catalog.write() as session:
        run = session.get_one(Run, training)
        run.config = {"recipe": {"compare": "random"}}
        run.result = {
            "test": 40,
            "held_out": [row | {"arm": arm} for arm in ("paced", EVIL)],
            "loss_comparisons": [{"arm": EVIL} | paid],
        }
        run.state = "done"
        for unit in session.query(Unit).filter_by(run_id=training):
            unit.state = "done"
    page.wait_for_selector("#result")
    assert page.evaluate("window.same === document.querySelector('h1')")
    assert page.locator("#result tbody tr").nth(1).inner_text().split("\t") == [EVIL, "mlm", "1.25", "3.49", "2"]
    assert "+0.2000 nats saved (+0.1000 to +0.3000): paid" in page.inner_text("#found")
    assert page.locator("#models a").count() == len(ARMS)
    assert page.locator("main img").count() == 0
    assert visitor.violations() == visitor.troubles == []
