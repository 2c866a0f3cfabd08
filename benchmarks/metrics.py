"""What one scrape of ``/metrics`` costs when the database holds a million units, shards and annotations.

Measured as it is, and with the one index that the schema would need for the units done lately. Rows are written by SQL.
"""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from benchmarks.reporting import arguments, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from service import metrics
from tests.servers import postgres_server
from tests.workers.building import add_dataset, add_run

READY, RUNNING = 20_000, 200
SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count)",
    "postgresql": "WITH s AS (SELECT generate_series(1, :count) AS n)",
}
AGO = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || ({}) || ' seconds')",
    "postgresql": "now() - ({}) * interval '1 second'",
}
ID = {"sqlite": "printf('%036d', n)", "postgresql": "lpad(n::text, 36, '0')"}
JSON = {"sqlite": "'{}'", "postgresql": "CAST('{}' AS jsonb)"}
INDEX = "CREATE INDEX ix_units_finished_at ON units (finished_at)"


def fill(catalog: Catalog, count: int) -> None:
    """A run of so many units, most of them done over the last day, a shard each, and as many annotations."""
    backend = "sqlite" if catalog.is_sqlite else "postgresql"
    ago, key, document = AGO[backend], ID[backend], JSON[backend].format('{{"shard": 17, "files": ["a", "b", "c"]}}')
    state = f"CASE WHEN n <= {READY} THEN 'ready' WHEN n <= {READY + RUNNING} THEN 'running' ELSE 'done' END"
    ended = f"CASE WHEN n > {READY + RUNNING} THEN {ago.format('n % 86400')} END"
    lease = f"CASE WHEN n > {READY} AND n <= {READY + RUNNING} THEN {ago.format('-60')} END"
    with catalog.write() as session:
        dataset = add_dataset(session)
        asked = {"count": count, "run": add_run(session, dataset).id, "dataset": dataset.id}
    statements = (
        "INSERT INTO units (id, run_id, stage, stage_name, position, payload, state, epoch, attempts, lease_until, "
        f"num_done, num_total, ready_at, started_at, finished_at) {{series}} SELECT {key}, :run, n % 7, "
        f"'stage ' || (n % 7), n, {document}, {state}, 1, 1, {lease}, 10, 10, {ago.format('n % 86400 + 9')}, "
        f"{ago.format('n % 86400 + 2')}, {ended} FROM s",
        "INSERT INTO shards (id, dataset_id, run_id, unit_id, position, kind, name, sha256, size_bytes, num_rows) "
        f"{{series}} SELECT {key}, :dataset, :run, {key}, 0, 'text', 'text/00/' || {key}, {key}, 1000, 10 FROM s",
        "INSERT INTO annotations (id, queue_id, task_id, annotator_id, lease_id, value, key, late, created_at) "
        f"{{series}} SELECT {key}, 'q', {key}, 'a' || (n % 100), {key}, {document}, {key}, "
        f"{'0' if catalog.is_sqlite else 'false'}, {ago.format('0')} FROM s",
    )
    if catalog.is_sqlite:
        # Apart from SQLAlchemy, which begins a transaction first: within one, keys cannot be switched off.
        driver = sqlite3.connect(catalog.sqlite_path)
        driver.execute("PRAGMA foreign_keys=OFF")
        for statement in statements:
            driver.execute(statement.format(series=SERIES[backend]), asked)
        driver.commit()
        driver.execute("ANALYZE")
        driver.close()
        return
    with catalog.engine.connect() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(text(statement.format(series=SERIES[backend])), asked)
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def milliseconds(catalog: Catalog, *, times: int) -> tuple[float, float]:
    """Of the first scrape, and the median of those that follow within the minute."""
    collector = metrics.DatabaseCollector(catalog)
    took = []
    for _ in range(times + 1):
        began = time.perf_counter()
        list(collector.collect())
        took.append((time.perf_counter() - began) * 1000)
    return round(took[0], 1), round(statistics.median(took[1:]), 1)


def by_family(catalog: Catalog) -> dict[str, float]:
    """Milliseconds of each part of a scrape."""
    found = {}
    with catalog.read() as session:
        now = catalog.now(session)
        parts: dict[str, Callable[[], object]] = {
            "runs": lambda: metrics.runs_by_state(session),
            "live": lambda: metrics.live_units(session),
            "units": lambda: metrics.units_by_state(session),
            "queue": lambda: metrics.queue(session, now),
            "recent": lambda: metrics.units_done_lately(session, now),
            "labels": lambda: metrics.annotations(session),
            "sums": lambda: metrics.sums(session, catalog),
        }
        for name, part in parts.items():
            part()
            began = time.perf_counter()
            part()
            found[name] = round((time.perf_counter() - began) * 1000, 1)
    return found


def main() -> None:
    """Measure both databases."""
    options = arguments(__doc__ or "")
    count = 100_000 if options.quick else 1_000_000
    figures: dict[str, object] = {"rows": count}
    with tempfile.TemporaryDirectory() as home, postgres_server() as url:
        for name, database_url in (("sqlite", ""), ("postgresql", url)):
            catalog = Catalog(Settings(home=Path(home), database_url=database_url))
            migrate.upgrade(catalog)
            fill(catalog, count)
            for way in ("as it is", "with an index on finished_at"):
                if way != "as it is":
                    with catalog.write() as session:
                        session.execute(text(INDEX))
                first, later = milliseconds(catalog, times=5)
                parts = by_family(catalog)
                print(f"{name:<11} {way:<29} first {first:>8.1f} ms, later {later:>7.1f} ms  {parts}")
                key = name if way == "as it is" else f"{name}_indexed"
                figures |= {f"first_ms_{key}": first, f"scrape_ms_{key}": later, f"parts_ms_{key}": parts}
            catalog.close()
    report("metrics", options, figures, ("sqlalchemy", "psycopg", "prometheus_client"))


if __name__ == "__main__":
    main()
