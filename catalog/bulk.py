"""Bulk writes: a frame into a table, inside the caller's transaction, safe to repeat.

PostgreSQL: ADBC streams the Arrow columns into a staging table of its own (another connection), then one
``INSERT … SELECT … ON CONFLICT`` moves them inside the caller's transaction, so rows and unit state commit together.

SQLite: the driver's own ``executemany`` upsert. ADBC brings a second SQLite library, and two of them with one file
open in one process void each other's POSIX locks (sqlite.org/howtocorrupt.html, section 2.2.1); as the write lock is
held meanwhile, correctness is worth more than the difference, which ``benchmarks/bulk.py`` measures.
"""

import uuid
from collections.abc import Sequence
from typing import Any

import polars as pl
from sqlalchemy import Table, event, text
from sqlalchemy.orm import Session

from catalog.database import database_now

CHUNK_ROWS = 50_000
STAGING = "staging_"
ABANDONED_SECONDS = 3600


def upsert_frame(session: Session, table: Table, frame: pl.DataFrame) -> int:
    """Insert every row of ``frame`` into ``table``, replacing rows with the same primary key.

    Parameters
    ----------
    session : inside a write transaction; the caller commits.
    table : its columns must contain all of the frame's.
    frame : JSON columns given as text, timestamps as the table's type.

    Returns
    -------
    rows written.

    Raises
    ------
    KeyError : the frame has a column that the table lacks, or misses a primary key column.
    """
    columns = frame.columns
    keys = [column.name for column in table.primary_key.columns]
    for name in [*columns, *keys]:
        if name not in table.columns or (name in keys and name not in columns):
            raise KeyError(f"column {name!r} does not fit table {table.name!r}")
    if frame.is_empty():
        return 0
    # In key order every row goes to the end of the tree; in random order each to a page of its own.
    frame = frame.sort(keys)
    if session.get_bind().dialect.name == "postgresql":
        _upsert_postgresql(session, table, frame, keys)
    else:
        _upsert_sqlite(session, table, frame, keys)
    return frame.height


def _conflict_clause(columns: Sequence[str], keys: Sequence[str]) -> str:
    updated = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in keys)
    target = ", ".join(f'"{key}"' for key in keys)
    return f"ON CONFLICT ({target}) DO UPDATE SET {updated}" if updated else f"ON CONFLICT ({target}) DO NOTHING"


def _upsert_sqlite(session: Session, table: Table, frame: pl.DataFrame, keys: Sequence[str]) -> None:
    columns = frame.columns
    listed = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" for _ in columns)
    statement = f'INSERT INTO "{table.name}" ({listed}) VALUES ({marks}) {_conflict_clause(columns, keys)}'  # noqa: S608 - names come from the schema
    cursor = session.connection().connection.cursor()
    try:
        for part in frame.iter_slices(CHUNK_ROWS):
            cursor.executemany(statement, part.rows())
    finally:
        cursor.close()


def _upsert_postgresql(session: Session, table: Table, frame: pl.DataFrame, keys: Sequence[str]) -> None:
    engine = session.get_bind().engine
    # By the database's clock: another machine's, which may differ by hours, would take it for one of long ago.
    now = int(database_now(session).timestamp())
    staging = f"{STAGING}{now}_{uuid.uuid4().hex}"
    _stage_by_adbc(engine.url.render_as_string(hide_password=False), staging, frame)
    drop = text(f'DROP TABLE IF EXISTS "{staging}"')

    def after_rollback(_session: Session) -> None:
        with engine.begin() as connection:
            connection.execute(drop)

    event.listen(session, "after_rollback", after_rollback, once=True)
    columns = frame.columns
    listed = ", ".join(f'"{name}"' for name in columns)
    # The Arrow types are wider than the table's (text for jsonb, int64 for integer): cast each on the way.
    dialect = session.get_bind().dialect
    cast = ", ".join(f'CAST("{name}" AS {table.columns[name].type.compile(dialect)})' for name in columns)
    session.execute(
        text(
            f'INSERT INTO "{table.name}" ({listed}) SELECT {cast} FROM "{staging}" '  # noqa: S608 - names come from the schema
            f"{_conflict_clause(columns, keys)}"
        )
    )
    session.execute(drop)
    _drop_abandoned(session, now)


def _drop_abandoned(session: Session, now: int) -> None:
    """Drop staging tables whose process was killed before it could: committed aside, they belong to nobody."""
    found = session.scalars(
        text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE :begins"),
        {"begins": STAGING.replace("_", r"\_") + "%"},
    )
    for name in found.all():
        if now - int(name.removeprefix(STAGING).split("_")[0]) > ABANDONED_SECONDS:
            session.execute(text(f'DROP TABLE IF EXISTS "{name}"'))


def _stage_by_adbc(url: str, staging: str, frame: pl.DataFrame) -> None:
    import adbc_driver_postgresql.dbapi as adbc

    uri = url.replace("postgresql+psycopg://", "postgresql://")
    with adbc.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE UNLOGGED TABLE "{staging}" ({_staging_columns(frame)})')
        cursor.adbc_ingest(staging, frame.to_arrow(), mode="append")
        connection.commit()


def _staging_columns(frame: pl.DataFrame) -> str:
    kinds: dict[Any, str] = {
        pl.String: "text",
        pl.Boolean: "boolean",
        pl.Float64: "double precision",
        pl.Int64: "bigint",
    }
    return ", ".join(f'"{name}" {kinds[type(kind)]}' for name, kind in frame.schema.items())
