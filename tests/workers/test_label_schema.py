"""A schema that changes while answers are being stored."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables.labeling import LabelQueue
from labeling import queue
from labeling.schema import parse_schema
from tests.labeling.conftest import open_desk
from workers.label_schema import replace_schema

ONE = parse_schema("labels: [긍정, 부정, 중립]")
TWO = parse_schema("version: 2\nlabels: [긍정, 부정]")


def version_of(catalog: Catalog, queue_id: str) -> int:
    with catalog.read() as session:
        return int(session.get_one(LabelQueue, queue_id).schema["version"])


def test_an_answer_that_was_checked_by_the_old_schema_meanwhile_is_asked_again(
    new_postgres: Callable[[], str], tmp_path: Path
) -> None:
    catalog = Catalog(Settings(home=tmp_path, database_url=new_postgres()))
    desk = open_desk(catalog, schema=ONE)
    desk.publish("a", "b", "c")
    served, other = desk.next("ana"), desk.next("bo")
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            given = {"lease_id": served.lease_id, "annotator_id": "ana", "value": "중립", "key": "k"}
            queue.submit(session, now=desk.now, **given)
            changing = pool.submit(replace_schema, catalog, queue_id=desk.queue_id, schema=TWO)
            deadline = time.monotonic() + 10
            while version_of(catalog, desk.queue_id) == 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert version_of(catalog, desk.queue_id) == 2
            # Whoever changes the schema waits for this answer, and nobody else waits for anything.
            desk.submit(other, "bo", "부정")
            assert desk.answer("bo", "긍정") == "c"
            assert not changing.done()
        done = changing.result(timeout=10)
    assert [(one.record_id, one.given) for one in done.invalid] == [("a", "중립")]
    assert desk.progress().num_done == 2
    assert desk.answer("ana", "부정") == "a"
    assert {name: found[0] for name, found in desk.labels().items()} == {"a": "부정", "b": "부정", "c": "긍정"}
    # Again, as after a crash in between: there is nothing left to do.
    again = replace_schema(catalog, queue_id=desk.queue_id, schema=TWO)
    assert (again.repeated, again.invalid, again.num_kept) == (True, (), 3)
    catalog.close()
