"""The annotator's page in a real browser: by keyboard alone, with hostile texts, through cuts and crashes."""

import json

import pytest

from catalog.tables.engine import Run
from labeling import queue
from labeling.schema import parse_schema

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "</p><iframe src=javascript:alert(4)></iframe>",
    "{{7*7}} ${alert(5)} <b>굵게</b> &lt;i&gt;",
]
PLAIN = [
    "배송이 늦었지만 품질은 좋아요 👍🏽",
    "Where is my refund?\n\tTwo lines.",
    "ขอบคุณครับ",
    "最高です 🎉",
    "مرحبا بالعالم",
]


def open_page(visitor, site, texts, **options):
    queue_id = site.add_queue(texts, **options)
    visitor.log_in(site, "지훈", f"/label/{queue_id}")
    visitor.wait_for_text(texts[0])
    return queue_id


@pytest.mark.parametrize("texts", [HOSTILE, PLAIN], ids=["hostile", "plain"])
def test_five_texts_are_labelled_by_keyboard_alone_and_shown_as_text(visitor, site, texts):
    queue_id = open_page(visitor, site, texts)
    for key, text in zip("12321", texts, strict=True):
        visitor.wait_for_text(text)
        assert visitor.page.locator("#text *").count() == 0
        visitor.page.keyboard.press(key)
    visitor.page.wait_for_selector("#nothing:not([hidden])")
    assert "All done" in visitor.page.inner_text("#nothing")
    assert site.answers(queue_id) == list(zip(texts, ["긍정", "부정", "중립", "부정", "긍정"], strict=True))
    assert visitor.violations() == []
    assert visitor.troubles == []


def test_page_says_why_this_text_and_how_far_the_queue_is(visitor, site):
    open_page(visitor, site, PLAIN)
    assert visitor.page.inner_text("#why") == "Why this text: margin 0.00: 긍정 0.49 vs 부정 0.47"
    visitor.page.keyboard.press("1")
    visitor.wait_for_text(PLAIN[1])
    visitor.page.wait_for_function(
        "() => document.getElementById('progress').textContent === '1 by you · 1 of 5 finished'"
    )
    visitor.wait_for_status("Saved.")


def test_enter_answers_with_the_focused_label(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        visitor.page.keyboard.press(key)
    assert visitor.page.evaluate("document.activeElement.dataset.value") == "부정"
    visitor.page.keyboard.press("Enter")
    assert site.until_answers(queue_id, 1) == [(PLAIN[0], "부정")]


def test_hotkeys_work_under_another_script_by_the_place_of_the_key(visitor, site):
    schema = parse_schema("labels: [{name: yes, hotkey: y}, {name: no, hotkey: ㄱ}]")
    queue_id = open_page(visitor, site, PLAIN, schema=schema)
    press = "([key, code]) => document.dispatchEvent(new KeyboardEvent('keydown', { key, code, cancelable: true }))"
    visitor.page.evaluate(press, ["ㅛ", "KeyY"])
    visitor.wait_for_text(PLAIN[1])
    visitor.page.evaluate(press, ["ㄱ", "KeyR"])
    visitor.wait_for_text(PLAIN[2])
    visitor.page.evaluate(press, ["Process", "KeyY"])
    visitor.wait_for_text(PLAIN[3])
    visitor.page.evaluate(press, ["ㄴ", "KeyS"])
    visitor.page.wait_for_selector("#skip-dialog[open]")
    assert [value for _, value in site.until_answers(queue_id, 3)] == ["yes", "no", "yes"]


def test_shortcuts_with_modifiers_and_held_keys_do_not_answer(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    visitor.page.keyboard.press("Control+1")
    visitor.page.keyboard.press("Alt+1")
    visitor.page.evaluate(
        "document.dispatchEvent(new KeyboardEvent('keydown', { key: '1', code: 'Digit1', repeat: true }))"
    )
    visitor.page.wait_for_timeout(300)
    assert visitor.page.get_attribute("main", "data-state") == "ready"
    assert site.answers(queue_id) == []


def test_a_key_pressed_twice_does_not_answer_a_text_nobody_has_seen(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    visitor.page.evaluate(
        """() => new MutationObserver(() => {
              setTimeout(() => document.dispatchEvent(new KeyboardEvent("keydown", { key: "1", code: "Digit1" })), 50);
            }).observe(document.getElementById('text'), { childList: true, characterData: true, subtree: true })"""
    )
    visitor.page.keyboard.press("1")
    visitor.wait_for_text(PLAIN[1])
    visitor.page.wait_for_timeout(300)
    assert site.answers(queue_id) == [(PLAIN[0], "긍정")]


def test_skip_undo_guidelines_and_help_by_keyboard(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    page = visitor.page
    page.keyboard.press("?")
    page.wait_for_selector("#help-dialog[open]")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.wait_for_selector("#guidelines-dialog[open]")
    assert "Judge the tone" in page.inner_text("#guidelines-dialog")
    page.keyboard.press("Enter")
    page.keyboard.press("s")
    page.keyboard.press("3")
    visitor.wait_for_text(PLAIN[1])
    page.keyboard.press("2")
    visitor.wait_for_text(PLAIN[2])
    page.keyboard.press("z")
    visitor.wait_for_text(PLAIN[1])
    page.keyboard.press("z")
    visitor.wait_for_text(PLAIN[0])
    page.keyboard.press("z")
    visitor.wait_for_status("nothing to take back")
    page.keyboard.press("1")
    visitor.wait_for_text(PLAIN[1])
    with site.catalog.read() as session:
        assert {one.record_id: one.value for one in queue.current_labels(session, queue_id=queue_id)} == {"r0": "긍정"}


def fetched_ahead(visitor, count=2):
    """Wait until so many texts are there before they are needed."""
    visitor.page.wait_for_function("count => document.querySelector('main').dataset.ahead === String(count)", arg=count)


def test_answers_given_offline_arrive_once_after_the_network_returns(visitor, site):
    visitor.page.clock.install()
    queue_id = open_page(visitor, site, PLAIN)
    fetched_ahead(visitor)
    visitor.context.set_offline(True)
    visitor.page.keyboard.press("2")
    visitor.wait_for_status("Offline (1)")
    # What was fetched ahead is there, and is answered as if nothing had happened.
    for key, text in (("1", PLAIN[1]), ("3", PLAIN[2])):
        visitor.wait_for_text(text)
        visitor.page.keyboard.press(key)
    visitor.wait_for_status("Offline (3)")
    visitor.wait_for_status("No more texts are here until the network is back.")
    assert visitor.page.get_attribute("main", "data-state") == "sending"
    # Two minutes of it.
    visitor.page.clock.fast_forward(120_000)
    visitor.wait_for_status("Offline (3)")
    assert site.answers(queue_id) == []
    visitor.context.set_offline(False)
    visitor.wait_for_text(PLAIN[3])
    assert site.answers(queue_id) == [(PLAIN[0], "부정"), (PLAIN[1], "긍정"), (PLAIN[2], "중립")]
    assert visitor.page.evaluate("localStorage.length") == 0


def test_an_answer_whose_confirmation_is_lost_is_stored_once(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    sent = []

    def lose_the_first_two(route):
        sent.append(route.request.post_data_json["key"])
        if len(sent) <= 2:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    visitor.page.route("**/annotation", lose_the_first_two)
    visitor.page.keyboard.press("3")
    visitor.wait_for_status("Saved.")
    assert (len(sent), len(set(sent))) == (3, 1)
    assert site.answers(queue_id) == [(PLAIN[0], "중립")]


def test_a_killed_server_loses_nothing(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    visitor.page.keyboard.press("1")
    visitor.wait_for_text(PLAIN[1])
    site.kill()
    visitor.page.keyboard.press("2")
    visitor.wait_for_status("Offline (1)")
    site.start()
    visitor.wait_for_text(PLAIN[2])
    assert site.until_answers(queue_id, 2) == [(PLAIN[0], "긍정"), (PLAIN[1], "부정")]


def test_an_unsent_answer_survives_closing_the_page(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    site.kill()
    visitor.page.keyboard.press("3")
    visitor.wait_for_status("Offline (1)")
    visitor.page.close()
    site.start()
    visitor.page = visitor.context.new_page()
    visitor.page.goto(f"{site.url}/label/{queue_id}")
    visitor.wait_for_text(PLAIN[1])
    assert site.answers(queue_id) == [(PLAIN[0], "중립")]


def test_the_page_waits_for_the_next_texts_and_says_when_choosing_them_failed(visitor, site):
    queue_id = open_page(visitor, site, PLAIN[:1])

    def publish(rank, num_left):
        entry = queue.QueueEntry(record_id=f"r{rank}", text=PLAIN[rank], utility=1.0, why="next")
        with site.catalog.write() as session:
            now = site.catalog.now(session)
            queue.publish_generation(session, now=now, queue_id=queue_id, entries=[entry], num_left=num_left)

    publish(0, num_left=1)
    visitor.page.keyboard.press("1")
    shown = "words => document.getElementById('nothing').textContent.includes(words)"
    visitor.page.wait_for_function(shown, arg="The next texts are being chosen.")
    with site.catalog.write() as session:
        run = session.query(Run).filter(Run.kind == "query", Run.state == "running").one()
        assert run.config["queue"] == queue_id
        run.state, run.finished_at = "failed", site.catalog.now(session)
    visitor.page.wait_for_function(shown, arg="choosing the next texts failed and is tried again")
    publish(1, num_left=0)
    visitor.wait_for_text(PLAIN[1])
    visitor.page.keyboard.press("2")
    visitor.page.wait_for_function(shown, arg="All done")
    assert visitor.troubles == []


def test_a_refused_answer_is_said_in_words_and_kept_until_dismissed(visitor, site):
    queue_id = open_page(visitor, site, HOSTILE)
    with site.catalog.write() as session:
        queue.close_queue(session, now=site.catalog.now(session), queue_id=queue_id)
    visitor.page.keyboard.press("1")
    visitor.page.wait_for_selector("#refused li")
    assert HOSTILE[0] in visitor.page.inner_text("#refused li")
    assert "closed" in visitor.page.inner_text("#refused li")
    visitor.page.reload()
    visitor.page.wait_for_selector("#refused li")
    (kept,) = json.loads(visitor.page.evaluate("JSON.stringify(Object.values(localStorage))"))
    assert json.loads(kept)["value"] == "긍정"
    visitor.page.get_by_role("button", name="Dismiss").click()
    assert visitor.page.evaluate("localStorage.length") == 0
    assert visitor.troubles == []


def test_a_late_answer_is_kept_and_said_to_be_extra(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    with site.catalog.write() as session:
        lease = session.execute(queue.select(queue.LabelTask.id).where(queue.LabelTask.queue_id == queue_id)).first()
        assert lease is not None
        from catalog.tables.labeling import LabelAssignment

        ours = session.query(LabelAssignment).where(LabelAssignment.queue_id == queue_id)
        held = ours.order_by(LabelAssignment.rank).first()
        held.expires_at = site.catalog.now(session)
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        taken = queue.next_task(session, now=now, queue_id=queue_id, annotator_id=site.users["mina"])
        queue.submit(
            session, now=now, lease_id=taken.lease_id, annotator_id=site.users["mina"], value="부정", key="other-key"
        )
        assert taken.text == PLAIN[0]
    visitor.page.keyboard.press("1")
    visitor.wait_for_status("extra answer")
    assert site.answers(queue_id) == [(PLAIN[0], "부정"), (PLAIN[0], "긍정")]


def test_the_lease_is_kept_while_the_page_is_open(visitor, site):
    queue_id = open_page(visitor, site, PLAIN, lease_seconds=2)
    fetched_ahead(visitor)
    visitor.page.wait_for_timeout(4000)
    with site.catalog.write() as session:
        served = queue.next_task(
            session, now=site.catalog.now(session), queue_id=queue_id, annotator_id=site.users["mina"]
        )
    assert served.text == PLAIN[3], "what is on the screen, or fetched ahead of it, is not given to anybody else"


def test_logged_out_in_another_tab_keeps_the_answer_until_the_next_login(visitor, site):
    queue_id = open_page(visitor, site, PLAIN)
    cookies = visitor.context.cookies()
    visitor.context.clear_cookies()
    visitor.page.keyboard.press("2")
    visitor.wait_for_status("Logged out (1)")
    visitor.context.add_cookies(cookies)
    visitor.wait_for_status("Saved.")
    assert site.answers(queue_id) == [(PLAIN[0], "부정")]
