"""Bulk writes keep every row once, whatever is repeated, and only with their transaction."""

import polars as pl
import pytest
from sqlalchemy import func, inspect, select

from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.tables import metadata
from catalog.tables.curation import Verdict
from tests.workers.building import add_dataset, add_run

TABLE = metadata.tables["verdicts"]


def verdicts(run_id: str, count: int, *, kept: bool = True) -> pl.DataFrame:
    return pl.select(
        run_id=pl.lit(run_id),
        record_id=pl.int_range(count).cast(pl.String).str.zfill(34),
        kept=pl.repeat(kept, count),
        reason=pl.repeat(None if kept else "너무 짧음", count, dtype=pl.String),
        failed=pl.repeat("[]" if kept else '["너무 짧음"]', count),
        measured=pl.int_range(count).map_elements(lambda n: f'{{"word_count": {n}}}', pl.String),
        scores=pl.repeat("{}", count),
    )


@pytest.fixture
def run_id(database: Catalog) -> str:
    with database.write() as session:
        return add_run(session, add_dataset(session)).id


def count(database: Catalog) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Verdict)) or 0


def test_rows_come_back_and_repeating_changes_nothing(database: Catalog, run_id: str) -> None:
    frame = verdicts(run_id, 1234)
    for _ in range(2):
        with database.write() as session:
            assert upsert_frame(session, TABLE, frame) == 1234
    assert count(database) == 1234
    with database.read() as session:
        row = session.get_one(Verdict, (run_id, f"{77:034d}"))
        assert (row.kept, row.reason, row.failed, row.measured, row.scores) == (True, None, [], {"word_count": 77}, {})


def test_a_later_row_replaces_the_earlier(database: Catalog, run_id: str) -> None:
    with database.write() as session:
        upsert_frame(session, TABLE, verdicts(run_id, 10))
        upsert_frame(session, TABLE, verdicts(run_id, 5, kept=False))
    with database.read() as session:
        assert session.scalar(select(func.count()).where(Verdict.reason == "너무 짧음")) == 5
        assert session.get_one(Verdict, (run_id, f"{0:034d}")).failed == ["너무 짧음"]
    assert count(database) == 10


def test_rows_leave_with_their_transaction_and_no_staging_stays(database: Catalog, run_id: str) -> None:
    with pytest.raises(RuntimeError, match="after the rows"), database.write() as session:
        upsert_frame(session, TABLE, verdicts(run_id, 10))
        raise RuntimeError("after the rows")
    assert count(database) == 0
    with database.write() as session:
        upsert_frame(session, TABLE, verdicts(run_id, 10))
    with database.engine.connect() as connection:
        tables = inspect(connection).get_table_names()
    assert not [name for name in tables if name.startswith("staging_")]


def test_empty_frame_and_unknown_column(database: Catalog, run_id: str) -> None:
    with database.write() as session:
        assert upsert_frame(session, TABLE, verdicts(run_id, 0)) == 0
        with pytest.raises(KeyError, match="'colour' does not fit table 'verdicts'"):
            upsert_frame(session, TABLE, verdicts(run_id, 1).with_columns(colour=pl.lit("red")))
        with pytest.raises(KeyError, match="'record_id' does not fit"):
            upsert_frame(session, TABLE, verdicts(run_id, 1).drop("record_id"))
