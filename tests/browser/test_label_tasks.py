"""Every task type on the annotator's page, by keyboard alone; suggestions, known tasks, and a changed question."""

from sqlalchemy import select

from catalog.tables.labeling import Annotation, LabelQueue, LabelSuggestion, LabelTask
from labeling import gold, queue
from labeling.schema import parse_schema
from labeling.tasks.pairwise import pair_text

SPANS = parse_schema(
    "task: spans\nguidelines: All of <it> is at https://example.org/a.\n"
    "labels: [{name: LOC, hotkey: l}, {name: 사람, hotkey: p}]"
)
TEXT = "홍길동은 👩🏽‍🚀 서울에서 방콕(กรุงเทพฯ)으로 갔다"


def open_queue(visitor, site, texts, schema, shown=None, **options):
    queue_id = site.add_queue(texts, schema=schema, **options)
    visitor.log_in(site, "지훈", f"/label/{queue_id}")
    visitor.wait_for_text(texts[0] if shown is None else shown)
    return queue_id


def values(site, queue_id, count):
    return [value for _, value in site.until_answers(queue_id, count)]


def press(visitor, *keys):
    for key in keys:
        visitor.page.keyboard.press(key)


def test_spans_are_marked_by_keyboard_and_counted_in_code_points(visitor, site):
    queue_id = open_queue(visitor, site, [TEXT, "없다"], SPANS)
    # The first word, without its particle, character by character.
    press(visitor, "ArrowRight", ",", "p")
    press(visitor, "ArrowRight", "ArrowRight", ",", ",", "l")
    press(visitor, "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "l", "Delete", "l")
    marked = visitor.page.locator("#text mark").all_inner_texts()
    assert marked[0] == "홍길동"
    assert visitor.page.inner_text("#text") == TEXT
    assert visitor.page.get_by_role("button", name="Remove 사람 홍길동").count() == 1
    press(visitor, "Enter")
    visitor.wait_for_text("없다")
    press(visitor, "Enter")
    visitor.wait_for_status("Nothing is marked. Enter again")
    press(visitor, "Enter")
    first, second = values(site, queue_id, 2)
    assert second == []
    assert first[0] == {"start": 0, "end": 3, "label": "사람"}
    # What the browser counts in UTF-16 units and the service in code points are the same words.
    assert "서울" in [TEXT[one["start"] : one["end"]] for one in first]
    assert visitor.troubles == []
    assert visitor.violations() == []


def test_what_is_said_of_a_text_outlasts_news_of_the_answer_before(visitor, site):
    queue_id = open_queue(visitor, site, [TEXT, "없다"], SPANS)
    held = []
    visitor.page.route("**/annotation", lambda route: route.continue_() if held else held.append(route))
    press(visitor, "ArrowRight", ",", "p", "Enter")
    visitor.wait_for_text("없다")
    press(visitor, "Enter")
    visitor.wait_for_status("Nothing is marked. Enter again")
    with visitor.page.expect_response("**/progress"):
        held[0].continue_()
    values(site, queue_id, 1)
    assert "Nothing is marked. Enter again" in visitor.page.inner_text("#status")
    press(visitor, "Enter")
    visitor.wait_for_status("Saved.")


def test_an_answer_given_while_another_is_on_its_way_is_sent_too(visitor, site):
    queue_id = open_queue(visitor, site, [TEXT, "없다"], SPANS)
    held = []
    visitor.page.route("**/annotation", lambda route: held.append(route), times=1)
    press(visitor, "ArrowRight", ",", "p", "Enter")
    visitor.wait_for_text("없다")
    press(visitor, "Enter", "Enter")
    visitor.wait_for_status("Sending")
    held[0].continue_()
    visitor.wait_for_status("Saved.")
    first, second = values(site, queue_id, 2)
    assert (len(first), second) == (1, [])


def test_spans_by_mouse_never_cut_a_character_and_overlaps_are_refused_in_words(visitor, site):
    queue_id = open_queue(visitor, site, [TEXT], SPANS)
    # From the middle of the astronaut's five code points to the middle of the next word.
    visitor.page.evaluate(
        """() => {
             const node = document.getElementById('text').firstChild.firstChild;
             getSelection().setBaseAndExtent(node, 7, node, 14);
             document.getElementById('text').dispatchEvent(new MouseEvent('mouseup', { bubbles: true }));
           }"""
    )
    press(visitor, "l")
    press(visitor, ",", "p")
    visitor.wait_for_status("This overlaps")
    press(visitor, "Enter")
    ((span,),) = values(site, queue_id, 1)
    assert TEXT[span["start"] : span["end"]].startswith("👩🏽‍🚀")


def test_a_selection_is_taken_where_the_mouse_lets_go_beside_the_text_and_where_no_event_tells_of_it(visitor, site):
    queue_id = open_queue(visitor, site, [TEXT, "서울에서 만나자"], SPANS)
    assert visitor.page.get_attribute("#text", "lang") == "ko"
    assert visitor.page.get_attribute("#guidelines-dialog a", "href") == "https://example.org/a"
    assert "All of <it>" in visitor.page.text_content("#guidelines-dialog")
    box = visitor.page.locator("#text").bounding_box()
    visitor.page.mouse.move(box["x"] + 1, box["y"] + 10)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + box["width"] + 60, box["y"] + 10, steps=4)
    visitor.page.mouse.up()
    press(visitor, "p", "Enter")
    visitor.wait_for_text("서울에서 만나자")
    # As by the handles of a phone: selected, and no event but the touch on a label.
    visitor.page.evaluate(
        """() => {
             const node = document.getElementById('text').firstChild.firstChild;
             getSelection().setBaseAndExtent(node, 0, node, 2);
           }"""
    )
    visitor.page.wait_for_selector("main[data-state=ready]")
    visitor.page.locator("#answer .labels button").first.click()
    press(visitor, "Enter")
    (whole,), (short,) = values(site, queue_id, 2)
    assert (whole["start"], whole["end"]) == (0, len(TEXT))
    assert (short["start"], short["end"]) == (0, 2)


def test_several_labels_are_chosen_by_their_keys_within_the_bounds(visitor, site):
    schema = parse_schema("task: multi_label\nmax_labels: 2\nlabels: [빠름, 친절, 비쌈]")
    queue_id = open_queue(visitor, site, ["좋아요", "나빠요"], schema)
    press(visitor, "Enter")
    visitor.wait_for_status("At least 1 label.")
    press(visitor, "3", "1", "2")
    visitor.wait_for_status("At most 2 labels")
    press(visitor, "3", "2", "ArrowDown", "Enter")
    visitor.wait_for_text("나빠요")
    assert visitor.page.locator("button[aria-pressed=true]").count() == 0
    assert values(site, queue_id, 1) == [["빠름", "친절"]]


def test_a_rating_is_one_key_and_a_long_scale_a_number(visitor, site):
    short = open_queue(visitor, site, ["a", "b"], parse_schema("task: rating\nmax: 10\nlow: bad\nhigh: good"))
    press(visitor, "7")
    visitor.wait_for_text("b")
    press(visitor, "0")
    assert values(site, short, 2) == [7, 10]
    long = site.add_queue(["c", "d"], schema=parse_schema("task: rating\nmin: 0\nmax: 100\nstep: 0.5"), name="long")
    visitor.page.goto(f"{site.url}/label/{long}")
    visitor.wait_for_text("c")
    visitor.page.keyboard.type("7.25")
    press(visitor, "Enter")
    visitor.wait_for_status("A number from 0 to 100 in steps of 0.5.")
    press(visitor, "Backspace", "Backspace", "5", "Enter")
    visitor.wait_for_text("d")
    assert values(site, long, 1) == [7.5]


def test_a_written_answer_keeps_its_lines_and_leaves_the_commands_alone(visitor, site):
    schema = parse_schema("task: free_text\nmin_chars: 2\nmax_chars: 40")
    queue_id = open_queue(visitor, site, ["Summarise 한글", "next"], schema)
    visitor.page.keyboard.insert_text("한")
    press(visitor, "Control+Enter")
    visitor.wait_for_status("1 characters: this queue takes 2 to 40.")
    # Letters that are commands elsewhere are text here.
    visitor.page.keyboard.type("szg")
    press(visitor, "Enter")
    visitor.page.keyboard.insert_text("글 👍🏽")
    press(visitor, "Control+Enter")
    visitor.wait_for_text("next")
    assert values(site, queue_id, 1) == ["한szg\n글 👍🏽"]
    press(visitor, "Escape", "g")
    visitor.page.wait_for_selector("#guidelines-dialog[open]")


def test_of_two_texts_the_better_one_is_chosen_whichever_side_it_is_on(visitor, site):
    schema = parse_schema("task: pairwise\na: first\nb: second\nties: true")
    texts = [pair_text(f"good {number}", f"bad {number}", f"prompt {number}") for number in range(8)]
    queue_id = open_queue(visitor, site, texts, schema, shown="prompt 0")
    sides = set()
    for number in range(8):
        visitor.wait_for_text(f"prompt {number}")
        left = visitor.page.inner_text(".pair section:first-child")
        sides.add(left)
        press(visitor, "1" if left == f"good {number}" else "2") if number else press(visitor, "3")
    assert values(site, queue_id, 8) == ["tie", *["a"] * 7]
    assert {side.split()[0] for side in sides} == {"good", "bad"}


def test_a_suggestion_is_taken_with_enter_and_a_known_answer_is_told(visitor, site):
    schema = parse_schema(
        "labels: [{name: 긍정, description: 좋다고 함}, {name: 부정, description: 나쁘다고 함}, 중립]"
    )
    queue_id = site.add_queue(["one", "two", "three"], schema=schema, name="suggested")
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        made = {"queue_id": queue_id, "source": "small-model v3", "created_at": now}
        session.add(LabelSuggestion(record_id="r0", value="부정", score=0.75, **made))
        items = [gold.GoldItem(record_id="r1", text="two", value="긍정", note="It thanks the courier.")]
        gold.add_gold(session, now=now, queue_id=queue_id, items=items)
        session.get_one(LabelQueue, queue_id).gold_every = 2
    visitor.log_in(site, "지훈", f"/label/{queue_id}")
    for _ in range(3):
        visitor.page.wait_for_function("() => document.querySelector('main').dataset.state === 'ready'")
        lease, text = visitor.page.get_attribute("main", "data-lease"), visitor.page.inner_text("#text")
        if text == "one":
            told = visitor.page.inner_text("#suggestion")
            assert told == "Suggested by small-model v3 (0.75): 부정. Enter takes it as it is."
            assert visitor.page.inner_text("#compare").split() == ["긍정", "좋다고", "함", "부정", "나쁘다고", "함"]
            press(visitor, "Enter")
        else:
            assert not visitor.page.is_visible("#suggestion")
            press(visitor, "3")
        if text == "two":
            visitor.wait_for_status("the known answer is “긍정”: It thanks the courier.")
        visitor.page.wait_for_function("lease => document.querySelector('main').dataset.lease !== lease", arg=lease)
    with site.catalog.read() as session:
        rows = session.query(LabelTask.text, Annotation.value).join(Annotation, Annotation.task_id == LabelTask.id)
        found = dict(rows.where(LabelTask.queue_id == queue_id).all())
    assert found == {"one": "부정", "two": "중립", "three": "중립"}


def test_a_changed_question_is_loaded_and_the_answer_under_way_is_kept(visitor, site):
    schema = parse_schema("labels: [긍정, 부정]")
    queue_id = open_queue(visitor, site, ["a", "b", "c", "d"], schema)
    with site.catalog.write() as session:
        now = site.catalog.now(session)
        renamed = parse_schema("version: 2\nlabels: [{name: 좋음, was: 긍정}, 부정, 모름]")
        queue.change_schema(session, now=now, queue_id=queue_id, schema=renamed)
    press(visitor, "1")
    visitor.wait_for_text("b")
    visitor.page.wait_for_function("() => document.querySelector('main').dataset.ahead === '2'")
    press(visitor, "1")
    visitor.page.wait_for_function("() => document.querySelectorAll('#answer .labels button').length === 3")
    visitor.wait_for_text("c")
    press(visitor, "3")
    site.until_answers(queue_id, 3)
    with site.catalog.read() as session:
        labels = sorted(one.value for one in queue.current_labels(session, queue_id=queue_id))
        stored = sorted(session.scalars(select(Annotation.value).where(Annotation.queue_id == queue_id)).all())
    assert (labels, stored) == (["모름", "좋음", "좋음"], ["긍정", "긍정", "모름"])
    assert visitor.troubles == []
