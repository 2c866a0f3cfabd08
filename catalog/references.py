"""Which files of the store somebody refers to: any row of any table, and any manifest or index state that a row names.

On purpose not a list of the columns that name files: a column added tomorrow counts too. Left out are tables with
a row a record or an event, which say nothing about files; a test holds every table to being in one or the other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import JSON, Column, String, Text, cast, select
from sqlalchemy.orm import Session

from catalog.store import Store, StoredFile
from catalog.tables import metadata

WITHOUT_FILES = frozenset(
    {
        "annotations",
        "audit",
        "duplicate_pairs",
        "label_assignments",
        "label_entries",
        "label_errors",
        "label_events",
        "label_tasks",
        "loss_points",
        "outbox",
        "quarantine",
        "superseded_pairs",
        "unit_log",
        "verdicts",
    }
)
"""Tables that name no file: they get a row a record, an answer or an event."""
SHA256 = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
NAME = re.compile(r"[A-Za-z0-9_-]+/[0-9a-f]{2}/(?P<sha256>[0-9a-f]{64})\.(?P<suffix>[A-Za-z0-9]+)")
ROWS_AT_ONCE = 5_000


@dataclass
class References:
    """What is referred to.

    Parameters
    ----------
    sha256 : as bytes, of every file that anything names, by name or by checksum alone.
    names : of files, where the whole name is told.
    """

    sha256: set[bytes] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        """Note whatever a text names."""
        self.sha256.update(bytes.fromhex(one) for one in SHA256.findall(text))
        self.names.update(one.group() for one in NAME.finditer(text))

    def __contains__(self, name: str) -> bool:
        found = NAME.fullmatch(name)
        return found is not None and bytes.fromhex(found["sha256"]) in self.sha256


def find_references(session: Session, store: Store) -> References:
    """Everything that the database, as this session sees it, refers to.

    Raises
    ------
    NotFoundError, CorruptionError : a manifest or a state cannot be read, so nobody knows what it refers to.
    """
    found = References()
    for text in _texts(session):
        found.add(text)
    opened: set[str] = set()
    while unread := {name for name in found.names if name.endswith(".json")} - opened:
        for name in sorted(unread):
            told = NAME.fullmatch(name)
            assert told is not None
            found.add(store.read_bytes(StoredFile(name=name, sha256=told["sha256"], size_bytes=0)).decode())
        opened |= unread
    return found


def _texts(session: Session) -> Iterator[str]:
    for table in metadata.sorted_tables:
        if table.name in WITHOUT_FILES:
            continue
        columns = [_as_text(column) for column in table.columns if isinstance(column.type, String | Text | JSON)]
        query = select(*columns).execution_options(yield_per=ROWS_AT_ONCE)
        for row in session.execute(query):
            yield "\n".join(value for value in row if value is not None)


def _as_text(column: Column[Any]) -> Any:
    return cast(column, Text) if isinstance(column.type, JSON) else column
