"""Answers out of a queue and into another: matched, checked, stored once, and nothing lost."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.errors import ConflictError, DataError, GoneError
from catalog.tables.base import new_id
from catalog.tables.labeling import Annotation, LabelAssignment, LabelEvent, LabelQueue, LabelSuggestion, LabelTask
from labeling import queue as queues
from labeling.exchange import Item, Problem, chosen
from labeling.exchange.jsonl import Jsonl
from labeling.schema import LabelSchema, parse_schema
from service.auth import create_user
from tests.workers.building import at_once, clean_dataset, drain
from workers.label_exchange import Import, import_file, write_aside
from workers.label_export import export_answers
from workers.labeling import open_queue

TEXTS = [
    "김민수는 어제 서울에서 👩\u200d👩\u200d👧 가족을 만났다 정말로",
    "Anna moved from Paris to 北京 last year for good",
    unicodedata.normalize("NFD", "부산 바다가 아주 맑고 푸르다 오늘은"),
    "ผมอยู่ กรุงเทพ มา นาน แล้ว นะครับ",
    "a fourth text, which nobody has been asked about yet",
    "and one more text about the weather in Oslo today",
]
SPANS = parse_schema("task: spans\nlabels: [사람, 도시]")
SINGLE = parse_schema("labels: [긍정, 부정]")


@pytest.fixture
def cleaned(database: Catalog, tmp_path: Path) -> Catalog:
    """A cleaned dataset of a few texts, all of which stay."""
    clean_dataset(database, tmp_path, [{"body": text, "queue": None} for text in TEXTS])
    return database


def make(catalog: Catalog, name: str, schema: LabelSchema, overlap: int = 2) -> str:
    queue_id, _, _ = open_queue(
        catalog, dataset="tickets", name=name, schema=schema, strategy="random", overlap=overlap, num_entries=2
    )
    drain(catalog)
    return queue_id


def answer(catalog: Catalog, queue_id: str, annotator: str, value: Callable[[str], Any]) -> str:
    with catalog.write() as session:
        now = catalog.now(session)
        served = queues.next_task(session, now=now, queue_id=queue_id, annotator_id=annotator)
        assert isinstance(served, queues.Served)
        lease = {"lease_id": served.lease_id, "annotator_id": annotator, "key": new_id()}
        queues.submit(session, now=now, value=value(served.text), seconds_spent=2.5, **lease)
    return served.record_id


def first_word(text: str) -> list[dict[str, Any]]:
    return [{"start": 0, "end": text.index(" "), "label": "사람"}]


def export(catalog: Catalog, queue_id: str, path: Path, **options: Any) -> Any:
    with catalog.read() as session:
        queue = session.get_one(LabelQueue, queue_id)
        format_ = chosen(options.pop("name", None), path, LabelSchema.from_json(queue.schema), options)
        return export_answers(session, queue, path, format_)


def take(catalog: Catalog, queue_id: str, path: Path, renames: dict[str, str] | None = None, **options: Any) -> Import:
    with catalog.read() as session:
        schema = LabelSchema.from_json(session.get_one(LabelQueue, queue_id).schema)
    format_ = chosen(options.pop("name", None), path, schema, options)
    return import_file(catalog, queue_id=queue_id, path=path, format_=format_, renames=renames)


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def labels(catalog: Catalog, queue_id: str) -> dict[str, Any]:
    with catalog.read() as session:
        return {one.record_id: one.value for one in queues.current_labels(session, queue_id=queue_id)}


def stored(catalog: Catalog, queue_id: str) -> list[tuple[Any, ...]]:
    """Every answer, without what a database chose for it."""
    with catalog.read() as session:
        rows = session.execute(
            select(
                LabelTask.record_id,
                Annotation.annotator_id,
                Annotation.value,
                Annotation.late,
                Annotation.retracted,
                Annotation.seconds_spent,
                Annotation.created_at,
            )
            .join(LabelTask, LabelTask.id == Annotation.task_id)
            .where(Annotation.queue_id == queue_id)
        )
        return sorted((tuple(row) for row in rows), key=repr)


def taken(found: Import) -> tuple[int, int, int, int]:
    return (found.taken.num_new, found.taken.num_late, found.taken.num_history, found.taken.num_repeated)


def test_answers_of_one_queue_are_the_same_in_another_and_there_once(cleaned: Catalog, tmp_path: Path) -> None:
    first, second = make(cleaned, "first", SPANS), make(cleaned, "second", SPANS)
    for annotator in ("ana", "지민"):
        for _ in range(2):
            answer(cleaned, first, annotator, first_word)
    with cleaned.write() as session:
        queues.undo(session, now=cleaned.now(session), queue_id=first, annotator_id="ana")
    path = tmp_path / "first.jsonl"
    written = export(cleaned, first, path)
    assert (written.num_items, written.num_answers) == (2, 4)
    assert taken(take(cleaned, second, path)) == (3, 0, 1, 0)
    assert stored(cleaned, second) == stored(cleaned, first)
    assert labels(cleaned, second) == labels(cleaned, first)
    # Into the queue they come from, and a second time: they are there.
    assert taken(take(cleaned, first, path)) == taken(take(cleaned, second, path)) == (0, 0, 0, 4)
    assert len(stored(cleaned, first)) == 4
    with cleaned.read() as session:
        now = cleaned.now(session)
        for queue_id in (first, second):
            assert queues.progress(session, now=now, queue_id=queue_id).num_done == 1
        kinds = session.scalars(select(LabelEvent.kind).where(LabelEvent.queue_id == second)).all()
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"published": 1, "imported": 1, "submitted": 3}


@pytest.mark.parametrize("name", ["csv", "hf", "label_studio", "prodigy"])
def test_other_formats_bring_the_answers_too(cleaned: Catalog, tmp_path: Path, name: str) -> None:
    first, second = make(cleaned, "first", SPANS), make(cleaned, "second", SPANS)
    for annotator in ("ana", "지민"):
        answer(cleaned, first, annotator, first_word)
    export(cleaned, first, tmp_path / "answers", name=name)
    assert taken(take(cleaned, second, tmp_path / "answers", name=name)) == (2, 0, 0, 0)
    assert stored(cleaned, second) == stored(cleaned, first)


def test_tokens_without_a_text_find_their_record_and_its_characters(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "tokens", SPANS)
    path = tmp_path / "x.conll"
    tagged = {"Anna": "B-사람", "北": "B-도시", "京": "I-도시"}
    tokens = TEXTS[1].replace("北京", "北 京").split()
    path.write_text("".join(f"{one} X {tagged.get(one, 'O')}\n" for one in tokens) + "\nnobody X O\nknows X B-사람\n")
    found = take(cleaned, queue_id, path, annotator="Reuters")
    assert taken(found) == (1, 0, 0, 0)
    ((record_id, value),) = labels(cleaned, queue_id).items()
    marked = [(TEXTS[1][one["start"] : one["end"]], one["label"]) for one in value]
    assert marked == [("Anna", "사람"), ("北京", "도시")]
    assert found.reasons == {"no record of that id or text": 1}
    assert stored(cleaned, queue_id)[0][:2] == (record_id, "Reuters")


def test_unknown_labels_are_listed_with_counts_and_nothing_is_taken(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "unknown", SINGLE)
    path = lines(
        tmp_path / "x.jsonl",
        {"text": TEXTS[0], "value": "긍정"},
        *[{"text": text, "value": "긍정적"} for text in TEXTS[1:4]],
        {"text": TEXTS[4], "value": "neutral"},
    )
    with pytest.raises(DataError) as refused:
        take(cleaned, queue_id, path)
    message = str(refused.value)
    assert (
        "2 label(s) of the file are none of the queue's: '긍정적' (3, first in line 2, did you mean '긍정'?), "
        "'neutral' (1, first in line 5)" in message
    )
    assert "--rename OLD=NEW" in message
    assert stored(cleaned, queue_id) == []
    renames = {unicodedata.normalize("NFD", "긍정적"): "긍정", "neutral": "부정"}
    assert taken(take(cleaned, queue_id, path, renames)) == (5, 0, 0, 0)
    assert sorted(labels(cleaned, queue_id).values()) == ["긍정", "긍정", "긍정", "긍정", "부정"]


def test_empty_values_of_a_file_are_no_answers_as_in_a_table(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "empty", SINGLE)
    mixed = [{"annotator": "a", "value": " "}, {"annotator": "b", "value": "부정"}]
    path = lines(
        tmp_path / "x.jsonl",
        {"text": TEXTS[0], "value": ""},
        {"text": TEXTS[1], "value": "\t"},
        {"text": TEXTS[2], "value": None, "predictions": [{"value": ""}]},
        {"text": TEXTS[3], "answers": mixed, "predictions": [{"value": None}]},
        {"text": TEXTS[4], "value": "긍정"},
    )
    found = take(cleaned, queue_id, path)
    assert (found.num_items, found.num_unanswered, found.num_answers, found.num_predictions) == (5, 3, 2, 0)
    assert taken(found) == (2, 0, 0, 0)
    assert sorted(labels(cleaned, queue_id).values()) == ["긍정", "부정"]
    assert found.reasons == {"an empty value is no answer": 1, "an empty value is no prediction": 1}
    (of_a,) = (one for one in found.aside if one["reason"] == "an empty value is no answer")
    assert (of_a["text"], [one["annotator"] for one in of_a["answers"]]) == (TEXTS[3], ["a"])
    table = tmp_path / "x.csv"
    table.write_text(f"text,annotator,value\n{TEXTS[0]},a,\n{TEXTS[1]},b, \n")
    assert take(cleaned, queue_id, table).num_unanswered == 2

    several = make(cleaned, "none of them", parse_schema("task: multi_label\nlabels: [a, b]\nmin_labels: 0"))
    assert taken(take(cleaned, several, lines(path, {"text": TEXTS[0], "value": []}))) == (1, 0, 0, 0)
    written = make(cleaned, "written", parse_schema("task: free_text\nmin_chars: 0"))
    again = take(cleaned, written, lines(path, {"text": TEXTS[0], "value": ""}, {"text": TEXTS[1], "value": None}))
    assert (taken(again), again.num_unanswered) == ((1, 0, 0, 0), 1)
    assert list(labels(cleaned, written).values()) == [""]


def test_a_schema_that_changes_while_a_file_is_read_refuses_it_and_sent_again_it_is_taken(
    cleaned: Catalog, tmp_path: Path
) -> None:
    queue_id = make(cleaned, "changing", SINGLE)
    path = lines(tmp_path / "x.jsonl", {"text": TEXTS[0], "value": "긍정"})

    class Slow(Jsonl):
        """Somebody gives the queue a new schema while the file is being read."""

        def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:
            yield from super().read(path, schema)
            with cleaned.write() as session:
                newer = parse_schema("version: 2\nlabels: [긍정, 모름]")
                queues.change_schema(session, now=cleaned.now(session), queue_id=queue_id, schema=newer)

    with pytest.raises(ConflictError, match="became version 2 while version 1 was imported by; import the same file"):
        import_file(cleaned, queue_id=queue_id, path=path, format_=Slow())
    assert stored(cleaned, queue_id) == []
    assert taken(take(cleaned, queue_id, path)) == (1, 0, 0, 0)


def test_answers_beyond_the_overlap_are_late_and_later_ones_replace_earlier(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "late", SINGLE, overlap=1)

    def row(who: str, value: str, hour: int, **more: Any) -> dict[str, Any]:
        return {"annotator": who, "value": value, "at": f"2026-03-01T{hour:02}:00:00+00:00", **more}

    given = [row("a", "긍정", 9), row("b", "부정", 10), row("a", "부정", 11), row("a", "긍정", 8)]
    path = lines(tmp_path / "x.jsonl", {"text": TEXTS[0], "answers": given})
    assert taken(take(cleaned, queue_id, path)) == (4, 1, 0, 0)
    assert [(one[1], one[2], one[3], one[4]) for one in stored(cleaned, queue_id)] == [
        ("a", "긍정", False, "superseded"),
        ("a", "긍정", False, "superseded"),
        ("a", "부정", False, None),
        ("b", "부정", True, None),
    ]
    older = lines(tmp_path / "y.jsonl", {"text": TEXTS[0], "answers": [row("a", "긍정", 7)]})
    assert taken(take(cleaned, queue_id, older)) == (0, 0, 1, 0)
    assert list(labels(cleaned, queue_id).values()) == ["부정"]
    assert stored(cleaned, queue_id)[0][6] == datetime(2026, 3, 1, 7, tzinfo=UTC)


def test_annotator_who_holds_the_task_has_answered_it_and_live_leases_keep_their_slots(
    cleaned: Catalog, tmp_path: Path
) -> None:
    queue_id = make(cleaned, "held", SINGLE, overlap=1)
    with cleaned.write() as session:
        served = queues.next_task(session, now=cleaned.now(session), queue_id=queue_id, annotator_id="ana")
        assert isinstance(served, queues.Served)
    path = lines(tmp_path / "x.jsonl", {"text": served.text, "value": "부정", "annotator": "bo"})
    assert taken(take(cleaned, queue_id, path)) == (1, 1, 0, 0)
    mine = lines(tmp_path / "y.jsonl", {"text": served.text, "value": "긍정", "annotator": "ana"})
    assert taken(take(cleaned, queue_id, mine)) == (1, 0, 0, 0)
    with cleaned.read() as session:
        lease = session.get_one(LabelAssignment, served.lease_id)
        assert (lease.state, lease.slot) == ("accepted", 0)
    assert list(labels(cleaned, queue_id).values()) == ["긍정"]


def test_what_is_not_taken_is_kept_with_the_reason_and_can_be_imported_once_mended(
    cleaned: Catalog, tmp_path: Path
) -> None:
    queue_id = make(cleaned, "aside", SPANS)
    wrong = [{"start": 0, "end": 999, "label": "도시"}]
    path = lines(
        tmp_path / "x.jsonl",
        # Nor is its label the queue's: that stops nothing, since it is not taken.
        {"text": "a text that is not here", "value": [{"start": 0, "end": 1, "label": "나라"}]},
        {"text": TEXTS[0], "value": wrong},
        {"text": TEXTS[1], "value": first_word(TEXTS[1]), "predictions": [{"value": [], "model": "m", "score": 0.5}]},
        {"record_id": "f" * 32 + "-0", "text": TEXTS[2], "value": first_word(TEXTS[2])},
    )
    path.write_text(path.read_text() + "no json\n")
    found = take(cleaned, queue_id, path)
    assert (found.num_items, found.num_answers, found.num_predictions, taken(found)) == (4, 4, 1, (2, 0, 0, 0))
    assert found.reasons == {
        "no record of that id or text": 1,
        "not allowed by the schema": 1,
        "no JSON": 1,
    }
    kept = tmp_path / "aside.jsonl"
    write_aside(kept, found)
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sorted(row["where"] for row in rows) == ["line 1", "line 2", "line 5"]
    assert found.num_suggestions == 1
    with cleaned.read() as session:
        (shown,) = session.scalars(select(LabelSuggestion).where(LabelSuggestion.queue_id == queue_id))
    assert (shown.source, shown.value, shown.score) == ("m", [], 0.5)
    mended = next(row for row in rows if row["where"] == "line 2")
    mended["answers"][0]["value"][0]["end"] = 3
    assert taken(take(cleaned, queue_id, lines(tmp_path / "mended.jsonl", mended))) == (1, 0, 0, 0)


def test_span_that_cuts_a_character_is_widened_and_one_of_another_text_is_not_taken(
    cleaned: Catalog, tmp_path: Path
) -> None:
    queue_id = make(cleaned, "snap", SPANS)
    family = TEXTS[0].index("👩")
    path = lines(
        tmp_path / "x.jsonl", {"text": TEXTS[0], "value": [{"start": family, "end": family + 1, "label": "사람"}]}
    )
    found = take(cleaned, queue_id, path)
    assert (found.num_snapped, taken(found)) == (1, (1, 0, 0, 0))
    ((record_id, value),) = labels(cleaned, queue_id).items()
    assert value == [{"start": family, "end": family + 5, "label": "사람"}]
    moved = lines(tmp_path / "y.jsonl", {"record_id": record_id, "text": " " + TEXTS[0], "value": first_word(TEXTS[0])})
    assert take(cleaned, queue_id, moved).reasons == {"the record's text is another now": 1}


def test_accounts_are_known_by_their_names(cleaned: Catalog, tmp_path: Path) -> None:
    with cleaned.write() as session:
        user_id = create_user(session, now=cleaned.now(session), name="지민", role="annotator").id
    first, second = make(cleaned, "first", SINGLE), make(cleaned, "second", SINGLE)
    answer(cleaned, first, user_id, lambda _: "긍정")
    export(cleaned, first, tmp_path / "x.csv")
    assert "지민" in (tmp_path / "x.csv").read_text()
    take(cleaned, second, tmp_path / "x.csv")
    assert [one[1] for one in stored(cleaned, second)] == [user_id]


def test_two_who_import_at_once_store_every_answer_once(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "race", SINGLE)
    rows = [{"text": text, "value": "긍정", "annotator": who} for text in TEXTS for who in ("a", "b", "c")]
    paths = [lines(tmp_path / "x.jsonl", *rows), lines(tmp_path / "y.jsonl", *reversed(rows))]
    found = at_once(*[lambda path=path: take(cleaned, queue_id, path) for path in paths])
    assert sum(one.taken.num_new for one in found) == sum(one.taken.num_repeated for one in found) == 18
    assert len(stored(cleaned, queue_id)) == 18
    with cleaned.read() as session:
        late = session.scalar(select(func.count()).where(Annotation.queue_id == queue_id, Annotation.late.is_(True)))
        assert late == 6
        assert queues.progress(session, now=cleaned.now(session), queue_id=queue_id).num_done == 6


def test_closed_queue_takes_nothing(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "closed", SINGLE)
    with cleaned.write() as session:
        queues.close_queue(session, now=cleaned.now(session), queue_id=queue_id)
    with pytest.raises(GoneError, match="is closed"):
        take(cleaned, queue_id, lines(tmp_path / "x.jsonl", {"text": TEXTS[0], "value": "긍정"}))


def test_answers_that_a_new_schema_does_not_allow_are_left_out_and_counted(cleaned: Catalog, tmp_path: Path) -> None:
    queue_id = make(cleaned, "changed", SINGLE)
    answer(cleaned, queue_id, "a", lambda _: "긍정")
    answer(cleaned, queue_id, "a", lambda _: "부정")
    with cleaned.write() as session:
        schema = parse_schema("version: 2\nlabels: [{name: 좋음, was: 긍정}, 나쁨]")
        queues.change_schema(session, now=cleaned.now(session), queue_id=queue_id, schema=schema)
    written = export(cleaned, queue_id, tmp_path / "x.jsonl")
    assert written.changed == {"answers that the present schema does not allow left out": 1}
    (row,) = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert (row["value"], row["confidence"], row["num_votes"]) == ("좋음", 1.0, 1)
