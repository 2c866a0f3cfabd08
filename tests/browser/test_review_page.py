"""A reviewer settles disagreements by keyboard, and the lead's page says what the labels are worth."""

import re

from sqlalchemy import update

from catalog.tables.base import new_id
from catalog.tables.labeling import LabelGeneration, LabelTask
from labeling import gold, queue


def answered(site, texts, *values):
    """A queue whose texts two annotators have answered: values of the first, values of the second."""
    queue_id = site.add_queue(texts)
    with site.catalog.write() as session:
        session.execute(update(LabelTask).where(LabelTask.queue_id == queue_id).values(overlap=2))
    for who, said in zip(("mina", "지훈"), values, strict=True):
        for value in said:
            with site.catalog.write() as session:
                now = site.catalog.now(session)
                served = queue.next_task(session, now=now, queue_id=queue_id, annotator_id=site.users[who])
                given = {"lease_id": served.lease_id, "annotator_id": site.users[who], "value": value}
                queue.submit(session, now=now, key=new_id(), seconds_spent=2.5, **given)
    return queue_id


def labels(site, queue_id):
    with site.catalog.read() as session:
        return {one.record_id: one.value for one in queue.current_labels(session, queue_id=queue_id)}


def test_disagreements_are_settled_by_keyboard(visitor, site):
    texts = ["<b>one</b> 배송", "two", "three"]
    queue_id = answered(site, texts, ("긍정", "부정", "긍정"), ("부정", "부정", "중립"))
    site.add_user(f"lead {queue_id[:4]}", "reviewer")
    visitor.log_in(site, f"lead {queue_id[:4]}", f"/queues/{queue_id}")
    visitor.page.get_by_role("link", name="Settle disagreements").click()
    shown: set[str] = set()
    counts: list[str] = []
    for _ in range(2):
        visitor.page.wait_for_function("() => document.querySelector('main').dataset.state === 'ready'")
        shown.add(visitor.page.inner_text("#text"))
        assert visitor.page.locator("#opinions h3").all_inner_texts() == ["mina", "지훈"]
        visitor.page.keyboard.press("3")
        visitor.wait_for_status("Settled.")
        counts.append(visitor.page.inner_text("#count"))
    visitor.page.wait_for_selector("#nothing:not([hidden])")
    assert counts[0] == "1 to settle"
    assert shown == {texts[0], texts[2]}
    last = visitor.page.evaluate("document.getElementById('text').textContent")
    visitor.page.keyboard.press("z")
    visitor.wait_for_status("Taken back. Settle this text again.")
    visitor.wait_for_text(last)
    visitor.page.keyboard.press("1")
    visitor.wait_for_status("Settled.")
    visitor.page.wait_for_selector("#nothing:not([hidden])")
    decided = {"r0": "중립", "r1": "부정", "r2": "중립"} | {f"r{texts.index(last)}": "긍정"}
    assert labels(site, queue_id) == decided
    assert visitor.troubles == []
    assert visitor.violations() == []


def test_what_is_left_for_later_stays_and_an_annotator_sees_none_of_it(visitor, site):
    queue_id = answered(site, ["one", "two"], ("긍정", "긍정"), ("부정", "부정"))
    visitor.log_in(site, "mina", f"/queues/{queue_id}/review")
    ready = "() => document.querySelector('main').dataset.state === 'ready'"
    visitor.page.wait_for_function(ready)
    first = visitor.page.inner_text("#text")
    visitor.page.keyboard.press("g")
    assert "Judge the tone, not the topic." in visitor.page.inner_text("#guidelines-dialog")
    visitor.page.keyboard.press("n")
    visitor.page.keyboard.press("Escape")
    assert visitor.page.inner_text("#text") == first
    visitor.page.keyboard.press("n")
    visitor.page.wait_for_function("first => document.getElementById('text').textContent !== first", arg=first)
    visitor.page.fill("#note", "clear from the second sentence")
    visitor.page.keyboard.press("Escape")
    visitor.page.keyboard.press("1")
    visitor.wait_for_status("Settled.")
    visitor.page.wait_for_selector("#nothing:not([hidden])")
    visitor.page.reload()
    visitor.page.wait_for_function(ready)
    assert visitor.page.inner_text("#text") == first
    visitor.context.clear_cookies()
    visitor.page.goto("about:blank")
    visitor.page.goto(f"{site.url}/login?next=/queues/{queue_id}/review")
    visitor.page.wait_for_function("() => document.activeElement.id === 'token'")
    visitor.page.keyboard.insert_text(site.tokens["지훈"])
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_function("() => document.body.innerText.includes('may not do this')")


def test_the_leads_page_says_what_the_labels_are_worth_and_who_answers_well(visitor, site):
    queue_id = answered(site, ["one", "two"], ("긍정",), ("부정",))
    visitor.page.set_viewport_size({"width": 360, "height": 700})
    visitor.log_in(site, "mina", f"/queues/{queue_id}")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == 360
    assert "this queue asks about no texts that chance drew" in visitor.page.inner_text("main")
    assert "2 answers in the last hour, 2 in the last 24." in visitor.page.inner_text("main")
    assert visitor.page.get_by_role("img", name="Answers by hour").count() == 1
    worth = {
        "num_labels": 200,
        "num_random": 40,
        "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95},
        "labels_for_same": {"value": 320.0, "low": 210.0, "high": None},
        "labels_saved": {"value": 120.0, "low": 10.0, "high": None},
        "next_gain": {"value": 0.01, "low": 0.0, "high": 0.02},
    }
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        figures = {"kappa": 0.9, "changed": 0.05, "uncertainty": 0.01, "worth": worth}
        made = {"queue_id": queue_id, "at": now, "strategy": "margin", "num_labels": 200, "figures": figures}
        session.add(LabelGeneration(generation=1, **made))
        items = [gold.GoldItem(record_id="r0", text="one", value="긍정")]
        gold.add_gold(session, now=now, queue_id=queue_id, items=items)
    visitor.page.reload()
    told = visitor.page.inner_text("main")
    assert "right about 90.0 % of what nobody was asked about (80.0 to 95.0 %)" in told
    assert "About as many as 320 labels drawn at random would have been needed for that" in told
    assert "10 to any number labels saved" in told
    assert "0.0 to 2.0 points of accuracy" in told
    mina = visitor.page.locator("#annotators tr", has_text="mina")
    assert mina.locator("[data-name='known texts right']").inner_text() == "100.0 % of 1"


def measured(visitor, state="measured"):
    visitor.page.wait_for_selector(f"#quality[data-state={state}]")
    return visitor.page.inner_text("#quality")


def row_of(visitor, name):
    found = visitor.page.locator("#annotators tr", has_text=name)
    return {one.get_attribute("data-name"): one.inner_text().replace("\xa0", " ") for one in found.locator("td").all()}


def test_the_lead_sees_how_far_annotators_agree_and_how_good_each_is(visitor, site):
    texts = [f"text {number}" for number in range(40)]
    said = ["긍정", "부정"] * 20
    queue_id = answered(site, texts, said, [*said[:30], *said[:10:-1][:10]])
    held = []
    visitor.page.route("**/agreement", lambda route: held.append(route))
    visitor.log_in(site, "mina", f"/queues/{queue_id}")
    visitor.page.wait_for_function("() => document.getElementById('measuring').textContent === 'Measuring…'")
    assert row_of(visitor, "mina")["answers"].startswith("40")
    assert row_of(visitor, "mina")["agrees with others"] == "…"
    while not held:
        visitor.page.wait_for_timeout(20)
    held.pop().abort()
    assert "Not measured: the service did not answer." in measured(visitor, "failed")
    visitor.page.unroute("**/agreement")
    visitor.page.get_by_role("button", name="Measure again").click()
    told = measured(visitor)
    assert "Measuring" not in told
    alpha = visitor.page.locator("#agreement tr", has_text="Krippendorff's alpha")
    assert re.match(r"0\.51 \(0\.\d\d to 0\.\d\d\)$", alpha.locator("td").first.inner_text().strip())
    assert "Cohen's kappa is 0.50 in the mean of all pairs of annotators." in told
    # An even share, the interval and its two ends.
    assert alpha.locator("svg.share > *").count() == 5
    row = row_of(visitor, "지훈")
    assert row["agrees with others"] == "75 %"
    assert row["median seconds"] == "2.5"
    assert re.match(r"\d+ % \(\d+ % to \d+ %\)", row["as the consensus has it"])
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= visitor.page.viewport_size["width"]
    assert visitor.troubles == []
    assert visitor.violations() == []


def test_where_nothing_can_be_measured_the_lead_reads_why(visitor, site):
    queue_id = site.add_queue(["one", "two"])
    with site.catalog.write() as session:
        now, mina = site.catalog.now(session), site.users["mina"]
        served = queue.next_task(session, now=now, queue_id=queue_id, annotator_id=mina)
        queue.submit(session, now=now, key=new_id(), lease_id=served.lease_id, annotator_id=mina, value="긍정")
    visitor.log_in(site, "mina", f"/queues/{queue_id}")
    assert "none: " in measured(visitor)
    row = row_of(visitor, "mina")
    assert row["as the consensus has it"] == "not known: nobody else answered the same texts"
    assert (row["agrees with others"], row["median seconds"], row["change"]) == ("–", "–", "–")
