"""Pages as the server draws them: what is on them, for whom, and that text stays text."""

import html
import json
import re
from datetime import timedelta

import pytest

from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import LabelQueue, LabelRound
from catalog.tables.training import Evaluation, LossPoint
from labeling.simulation import CurvePoint, LearningCurve
from service.losses import arm_curves, loss_charts
from service.pages.charts import Series, line_chart
from service.pages.login import local_path
from service.report import learning_chart
from workers.requests import ask_after
from workers.schedules import Wanted, add_schedule

BASE = "http://127.0.0.1:8765"


def test_login_sets_a_strict_cookie_that_is_not_the_token(world):
    client = world.client(Origin=BASE)
    answer = client.post("/login", data={"token": world.tokens["curator"], "next": "/runs/1?x=2"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/1?x=2")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert world.tokens["curator"] not in cookie
    assert len(world.audited("session.started")) == 1


def test_cookie_is_secure_behind_a_proxy(world):
    catalog = world.app.state.catalog
    catalog.settings = catalog.settings.model_copy(update={"behind_proxy": True})
    answer = world.client(Origin=BASE).post("/login", data={"token": world.tokens["curator"]})
    assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_wrong_token_shows_the_form_again_without_it(world):
    answer = world.client(Origin=BASE).post("/login", data={"token": "wnw_mistyped"})
    assert answer.status_code == 401
    assert "not valid" in answer.text
    assert "wnw_mistyped" not in answer.text


def test_logging_out_ends_the_session_in_the_database(world):
    client = world.browser("curator")
    cookie = client.cookies["winnow_session"]
    assert client.post("/logout").status_code == 303
    assert world.client(Cookie=f"winnow_session={cookie}").get("/").status_code == 303
    assert world.client("curator").get("/api/v1/queues").status_code == 200, "the token itself lives on"


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil", "javascript:alert(1)", "", "/\n/evil"],
)
def test_login_never_sends_anyone_elsewhere(world, target):
    assert local_path(target) == "/"
    answer = world.client(Origin=BASE).post("/login", data={"token": world.tokens["curator"], "next": target})
    assert answer.headers["location"] == "/"


def test_home_shows_datasets_runs_and_queues(world):
    page = world.browser("curator").get("/").text
    assert "/datasets/tickets%20%EA%B3%A0%EA%B0%9D" in page
    assert f"/runs/{world.run_id}" in page
    assert f"/label/{world.queue_id}" in page


def test_home_shows_annotators_their_queues_only(world):
    page = world.browser("annotator").get("/").text
    assert f"/label/{world.queue_id}" in page
    assert "/datasets/" not in page
    assert "/runs/" not in page


def test_rehearsals_are_not_offered_to_annotators(world):
    with world.catalog.write() as session:
        session.get_one(LabelQueue, world.queue_id).rehearsal = True
    assert f"/label/{world.queue_id}" not in world.browser("annotator").get("/").text
    page = world.browser("curator").get("/").text
    assert f"/label/{world.queue_id}" not in page
    assert f"/queues/{world.queue_id}" in page


def test_dataset_page_draws_the_funnel_from_the_verdicts(world):
    page = world.browser("curator").get("/datasets/tickets 고객").text
    rows = re.findall(
        r'<th scope="row">(.+?)</th>\s*<td class="number">(.+?)</td>.*?<rect class="(?!track)\w+" width="(.+?)"',
        page,
        re.DOTALL,
    )
    assert rows == [
        ("records in", "10", "100.00%"),
        ("min_words", "3", "30.00%"),
        ("exact_duplicate", "2", "20.00%"),
        ("kept", "5", "50.00%"),
    ]
    assert "a&lt;b&gt;.jsonl" in page
    assert "not JSON" in page


def test_dataset_page_shows_the_recipe_of_each_version(world):
    page = world.browser("curator").get("/datasets/tickets 고객").text
    assert "<td>curated</td><td>mine &lt;1&gt;</td>" in page


def test_run_page_shows_why_a_unit_gave_up_as_text(world):
    page = world.browser("curator").get(f"/runs/{world.run_id}").text
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in page
    assert '<span class="state state-poisoned">given up</span>' in page


def test_run_page_takes_the_first_characters_of_an_id(world):
    browser = world.browser("curator")
    moved = browser.get(f"/runs/{world.run_id[:8]}")
    assert (moved.status_code, moved.headers["location"]) == (303, f"/runs/{world.run_id}")
    assert browser.get("/runs/ffffffff").status_code == 404
    assert browser.get("/runs/ff").status_code == 404


def test_run_page_tells_stages_by_what_they_do_and_those_without_work_apart(world):
    with world.catalog.write() as session:
        session.get_one(Run, world.run_id).stage = 2
    page = world.browser("curator").get(f"/runs/{world.run_id}").text
    table, _, below = page.partition("</table>")
    assert "of one shard" in table
    assert "Nothing to do in: <span>" in below
    assert "0 / 0" not in page


def test_run_page_of_a_training_draws_its_arms(world):
    with world.catalog.write() as session:
        run = session.get_one(Run, world.run_id)
        run.kind = "train"
        payload = {"arm": "small", "index": 0, "steps": 9, "seed": 5, "control_of": None, "replica_of": None}
        session.add(
            Unit(run_id=run.id, stage=1, stage_name="fit", position=0, payload=payload, ready_at=run.created_at)
        )
        session.add_all(LossPoint(run_id=run.id, arm="small", step=step, loss=4.0 / step) for step in (1, 2))
    for path in (f"/runs/{world.run_id}", f"/runs/{world.run_id}/losses"):
        page = world.browser("curator").get(path).text
        assert '<td class="number" data-name="Steps">2</td><td class="number" data-name="Of">9</td>' in page
        assert '<td class="number" data-name="Loss">2.0000</td>' in page
        assert page.count("<polyline") == 1


VARIANT = {
    "accuracy": 0.75,
    "macro_f1": 0.5,
    "latency_ms": 1.0,
    "flops": 9,
    "size_bytes": 2_000_000,
    "energy_joules": None,
}
COMPARISON = {
    "arm": "small", "control": "small-random", "order": "random order", "steps": 9, "seeds": 2, "difference": 0.031,
    "low": 0.012, "high": 0.05, "verdict": "paid",
}  # fmt: skip


def test_run_page_of_a_training_tells_what_came_of_it_once_it_is_done(world):
    browser, paths = world.browser("curator"), (f"/runs/{world.run_id}", f"/runs/{world.run_id}/losses")
    with world.catalog.write() as session:
        run = session.get_one(Run, world.run_id)
        run.kind, run.config = "train", {"recipe": {"compare": "controls"}}
        unit = Unit(
            run_id=run.id, stage=1, stage_name="fit", position=0, payload={"arm": "small", "steps": 9}, state="running",
            ready_at=run.created_at,
        )  # fmt: skip
        session.add(unit)
    assert "Result</h2>" not in browser.get(paths[0]).text
    with world.catalog.write() as session:
        session.merge(unit).state = "done"
    early = browser.get(paths[0]).text
    assert f'<a href="/api/v1/runs/{world.run_id}/models/small" download>' in early
    assert f"winnow export-model {world.run_id[:8]}/small" in early
    assert "Nothing is measured yet" in early
    row = {"arm": "small", "variant": "none"} | VARIANT
    found = {"comparisons": [COMPARISON], "curricula": [{"arm": "small", "verdict": "paid"}], "test": 40}
    with world.catalog.write() as session:
        detail = {"accuracy_low": 0.61, "accuracy_high": 0.86}
        run = session.get_one(Run, world.run_id)
        session.add(Evaluation(id="e", run_id=run.id, num_examples=40, detail=detail, **row))
        run.result = found | {"energy_method": "not measured", "variants": [row | {"agreement": None}]}
    for page in (html.unescape(browser.get(path).text) for path in paths):
        table = page.partition('id="result"')[2].partition("</table>")[0]
        assert re.findall(r"<td[^>]*>([^<]*)", table) == ["as trained", "0.75", "0.61", "0.86", "0.5", "2"]
        assert "small against random order at 9 equal steps and 2 seeds: accuracy +3.1 points (+1.2 to +5.0)" in page
        assert "<li>curriculum of small: paid</li>" in page
        assert "winnow report tickets" in page


def test_schedules_page_lists_what_waits_with_its_run_and_not_what_has_started(world):
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        given = {"now": now, "after": world.run_id, "kind": "dedup", "dataset": "tickets 고객", "config": {}}
        asked = [ask_after(session, **given) for _ in "abc"]
        # A job without a recipe.
        wanted = Wanted(name="nightly", dataset="tickets 고객", kind="dedup", config={}, cron="0 3 * * *")
        add_schedule(session, world.catalog.settings, wanted, now=now)
        asked[1].state, asked[2].state, asked[2].reason = "started", "refused", "see `winnow <b>`"
        run = session.get_one(Run, world.run_id)
        run.state = "failed"
        ids = [one.id[:8] for one in asked]
    page = world.browser("curator").get("/schedules").text
    assert [one in page for one in ids] == [True, False, True]
    assert f"<code>winnow resume {world.run_id[:8]}</code>" in page
    assert f'<a href="/runs/{world.run_id}">See that run</a>' in page
    assert "see <code>winnow &lt;b&gt;</code>" in page
    assert page.count("data-cancel") == 1


def test_queue_page_draws_one_line_an_arm(world):
    with world.catalog.write() as session:
        now = world.catalog.now(session)
        for arm, lift in (("margin", 0.1), ("random", 0.0)):
            for number in (1, 2, 3):
                accuracy = 0.5 + lift + number / 20
                session.add(
                    LabelRound(
                        queue_id=world.queue_id,
                        arm=arm,
                        round=number,
                        num_labels=50 * number,
                        num_examples=100,
                        accuracy=accuracy,
                        accuracy_low=accuracy - 0.05,
                        accuracy_high=accuracy + 0.05,
                        macro_f1=accuracy,
                        seconds=1.0,
                        created_at=now + timedelta(seconds=number),
                    )
                )
    page = world.browser("curator").get(f"/queues/{world.queue_id}").text
    assert page.count("<polyline") == 2
    assert page.count("<circle") == 6
    assert re.findall(r'<circle class="dot series-(\d)".*?<title>(\w+): 150', page) == [
        ("0", "margin"),
        ("1", "random"),
    ]
    assert "0.750" in page


def test_label_page_carries_schema_and_hotkeys(world):
    page = world.browser("annotator").get(f"/label/{world.queue_id}").text
    (given,) = re.findall(r'data-schema="(.+?)"', page)
    labels = json.loads(html.unescape(given))["labels"]
    assert [(one["name"], one["hotkey"]) for one in labels] == [("긍정", "1"), ("부정", "2"), ("중립", "3")]
    assert "Judge the tone, not the topic." in page


def test_unknown_pages_are_404_pages_that_lead_to_the_list_of_what_there_is(world):
    client = world.browser("curator")
    lists = {"/runs/none": "runs", "/queues/none": "queues", "/label/none": "queues", "/datasets/none": "datasets"}
    home = client.get("/").text
    for path, listed in {**lists, "/nothing": None}.items():
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
        assert "Not found" in answer.text
        assert f'<a href="/{"" if listed is None else "#" + listed}">' in answer.text, path
        assert listed is None or f'id="{listed}"' in home


def test_no_page_needs_inline_style_or_script(world):
    client = world.browser("curator")
    for path in (
        "/",
        "/login",
        "/datasets/tickets 고객",
        f"/runs/{world.run_id}",
        f"/queues/{world.queue_id}",
        f"/label/{world.queue_id}",
        "/nothing",
    ):
        page = client.get(path).text
        assert not re.search(r"<[^>]*\s(style|on\w+)=", page), path
        assert "<style" not in page
        assert re.findall(r"<script(?![^>]*src=)", page) == []
        assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []


def test_chart_keeps_points_inside_and_upwards():
    chart = line_chart([Series(name="a", points=((10, 0.5), (20, 0.9)), low=(0.4, 0.8), high=(0.6, 1.0))])
    assert chart is not None
    (x1, y1, _), (x2, y2, _) = chart.lines[0].markers
    assert chart.left <= x1 < x2 <= chart.right
    assert chart.top <= y2 < y1 <= chart.bottom
    assert line_chart([]) is None
    assert line_chart([Series(name="a", points=())]) is None
    assert line_chart([Series(name="a", points=((1, 0.5),))]) is not None


def test_chart_draws_what_others_are_measured_against_in_grey_and_the_first_other_in_the_accent():
    names = ("random", "margin", "small-random", "kmeans")
    chart = line_chart([Series(name=name, points=((1, 0.5),), is_reference="random" in name) for name in names])
    assert chart is not None
    assert [(line.name, line.number) for line in chart.lines] == list(zip(names, (1, 0, 1, 2), strict=True))


def test_report_draws_random_selection_and_random_order_in_grey(world):
    point = CurvePoint(num_labels=10, accuracy=0.5, macro_f1=0.5, low=0.4, high=0.6)
    learning = learning_chart({name: LearningCurve((point,)) for name in ("random", "margin")})
    assert learning is not None
    assert [(line.name, line.number) for line in learning.lines] == [("random", 1), ("margin", 0)]
    with world.catalog.write() as session:
        run = session.get_one(Run, world.run_id)
        run.kind, run.result = "train", {"comparisons": [{"arm": "b", "control": "a-random"}]}
        for position, arm in enumerate(("a-random", "b")):
            payload = {"arm": arm, "index": position, "steps": 1}
            about = {"stage": 1, "stage_name": "fit", "position": position, "ready_at": run.created_at}
            session.add(Unit(run_id=run.id, payload=payload, **about))
            session.add(LossPoint(run_id=run.id, arm=arm, step=1, loss=1.0))
        session.flush()
        (losses,) = loss_charts(arm_curves(session, run))
    assert [(line.name, line.number) for line in losses.lines] == [("a-random", 1), ("b", 0)]
