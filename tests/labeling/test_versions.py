"""Schemas that change under a queue: what is renamed, what goes, and that no stored answer changes."""

import copy

import pytest
from sqlalchemy import select

from catalog.errors import ConfigError, ConflictError, DataError
from catalog.tables.labeling import Annotation, LabelEvent
from labeling import queue
from labeling.schema import parse_schema
from labeling.versions import SchemaHistory, appended, changes, mapped

ONE = parse_schema("labels: [긍정, 부정, 중립]")
TWO = parse_schema("version: 2\nlabels: [{name: 좋음, was: 긍정}, 부정, 모름]")


def test_difference_names_what_was_renamed_removed_and_added():
    found = changes(ONE, TWO)
    assert (found.renamed, found.removed, found.added, found.task) == ({"긍정": "좋음"}, ("중립",), ("모름",), None)
    assert found.in_words() == ["label '긍정' is now '좋음'", "label '중립' was removed", "label '모름' is new"]


def test_labels_that_swap_their_names_are_told_apart():
    swapped = parse_schema("version: 2\nlabels: [{name: 부정, was: 긍정}, {name: 긍정, was: 부정}, 중립]")
    assert changes(ONE, swapped).renamed == {"긍정": "부정", "부정": "긍정"}
    assert [mapped(ONE, swapped, one).value for one in ONE.names] == ["부정", "긍정", "중립"]


def test_name_that_another_label_takes_over_is_no_longer_the_old_label():
    taken = parse_schema("version: 2\nlabels: [{name: 부정, was: 긍정}, 중립]")
    assert changes(ONE, taken).removed == ("부정",)
    assert mapped(ONE, taken, "긍정").value == "부정"
    assert mapped(ONE, taken, "부정").state == "invalid"


def test_was_of_an_earlier_version_may_stay():
    three = parse_schema("version: 3\nlabels: [{name: 좋음, was: 긍정}, 부정, 모름]")
    assert changes(TWO, three).in_words() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: [긍정, 부정]", "version=1 must be above 1"),
        ("version: 2\nlabels: [{name: a, was: 긍정적}, b]", "had no label '긍정적'; did you mean '긍정'"),
    ],
)
def test_version_that_does_not_rise_and_label_that_was_none_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        changes(ONE, parse_schema(text))


TEXT = "서울 부산"
MANY = "task: multi_label\nlabels: [a, b]"
MARKS = "task: spans\nlabels: [a]"
SPAN = [{"start": 0, "end": 2, "label": "a"}]


@pytest.mark.parametrize(
    ("old", "new", "value", "state", "now"),
    [
        ("labels: [a, b]", "labels: [b, a]", "a", "kept", "a"),
        ("labels: [a, b]", "labels: [{name: z, was: a}, b]", "a", "migrated", "z"),
        ("labels: [a, b]", "labels: [b, c]", "a", "invalid", None),
        ("labels: [a, b]", "task: multi_label\nlabels: [a, b]", "a", "migrated", ["a"]),
        (MANY, "labels: [a, b]", ["a"], "migrated", "a"),
        (MANY, "labels: [a, b]", ["a", "b"], "invalid", None),
        (MANY, "task: multi_label\nlabels: [{name: z, was: a}, b]", ["a", "b"], "migrated", ["b", "z"]),
        (MANY, "task: multi_label\nlabels: [a, b]\nmax_labels: 1", ["a", "b"], "invalid", None),
        (MANY, "task: multi_label\nlabels: [b]", ["a", "b"], "invalid", None),
        (MARKS, "task: spans\nlabels: [{name: z, was: a}]", SPAN, "migrated", [{**SPAN[0], "label": "z"}]),
        (MARKS, "task: spans\nlabels: [a]\noverlapping: true", SPAN, "kept", SPAN),
        ("task: rating", "task: rating\nmax: 10", 5, "kept", 5),
        ("task: rating", "task: rating\nmax: 3", 5, "invalid", None),
        ("task: pairwise\nties: true", "task: pairwise", "tie", "invalid", None),
        ("task: free_text", "task: rating", "5", "invalid", None),
    ],
)  # fmt: skip
def test_answer_is_kept_migrated_or_invalid_with_a_reason(old, new, value, state, now):
    found = mapped(parse_schema(old), parse_schema("version: 2\n" + new), value, TEXT)
    assert (found.state, found.value) == (state, now)
    assert (found.reason is not None) == (state == "invalid")


def test_answer_is_seen_through_every_version_since_its_own():
    stored = ONE.to_json()
    for text in (
        "version: 2\nlabels: [{name: 좋음, was: 긍정}, 부정, 중립]",
        "version: 5\nlabels: [{name: 최고, was: 좋음}, 부정]",
        "version: 6\ntask: multi_label\nlabels: [최고, 부정]",
    ):
        stored = appended(stored, parse_schema(text))
    history = SchemaHistory.of(copy.deepcopy(stored))
    assert [one.version for one in history.schemas] == [1, 2, 5, 6]
    assert (
        history.seen("긍정", 1).value == history.seen("긍정", None).value == history.seen("최고", 5).value == ["최고"]
    )
    assert "removed in version 5" in history.seen("중립", 2).reason
    assert history.seen(["부정"], 6).state == "kept"
    with pytest.raises(ConflictError, match="never asked by schema version 3; it had 1, 2, 5, 6"):
        history.under(3)


# ---- in a queue ------------------------------------------------------------------------------------------------------


def change(desk, schema):
    return desk.call(queue.change_schema, queue_id=desk.queue_id, schema=schema)


def stored_values(desk):
    with desk.catalog.read() as session:
        return sorted(session.scalars(select(Annotation.value).where(Annotation.queue_id == desk.queue_id)))


def test_new_schema_renames_what_is_seen_asks_again_what_is_gone_and_changes_no_answer(new_desk):
    desk = new_desk(schema=ONE)
    desk.publish("a", "b", "c")
    for value in ("긍정", "부정", "중립"):
        desk.answer("ana", value)
    found = change(desk, TWO)
    assert (found.num_kept, found.num_migrated) == (1, 1)
    (invalid,) = found.invalid
    assert (invalid.record_id, invalid.given, invalid.annotator_id) == ("c", "중립", "ana")
    assert "'중립' was removed in version 2" in invalid.reason
    assert desk.labels() == {"a": ("좋음", 1, 1.0), "b": ("부정", 1, 1.0)}
    assert desk.progress().labels == {"부정": 1, "좋음": 1}
    assert stored_values(desk) == sorted(["긍정", "부정", "중립"])
    desk.wait(1)
    # The same annotator is asked again, and the new answer takes the place of the old one.
    assert desk.progress().num_done == 2
    assert desk.answer("ana", "모름") == "c"
    assert desk.labels()["c"] == ("모름", 1, 1.0)
    assert [(one.value, one.retracted) for one in desk.history("c")] == [("중립", "superseded"), ("모름", None)]
    with desk.catalog.read() as session:
        assert queue.invalid_answers(session, queue.open_queue(session, desk.queue_id)) == []
        kinds = session.scalars(select(LabelEvent.kind).order_by(LabelEvent.id)).all()
    assert kinds[-4:] == ["schema", "invalidated", "served", "submitted"]


def test_answer_to_the_old_schema_under_an_open_lease_is_kept_or_refused_in_words(new_desk):
    desk = new_desk(schema=ONE)
    desk.publish("a", "b")
    first, second = desk.next("ana"), desk.next("bo")
    change(desk, TWO)

    def submit(served, annotator, value, key, **given):
        return desk.call(queue.submit, lease_id=served.lease_id, annotator_id=annotator, value=value, key=key, **given)

    with pytest.raises(DataError, match="'긍정' is no label of this queue; allowed: 좋음, 부정, 모름"):
        submit(first, "ana", "긍정", "k1", schema_version=2)
    # By the schema that it was served with, whether or not the page says so.
    kept = submit(first, "ana", "긍정", "k1")
    assert submit(first, "ana", "긍정", "k1", schema_version=1).annotation_id == kept.annotation_id
    # A page that has learned of the new version retries the same answer under its key.
    assert submit(first, "ana", "긍정", "k1").repeated
    with pytest.raises(ConflictError, match="label '중립' was removed in version 2; answer again"):
        submit(second, "bo", "중립", "k2", schema_version=1)
    with pytest.raises(ConflictError, match="never asked by schema version 7"):
        submit(second, "bo", "부정", "k2", schema_version=7)
    submit(second, "bo", "모름", "k2", schema_version=2)
    assert desk.labels() == {"a": ("좋음", 1, 1.0), "b": ("모름", 1, 1.0)}
    assert stored_values(desk) == ["긍정", "모름"]


def test_schema_that_does_not_fit_the_queue_changes_nothing(new_desk):
    desk = new_desk(schema=ONE)
    for text, message in (
        ("labels: [긍정, 부정]", "must be above 1"),
        ("version: 2\ntask: spans\nlabels: [x]", "strategy 'margin' does not hold for spans answers; choose one of"),
    ):
        with pytest.raises(ConfigError, match=message):
            change(desk, parse_schema(text))
    with desk.catalog.read() as session:
        assert queue.open_queue(session, desk.queue_id).schema == ONE.to_json()
