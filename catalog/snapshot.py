"""The whole database as Parquet files, a table each, from one moment; and back, into either kind of database.

Not the database's own format: a backup of SQLite restores into PostgreSQL and the other way, no client tools are
needed, and any later release can read what an earlier one wrote.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from alembic import command
from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, MetaData, Table, Text, cast, func, inspect, select, text
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, CorruptionError
from catalog.migrate import alembic_config
from catalog.tables import metadata

ROWS_AT_ONCE = 20_000
REVISION_TABLE = "alembic_version"
SNAPSHOT = "snapshot.db"


@contextmanager
def snapshot(catalog: Catalog, folder: Path) -> Iterator[Session]:
    """A session that sees the database as it is now, whatever is committed while the body runs. Nobody waits for it.

    PostgreSQL: one read-only transaction at REPEATABLE READ. SQLite: a copy in ``folder``, made in one step by its
    online backup, because a long read would keep its log from being taken over.
    """
    if not catalog.is_sqlite:
        engine = catalog.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with Session(engine) as session:
            yield session
            session.rollback()
        return
    path = folder / SNAPSHOT
    raw = catalog.engine.raw_connection()
    try:
        assert raw.driver_connection is not None
        target = sqlite3.connect(path)
        raw.driver_connection.backup(target)
        target.close()
    finally:
        raw.close()
    copy = Catalog(catalog.settings.model_copy(update={"database_url": f"sqlite:///{path}"}))
    try:
        with copy.read() as session:
            yield session
    finally:
        copy.close()
        for left in folder.glob(f"{SNAPSHOT}*"):
            left.unlink()


def export_tables(session: Session, folder: Path) -> dict[str, dict[str, Any]]:
    """Write every table to a Parquet file; each one's file name, rows and SHA-256.

    Rows are in the order of the primary key. JSON is text and times are ISO 8601 in UTC, on either database.
    """
    written = {}
    for table in metadata.sorted_tables:
        path = folder / f"{table.name}.parquet"
        num_rows = _export(session, table, path)
        written[table.name] = {"file": path.name, "rows": num_rows, "sha256": sha256_of(path)}
    return written


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _export(session: Session, table: Table, path: Path) -> int:
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in table.columns])
    columns: list[Any] = [cast(one, Text) if isinstance(one.type, JSON) else one for one in table.columns]
    query = select(*columns).order_by(*table.primary_key.columns).execution_options(yield_per=ROWS_AT_ONCE)
    num_rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for rows in session.execute(query).partitions():
            arrays = [
                pa.array([_plain(value) for value in values], field.type)
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            num_rows += len(rows)
    return num_rows


def _arrow_type(kind: Any) -> pa.DataType:
    for known, arrow in ((Boolean, pa.bool_()), (Integer, pa.int64()), (Float, pa.float64())):
        if isinstance(kind, known):
            return arrow
    return pa.string()


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def import_tables(
    catalog: Catalog, session: Session, folder: Path, tables: dict[str, dict[str, Any]], revision: str
) -> None:
    """Make the schema of a revision in an empty database, fill it, and bring it up to this release, in one transaction.

    Parameters
    ----------
    session : inside a write transaction, which may still be rolled back as a whole.
    tables : as ``export_tables`` returned.

    Raises
    ------
    ConfigError : the revision is not one of this release's.
    CorruptionError : a file is not what was written, or does not fit the schema of its revision.
    """
    config = alembic_config()
    config.attributes["connection"] = session.connection()
    command.upgrade(config, revision)
    if catalog.is_sqlite:
        # A version may point at one of the same table that comes later in the file.
        session.execute(text("PRAGMA defer_foreign_keys=ON"))
    there = MetaData()
    there.reflect(session.connection())
    by_name = {table.name: table for table in there.sorted_tables if table.name != REVISION_TABLE}
    if by_name.keys() != tables.keys():
        raise CorruptionError(
            f"the backup has tables {sorted(tables.keys() ^ by_name.keys())} too many or too few for {revision}"
        )
    for name, table in by_name.items():
        _import(catalog, session, table, folder / tables[name]["file"], tables[name])
    session.flush()
    command.upgrade(config, "head")


def _import(catalog: Catalog, session: Session, table: Table, path: Path, told: dict[str, Any]) -> None:
    if sha256_of(path) != told["sha256"]:
        raise CorruptionError(f"{path} is damaged: its SHA-256 is not what the backup says; use another backup")
    parquet = pq.ParquetFile(path, page_checksum_verification=True)
    names = parquet.schema_arrow.names
    if set(names) != set(table.columns.keys()):
        raise CorruptionError(f"{path} does not have the columns of table {table.name!r}; use another backup")
    insert = _insert_sqlite if catalog.is_sqlite else _insert_postgresql
    batches = (
        zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for batch in parquet.iter_batches(ROWS_AT_ONCE)
    )
    insert(session, table, names, batches)


def _insert_sqlite(session: Session, table: Table, names: Sequence[str], batches: Any) -> None:
    listed = ", ".join(f'"{name}"' for name in names)
    marks = ", ".join("?" for _ in names)
    times = [isinstance(table.columns[name].type, DateTime) for name in names]
    cursor = session.connection().connection.cursor()
    for rows in batches:
        kept = [
            [_stored(value) if is_time else value for value, is_time in zip(row, times, strict=True)] for row in rows
        ]
        cursor.executemany(f'INSERT INTO "{table.name}" ({listed}) VALUES ({marks})', kept)  # noqa: S608 - of the schema
    cursor.close()


def _stored(moment: str | None) -> str | None:
    # As SQLAlchemy writes times to SQLite: UTC without its zone, always with microseconds.
    return moment and datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _insert_postgresql(session: Session, table: Table, names: Sequence[str], batches: Any) -> None:
    listed = ", ".join(f'"{name}"' for name in names)
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({listed}) FROM STDIN') as copy:
        for rows in batches:
            for row in rows:
                copy.write_row(row)
    for column in table.primary_key.columns:
        if isinstance(column.type, Integer):
            last = select(func.max(column)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            session.execute(select(func.setval(sequence, last)).where(sequence.is_not(None), last.is_not(None)))


def check_empty(catalog: Catalog) -> None:
    """Refuse a database that holds any table.

    Raises
    ------
    ConfigError : it does.
    """
    if catalog.is_sqlite and not catalog.sqlite_path.exists():
        return
    with catalog.engine.connect() as connection:
        names = inspect(connection).get_table_names()
    if names:
        raise ConfigError(
            f"the database at {catalog.engine.url.render_as_string()} is not empty ({len(names)} tables); restore into "
            "an empty one: set WINNOW_HOME or WINNOW_DATABASE_URL"
        )
