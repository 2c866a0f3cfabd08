"""Queues joined to what fills them: asking twice, refits that fail, and queues that end only when nothing is left."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.errors import ConflictError
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.engine import Run
from catalog.tables.labeling import LabelEntry, LabelQueue, LabelRound, LabelTask
from labeling import queue as queues
from labeling.schema import parse_schema
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import LABELS, RECIPE, sentences
from workers import curated, manifests, runs
from workers.labeling import RETRY_SECONDS, open_queue, refill, refresh_if_due

SCHEMA = parse_schema("question: Which queue?\nlabels:\n" + "".join(f"  - name: {name}\n" for name in LABELS))
NUM_RECORDS = 310


@pytest.fixture
def cleaned(database: Catalog, tmp_path: Path) -> Catalog:
    """A cleaned dataset, small."""
    clean_dataset(database, tmp_path, sentences(60, seed=3))
    return database


@pytest.fixture
def many(sqlite: Catalog, tmp_path: Path) -> Catalog:
    """A cleaned dataset whose records do not fit into one generation."""
    clean_dataset(sqlite, tmp_path, sentences(NUM_RECORDS, seed=3))
    return sqlite


def ask(catalog: Catalog, **options: Any) -> tuple[str, str, str]:
    return open_queue(
        catalog,
        dataset="tickets",
        **{"name": "q", "schema": SCHEMA, "strategy": "margin", "random_share": 0.0} | options,
    )


def kept(catalog: Catalog) -> set[str]:
    """Every record that may be asked about."""
    with catalog.read() as session:
        version = manifests.require_version(session, manifests.find_dataset(session, "tickets"), "curated")
    return set(curated.read_records(Store.of(catalog.settings), version)["id"])


def end(catalog: Catalog, run_id: str, state: str, *, seconds_ago: float = 0.0) -> None:
    """Let a run have ended without its work."""
    with catalog.write() as session:
        run, now = session.get_one(Run, run_id), catalog.now(session)
        if state == "cancelled":
            runs.cancel(session, run, now)
        run.state, run.reason, run.finished_at = state, "choose: a disk broke", now - timedelta(seconds=seconds_ago)


def state_of(catalog: Catalog, run_id: str) -> str:
    with catalog.read() as session:
        return session.get_one(Run, run_id).state


def ask_next(catalog: Catalog, queue_id: str, annotator: str) -> Any:
    with catalog.write() as session:
        return queues.next_task(session, now=catalog.now(session), queue_id=queue_id, annotator_id=annotator)


def answer(catalog: Catalog, served: Any, annotator: str) -> None:
    value = LABELS[sum(served.record_id.encode()) % len(LABELS)]
    with catalog.write() as session:
        now = catalog.now(session)
        queues.submit(session, now=now, lease_id=served.lease_id, annotator_id=annotator, value=value, key=new_id())


def skip(catalog: Catalog, served: Any, annotator: str) -> None:
    with catalog.write() as session:
        now = catalog.now(session)
        queues.skip(session, now=now, lease_id=served.lease_id, annotator_id=annotator, reason="cannot tell")


def work(catalog: Catalog, queue_id: str, annotator: str, act: Callable[[Catalog, Any, str], None]) -> list[str]:
    """Deal with every task until there is none for this annotator; the records in order."""
    seen: list[str] = []
    waited = 0
    while True:
        served = ask_next(catalog, queue_id, annotator)
        if isinstance(served, queues.Served):
            act(catalog, served, annotator)
            seen.append(served.record_id)
            waited = 0
            continue
        if served.reason == "done":
            return seen
        assert served.reason == "waiting_for_model"
        assert waited == 0, f"after {len(seen)} tasks a new generation had nothing"
        assert refill(catalog, queue_id) is None
        drain(catalog)
        waited += 1


def test_equal_create_is_the_same_queue_and_goes_on_with_its_first_choice(cleaned: Catalog) -> None:
    queue_id, run_id, state = ask(cleaned)
    assert state == "new"
    assert ask(cleaned) == (queue_id, run_id, "running")
    end(cleaned, run_id, "failed")
    assert ask(cleaned, lease_seconds=cleaned.settings.label_lease_seconds) == (queue_id, run_id, "resumed")
    end(cleaned, run_id, "cancelled")
    assert ask(cleaned) == (queue_id, run_id, "resumed")
    drain(cleaned)
    assert ask(cleaned) == (queue_id, run_id, "done")
    with cleaned.read() as session:
        assert session.scalar(select(func.count()).select_from(LabelQueue)) == 1
        assert session.scalar(select(func.count()).select_from(Run).where(Run.kind == "query")) == 1
    assert isinstance(ask_next(cleaned, queue_id, "ann"), queues.Served)


def test_create_under_a_taken_name_is_refused_with_what_differs(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id, _, _ = ask(cleaned)
    for options, told in (
        ({"strategy": "random"}, "strategy='margin' (asked for: 'random')"),
        ({"overlap": 2, "seed": 7}, "overlap=1 (asked for: 2), seed=0 (asked for: 7)"),
        ({"refresh_every": 50}, "refresh_every=20 (asked for: 50)"),
        ({"lease_seconds": 5.0}, "lease_seconds=600.0 (asked for: 5.0)"),
        ({"held_out_share": 0.2, "rehearsal": True}, "rehearsal=False (asked for: True)"),
        ({"schema": parse_schema("labels: [a, b]")}, "another schema"),
    ):
        with pytest.raises(ConflictError, match="already has a label queue named 'q'") as refused:
            ask(cleaned, **options)
        assert told in str(refused.value)
    with cleaned.write() as session:
        queues.close_queue(session, now=cleaned.now(session), queue_id=queue_id)
    with pytest.raises(ConflictError, match="it is closed"):
        ask(cleaned)
    clean_dataset(cleaned, tmp_path, sentences(60, seed=3), recipe=RECIPE.replace("minimum: 3", "minimum: 4"))
    with pytest.raises(ConflictError, match=r"version 2 of the dataset \(the newest curated one: 3\)"):
        ask(cleaned)


def test_what_is_not_given_is_whatever_the_queue_has(cleaned: Catalog) -> None:
    queue_id, run_id, _ = ask(cleaned, overlap=2, strategy="entropy", seed=3, refresh_every=50, budget=99)
    with cleaned.write() as session:
        # As a release before these options existed left it, and as `winnow label gold --every` does.
        made = session.get_one(LabelQueue, queue_id)
        made.random_share, made.hidden_share, made.gold_every = 0.0, 0.25, 10
    bare = {"dataset": "tickets", "name": "q", "schema": SCHEMA}
    assert open_queue(cleaned, **bare) == (queue_id, run_id, "running")
    given = {"hidden_share": 0.25, "gold_every": 10, "budget": 99, "random_share": 0.0}
    assert open_queue(cleaned, **bare, **given) == (queue_id, run_id, "running")
    for option, told in (
        ({"random_share": 0.1}, "random_share=0.0 (asked for: 0.1)"),
        ({"hidden_share": 0.0}, "hidden_share=0.25 (asked for: 0.0)"),
        ({"gold_every": 0}, "gold_every=10 (asked for: 0)"),
        ({"budget": 100}, "budget=99 (asked for: 100)"),
        ({"strategy": "auto", "overlap": 1}, "strategy='entropy' (asked for: 'auto'), overlap=2 (asked for: 1)"),
    ):
        with pytest.raises(ConflictError) as refused:
            open_queue(cleaned, **bare, **option)
        assert told in str(refused.value)


def test_new_queue_has_the_defaults(cleaned: Catalog) -> None:
    queue_id, _, _ = open_queue(cleaned, dataset="tickets", name="q", schema=SCHEMA)
    suspected = {"rehearsal": True, "strategy": "label_errors"}
    rehearsed, _, _ = open_queue(cleaned, dataset="tickets", name="r", schema=SCHEMA, **suspected)
    with cleaned.read() as session:
        made, other = session.get_one(LabelQueue, queue_id), session.get_one(LabelQueue, rehearsed)
    assert (made.strategy, made.overlap, made.seed, made.refresh_every) == ("auto", 1, 0, 20)
    assert (made.random_share, made.gold_every, made.hidden_share, made.budget) == (0.1, 0, 0.0, None)
    assert (made.lease_seconds, made.held_out_share) == (cleaned.settings.label_lease_seconds, 0.0)
    assert other.random_share == 0.0


def test_refit_that_was_cancelled_or_failed_is_asked_for_again(cleaned: Catalog) -> None:
    queue_id, _, _ = ask(cleaned, refresh_every=3)
    drain(cleaned)
    for _ in range(3):
        answer(cleaned, ask_next(cleaned, queue_id, "ann"), "ann")
    run_id = refresh_if_due(cleaned, queue_id)
    assert run_id is not None
    assert refresh_if_due(cleaned, queue_id) is None
    end(cleaned, run_id, "cancelled")
    assert refresh_if_due(cleaned, queue_id) == run_id
    end(cleaned, run_id, "failed")
    # Not at every answer: what has just failed would fail again.
    assert refresh_if_due(cleaned, queue_id) is None
    end(cleaned, run_id, "failed", seconds_ago=RETRY_SECONDS + 1)
    assert refresh_if_due(cleaned, queue_id) == run_id
    drain(cleaned)
    assert state_of(cleaned, run_id) == "done"
    assert refresh_if_due(cleaned, queue_id) is None


def test_empty_queue_whose_refit_failed_is_told_so_and_filled_after_a_while(cleaned: Catalog) -> None:
    queue_id, _, _ = ask(cleaned, refresh_every=3, num_entries=3)
    drain(cleaned)
    for _ in range(3):
        answer(cleaned, ask_next(cleaned, queue_id, "ann"), "ann")
    refit = refresh_if_due(cleaned, queue_id)
    assert refit is not None
    assert refill(cleaned, queue_id) is None
    end(cleaned, refit, "failed")
    assert ask_next(cleaned, queue_id, "ann").reason == "waiting_for_model"
    assert f"the reason of run {refit[:8]}" in (refill(cleaned, queue_id) or "")
    end(cleaned, refit, "failed", seconds_ago=RETRY_SECONDS + 1)
    assert refill(cleaned, queue_id) is None
    assert "running" in states(cleaned)
    assert refill(cleaned, queue_id) is None
    drain(cleaned)
    assert isinstance(ask_next(cleaned, queue_id, "ann"), queues.Served)


def test_queue_whose_first_choice_failed_gets_it_by_being_asked(cleaned: Catalog) -> None:
    queue_id, run_id, _ = ask(cleaned)
    end(cleaned, run_id, "failed", seconds_ago=RETRY_SECONDS + 1)
    assert ask_next(cleaned, queue_id, "ann").reason == "waiting_for_model"
    assert refill(cleaned, queue_id) is None
    assert (state_of(cleaned, run_id), states(cleaned)) == ("running", ["running"])


def states(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return list(session.scalars(select(Run.state).where(Run.kind == "query").order_by(Run.created_at)))


def test_queue_that_is_refitted_rarely_ends_only_when_every_record_is_answered(many: Catalog) -> None:
    queue_id, _, _ = ask(many, refresh_every=105, num_entries=5)
    asked = work(many, queue_id, "ann", answer)
    assert len(asked) == len(set(asked))
    assert set(asked) == kept(many)
    assert work(many, queue_id, "bo", answer) == []
    with many.read() as session:
        sizes = session.execute(
            select(func.count())
            .where(LabelEntry.queue_id == queue_id)
            .group_by(LabelEntry.generation)
            .order_by(LabelEntry.generation)
        ).scalars()
        rounds = session.scalars(select(LabelRound).where(LabelRound.queue_id == queue_id)).all()
    assert list(sizes) == [5, 210, len(asked) - 215]
    assert rounds == []


@pytest.mark.no_cover
def test_one_annotator_of_a_queue_with_overlap_goes_on_and_the_second_finishes(many: Catalog) -> None:
    queue_id, _, _ = ask(many, overlap=2, num_entries=10)
    first = work(many, queue_id, "ann", answer)
    assert set(first) == kept(many)
    with many.read() as session:
        assert queues.progress(session, now=many.now(session), queue_id=queue_id).num_done == 0
        newest = select(func.max(LabelEntry.generation)).where(LabelEntry.queue_id == queue_id).scalar_subquery()
        size = session.scalar(
            select(func.count()).where(LabelEntry.queue_id == queue_id, LabelEntry.generation == newest)
        )
    # What waits for a second answer is carried over, but not all of it every time.
    assert size == 200 + len(first) - 210
    second = work(many, queue_id, "bo", answer)
    assert sorted(second) == sorted(first)
    with many.read() as session:
        assert queues.progress(session, now=many.now(session), queue_id=queue_id).num_done == len(first)
    assert work(many, queue_id, "cy", answer) == []


def test_half_answered_tasks_come_first_in_the_next_generation_and_skipped_ones_last(cleaned: Catalog) -> None:
    queue_id, _, _ = ask(cleaned, overlap=2, num_entries=5)
    drain(cleaned)
    skipped = ask_next(cleaned, queue_id, "ann")
    skip(cleaned, skipped, "ann")
    half = []
    for _ in range(2):
        half.append(ask_next(cleaned, queue_id, "ann"))
        answer(cleaned, half[-1], "ann")
    assert refill(cleaned, queue_id) is None
    drain(cleaned)
    with cleaned.read() as session:
        entries = session.execute(
            select(LabelTask.record_id, LabelEntry.why)
            .join(LabelEntry, LabelEntry.task_id == LabelTask.id)
            .where(LabelEntry.queue_id == queue_id, LabelEntry.generation == 2)
            .order_by(LabelEntry.rank)
        ).all()
    assert [tuple(one) for one in entries[:2]] == [(one.record_id, one.why) for one in half]
    assert tuple(entries[-1]) == (skipped.record_id, skipped.why)
    assert len(entries) == len(kept(cleaned))
    assert {record_id for record_id, _ in entries} == kept(cleaned)


@pytest.mark.no_cover
def test_who_skips_everything_has_seen_everything_once_and_others_still_get_it(many: Catalog) -> None:
    queue_id, _, _ = ask(many, num_entries=10)
    passed = work(many, queue_id, "ann", skip)
    assert len(passed) == len(set(passed))
    assert set(passed) == kept(many)
    answered = work(many, queue_id, "bo", answer)
    assert set(answered) == set(passed)


def test_queue_that_chance_fills_says_so_of_every_text(cleaned: Catalog) -> None:
    queue_id, _, _ = ask(cleaned, strategy="random", random_share=0.5)
    drain(cleaned)
    with cleaned.read() as session:
        told = session.execute(select(LabelEntry.kind, LabelEntry.why).where(LabelEntry.queue_id == queue_id)).all()
    assert {tuple(one) for one in told} == {("chosen", "chosen at random"), ("random", "chosen at random")}


def test_strategies_get_what_they_ask_for_once_there_are_labels(many: Catalog) -> None:
    told = {
        "auto": r"margin 0\.\d\d: .* like it$",
        "bald": r"members disagree, \d\.\d\d nats: \d of 8 for ",
        "cal": r"contrast: the model says .* of the 10 nearest labelled items ",
        "class_balanced": r"\d+ labels are .*, as this seems; margin ",
        "expected_error": r"an answer would make the model surer of the rest by ",
    }
    for strategy, pattern in told.items():
        queue_id, _, _ = ask(many, name=strategy, strategy=strategy, refresh_every=30, num_entries=30)
        drain(many)
        for _ in range(30):
            answer(many, ask_next(many, queue_id, "ann"), "ann")
        assert refill(many, queue_id) is None
        drain(many)
        served = ask_next(many, queue_id, "ann")
        assert isinstance(served, queues.Served)
        assert re.match(pattern, served.why), served.why
