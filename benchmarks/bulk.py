"""A million verdict rows: our idempotent bulk write against ADBC alone, SQLAlchemy Core and COPY, in one run.

Ours is an upsert inside the caller's transaction. ADBC alone appends in a transaction of its own and on SQLite may not
share a process with the driver's library while the file is open (catalog/bulk.py); it is measured on a file of its own.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import insert, text

from benchmarks.reporting import arguments, report
from catalog import migrate
from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables import metadata
from tests.servers import postgres_server
from tests.workers.building import add_dataset, add_run

TABLE = metadata.tables["verdicts"]


def verdicts(run_id: str, count: int) -> pl.DataFrame:
    """Rows as a cleaning run writes them."""
    number = pl.int_range(count)
    return pl.select(
        run_id=pl.lit(run_id),
        record_id=pl.format("{}-0", number.hash(1).cast(pl.String).str.zfill(32)),
        kept=number % 3 > 0,
        reason=pl.when(number % 3 == 0).then(pl.lit("word_count")),
        failed=pl.when(number % 3 == 0).then(pl.lit('["word_count"]')).otherwise(pl.lit("[]")),
        measured=pl.struct(
            word_count=number, mean_word_length=pl.lit(4.25), alpha_word_ratio=pl.lit(0.9375)
        ).struct.json_encode(),
        scores=pl.lit('{"length": 40.0, "compression_ratio": 0.81, "rarity": 6.1}'),
    )


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(catalog: Catalog, count: int) -> dict[str, float]:
    """Rows a second of every way, on one database."""
    with catalog.write() as session:
        dataset = add_dataset(session)
        runs = [add_run(session, dataset).id for _ in range(3)]

    def ours(run_id: str) -> None:
        with catalog.write() as session:
            upsert_frame(session, TABLE, verdicts(run_id, count))

    def core(run_id: str) -> None:
        import json

        rows = verdicts(run_id, count // 10).to_dicts()
        for row in rows:
            for name in ("failed", "measured", "scores"):
                row[name] = json.loads(row[name])
        with catalog.write() as session:
            session.execute(insert(TABLE), rows)

    rates = {"ours": count / timed(lambda: ours(runs[0]))}
    rates["ours_repeated"] = count / timed(lambda: ours(runs[0]))
    rates["sqlalchemy_core"] = (count // 10) / timed(lambda: core(runs[1]))
    rates["adbc_append"] = count / timed(lambda: adbc_append(catalog, verdicts(runs[2], count)))
    with catalog.read() as session:
        count_rows = text("SELECT count(*) FROM verdicts WHERE run_id = :run")
        stored = session.execute(count_rows, {"run": runs[0]}).scalar_one()
    assert stored == count, f"{stored} rows stored, {count} given"
    return rates


def adbc_append(catalog: Catalog, frame: pl.DataFrame) -> None:
    """Arrow straight into a table without keys, as fast as ADBC goes."""
    if catalog.is_sqlite:
        import adbc_driver_sqlite.dbapi as sqlite

        with sqlite.connect(str(catalog.settings.home / "adbc.db")) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("verdicts", frame.to_arrow(), mode="create")
            connection.commit()
        return
    import adbc_driver_postgresql.dbapi as postgresql

    uri = catalog.settings.database.replace("+psycopg", "")
    with postgresql.connect(uri) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("verdicts_by_adbc", frame.to_arrow(), mode="create")
        connection.commit()


def main() -> None:
    """Measure both databases."""
    options = arguments(__doc__ or "")
    count = 100_000 if options.quick else 1_000_000
    figures: dict[str, float] = {"rows": count}
    with tempfile.TemporaryDirectory() as home, postgres_server() as url:
        for name, database_url in (("sqlite", ""), ("postgresql", url)):
            catalog = Catalog(Settings(home=Path(home), database_url=database_url))
            migrate.upgrade(catalog)
            rates = measure(catalog, count)
            catalog.close()
            for way, rate in rates.items():
                print(f"{name:<11} {way:<16} {rate:>12,.0f} rows/s   ours is {rates['ours'] / rate:.2f} times as fast")
            figures |= {
                f"seconds_{name}": round(count / rates["ours"], 2),
                f"rows_per_second_{name}": round(rates["ours"]),
                f"speedup_vs_core_{name}": round(rates["ours"] / rates["sqlalchemy_core"], 2),
                f"speed_vs_adbc_append_{name}": round(rates["ours"] / rates["adbc_append"], 2),
            }
    report("bulk", options, figures, ("sqlalchemy", "psycopg", "adbc-driver-postgresql", "polars"))


if __name__ == "__main__":
    main()
