"""A labeling queue's next schema, with a second look at answers that were being stored while it changed."""

from dataclasses import replace

from catalog.database import Catalog
from catalog.tables.datasets import Dataset, Version
from labeling.schema import LabelSchema
from labeling.schema_change import SchemaChanged, annotators_of, ask_again, change_schema
from labeling.slots import open_queue, serialize_annotator
from workers import label_events
from workers.pairs import check_pairs


def replace_schema(catalog: Catalog, *, queue_id: str, schema: LabelSchema, dry_run: bool = False) -> SchemaChanged:
    """Give a queue a new version of its schema; the same call again, after a crash too, ends what was begun.

    On PostgreSQL an answer may be checked by the old schema while the new one is being committed. Every act of an
    annotator holds that annotator's lock from before it reads the schema to its end. So each of them is waited for
    once, one at a time and for nothing else, and whatever is an answer no more by then is asked again. No answer waits
    for the change.

    Parameters
    ----------
    dry_run : only say what would become of the answers.

    Raises
    ------
    NotFoundError, GoneError, StaleVersionError, ConfigError : as ``labeling.schema_change.change_schema``.
    DataError : none of the queue's records has both columns that a pairwise schema compares.
    """
    with catalog.read() as session:
        queue = open_queue(session, queue_id)
        version = session.get_one(Version, queue.version_id)
        text_column = session.get_one(Dataset, queue.dataset_id).text_column
    check_pairs(catalog.settings, version, text_column, schema)
    with catalog.write() as session:
        now = catalog.now(session)
        done = change_schema(session, now=now, queue_id=queue_id, schema=schema)
        label_events.known_no_more(session, now=now, queue_id=queue_id, record_ids=done.no_longer_known)
        if dry_run:
            session.rollback()
    if dry_run or catalog.is_sqlite:
        # SQLite has one writer: nothing was being stored.
        return done
    with catalog.read() as session:
        people = annotators_of(session, queue_id=queue_id)
    for one in people:
        with catalog.write() as session:
            serialize_annotator(session, one)
    with catalog.write() as session:
        late = ask_again(session, now=catalog.now(session), queue_id=queue_id)
    known = {one.annotation_id for one in done.invalid}
    unseen = tuple(one for one in late if one.annotation_id not in known)
    return replace(done, invalid=done.invalid + unseen)
