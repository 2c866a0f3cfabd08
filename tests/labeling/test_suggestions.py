"""Suggestions that are taken away again; how they are shown and what they lead to is in ``test_honesty``."""

from typing import Any

import pytest
from sqlalchemy import select

from catalog.errors import GoneError, NotFoundError
from catalog.tables.labeling import LabelEvent
from labeling import queue
from labeling.replay import state_at
from labeling.suggestions import Suggestion, add_suggestions, anchoring, remove_suggestions, suggestion_sources


def suggest(desk: Any, source: str, *records: str) -> None:
    given = [Suggestion(record_id=name, value="긍정", source=source, score=0.5) for name in records]
    desk.call(add_suggestions, queue_id=desk.queue_id, suggestions=given)


def sources(desk: Any) -> dict[str, int]:
    with desk.catalog.read() as session:
        return suggestion_sources(session, queue_id=desk.queue_id)


def test_suggestions_of_a_source_go_and_what_was_served_keeps_what_it_showed(desk: Any) -> None:
    desk.publish("a", "b", "c")
    suggest(desk, "small", "a", "b", "c")
    desk.wait(1)
    suggest(desk, "large", "b")
    assert sources(desk) == {"large": 1, "small": 3}
    on_screen = desk.next("ana")
    assert on_screen.suggestion["source"] == "small"
    desk.wait(1)
    before = desk.now
    desk.wait(1)
    assert desk.call(remove_suggestions, queue_id=desk.queue_id, source="small", by="lead") == 3
    assert sources(desk) == {"large": 1}
    assert desk.next("ana").suggestion["source"] == "small"
    desk.submit(on_screen, "ana", "긍정")
    with desk.catalog.read() as session:
        (led,) = anchoring(session, queue_id=desk.queue_id)
    assert (led.source, led.num_shown, led.num_accepted) == ("small", 1, 1)
    assert [one.suggestion and one.suggestion["source"] for one in (desk.next("bo"), desk.next("cy"))] == [
        "large",
        None,
    ]
    with desk.catalog.read() as session:
        then, now = (state_at(session, queue_id=desk.queue_id, until=one).sources for one in (before, None))
        gone = session.scalars(select(LabelEvent).where(LabelEvent.kind == "unsuggested")).one()
    assert (then, now) == ({"small", "large"}, {"large"})
    assert gone.detail == {"source": "small", "num_removed": 3, "by": "lead"}


def test_a_source_that_is_none_is_told_with_the_nearest(desk: Any) -> None:
    suggest(desk, "small-2", "a")
    with pytest.raises(NotFoundError, match="no suggestions of 'small-1'; did you mean 'small-2'"):
        desk.call(remove_suggestions, queue_id=desk.queue_id, source="small-1")
    desk.call(queue.close_queue, queue_id=desk.queue_id)
    with pytest.raises(GoneError):
        desk.call(remove_suggestions, queue_id=desk.queue_id, source="small-2")
    assert sources(desk) == {"small-2": 1}
