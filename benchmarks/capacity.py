"""What a unit costs the database, the broker and a worker, what saturates first, and whether partitions pay.

Costs are measured on PostgreSQL (durable) and Redis with real workers; a discrete-event simulation with these costs as
its parameters is checked against 1, 2 and 4 workers here, then asked about 10, 100 and 1,000 on machines of their own.
"""

import heapq
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from sqlalchemy import Connection, event, select, text
from sqlalchemy.orm import Session

from benchmarks.bulk import verdicts
from benchmarks.engine import Place, ask, catalog_at, finish, places, workers_of
from benchmarks.reporting import arguments, report
from catalog.bulk import upsert_frame
from catalog.database import Catalog
from catalog.tables import metadata
from catalog.tables.base import new_id
from catalog.tables.engine import Run, Unit
from workers import engine, process_names, runs, sweeping
from workers.app import make_app, relay
from workers.execution import execute

WORKERS = (10, 100, 1_000, 10_000)
UNIT_SECONDS = (1.0, 10.0)
DATABASE_CORES = 8
SWEEP_SECONDS, PROGRESS_SECONDS = 5.0, 1.0
RECORDS = (10**6, 10**9, 10**12)
SHARD_ROWS = 10_000
UNITS_A_SHARD = 4
"""Of a cleaning with deduplication: measure, score, judge, and a quarter as many again for all the others."""
VERDICTS = metadata.tables["verdicts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Of one unit that does nothing, in seconds of one core unless said otherwise."""

    worker: float
    database: float
    broker: float
    sweep_database: float
    """Of one sweep of one worker."""
    renewal_database: float
    """Of one renewal of a lease, with the unit's progress."""
    commit_delay: float
    """Wall time of a commit that nobody computes in: the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """What came out."""

    units_per_second: float
    database_load: float
    broker_load: float


class Servers:
    """Equal servers with one queue, first come first served; requests must come in the order of time."""

    def __init__(self, count: int) -> None:
        self._free = [0.0] * count
        self.busy = 0.0

    def serve(self, at: float, seconds: float) -> float:
        """When a request that comes at that time is done."""
        begins = max(at, heapq.heappop(self._free))
        heapq.heappush(self._free, begins + seconds)
        self.busy += seconds
        return begins + seconds


def simulate(
    costs: Costs, *, workers: int, seconds: float, cores: int, shared: bool, horizon: float, progress: bool = True
) -> Simulated:
    """Workers that take units from a queue that is never empty.

    Parameters
    ----------
    seconds : a unit's own work.
    cores : of the database's machine; ``shared``: of the only machine, on which workers and broker compute too.
    horizon : seconds to simulate; the first fifth is not counted.
    progress : whether units report progress all the time, so that every lease is renewed each second.
    """
    database, broker = Servers(cores), Servers(1)
    of_worker, of_broker = (database, database) if shared else (None, broker)
    pauses = SWEEP_SECONDS / workers
    # Nobody begins all units of a long run in the same moment.
    queue: list[tuple[float, int, int, float]] = [
        (number * seconds / workers, number, 0, 0.0) for number in range(workers)
    ]
    queue += [(number * pauses, number, -1, 0.0) for number in range(workers)]
    heapq.heapify(queue)
    done, counted_from = 0, horizon / 5
    while queue[0][0] < horizon:
        at, number, step, left = heapq.heappop(queue)
        if step == -1:
            database.serve(at, costs.sweep_database)
            heapq.heappush(queue, (at + SWEEP_SECONDS, number, -1, 0.0))
        elif step == 0:
            heapq.heappush(queue, (of_broker.serve(at, costs.broker), number, 1, 0.0))
        elif step == 1:
            ready = at + costs.worker if of_worker is None else of_worker.serve(at, costs.worker)
            heapq.heappush(queue, (ready, number, 2, 0.0))
        elif step == 2:
            claimed = database.serve(at, costs.database / 2) + costs.commit_delay
            heapq.heappush(queue, (claimed, number, 3, seconds))
        elif step == 3 and left > 0:
            part = min(left, PROGRESS_SECONDS) if progress else left
            heapq.heappush(queue, (at + part, number, 3, left - part))
            if progress and part == PROGRESS_SECONDS:
                database.serve(at, costs.renewal_database)
        else:
            committed = database.serve(at, costs.database / 2) + costs.commit_delay
            done += committed > counted_from
            heapq.heappush(queue, (committed, number, 0, 0.0))
    return Simulated(
        units_per_second=done / (horizon - counted_from),
        database_load=database.busy / cores / horizon,
        broker_load=broker.busy / horizon,
    )


def processor_seconds(kind: str) -> float:
    """Of the database's or the broker's processes, all children of this one."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            name, used = process.name(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        if kind in name:
            total += used.user + used.system
    return total


def counted(catalog: Catalog, work: Callable[[], object]) -> dict[str, int]:
    """Statements and transactions that some work takes, by SQLAlchemy's events."""
    seen: Counter[str] = Counter()

    def statement(*_: object) -> None:
        seen["statements"] += 1

    def commit(_connection: Connection) -> None:
        seen["transactions"] += 1

    event.listen(catalog.engine, "before_cursor_execute", statement)
    event.listen(catalog.engine, "commit", commit)
    work()
    event.remove(catalog.engine, "before_cursor_execute", statement)
    event.remove(catalog.engine, "commit", commit)
    return dict(seen)


def _value(catalog: Catalog, query: str) -> float:
    with catalog.read() as session:
        return float(session.execute(text(query)).scalar_one())


def _repeated(work: Callable[[], object], times: int = 200) -> float:
    """Processor seconds of the database for one of some work."""
    before = processor_seconds("postgres")
    for _ in range(times):
        work()
    return (processor_seconds("postgres") - before) / times


def measure_unit(place: Place, num_units: int) -> tuple[Costs, dict[str, Any]]:
    """Costs of a unit that does nothing: processor time by who spends it, statements, bytes, rows, connections."""
    told: dict[str, Any] = {}
    with catalog_at(place) as catalog:
        app = make_app(catalog.settings)
        run_id = ask(catalog, 300, 0.0)
        with catalog.read() as session:
            ids = session.scalars(select(Unit.id).where(Unit.run_id == run_id).order_by(Unit.position)).all()
        execute(catalog, ids[0], process_names.this_process())
        told["unit"] = counted(catalog, lambda: execute(catalog, ids[1], process_names.this_process()))
        told["sweep"] = counted(catalog, lambda: sweeping.sweep(catalog, idle=True))
        mine = engine.claim(catalog, ids[2], process_names.this_process())
        assert mine is not None
        told["renewal"] = counted(catalog, lambda: engine.renew(catalog, mine, 1, 2))
        renewal = _repeated(lambda: engine.renew(catalog, mine, 1, 2))
        sweep = _repeated(lambda: sweeping.sweep(catalog, idle=True))
        wall, used = time.perf_counter(), processor_seconds("postgres")
        for _ in range(100):
            with catalog.write() as session:
                session.execute(text("UPDATE runs SET reason = NULL WHERE id = :id"), {"id": run_id})
        delay = max(0.0, (time.perf_counter() - wall - (processor_seconds("postgres") - used)) / 100)
        while relay(catalog, app):
            pass
        with app.connection_for_write() as connection:
            client = connection.default_channel.client
            told["message_bytes"] = int(client.memory_usage("winnow.cpu", samples=0) / client.llen("winnow.cpu"))
            client.flushdb()
    with catalog_at(place) as catalog, workers_of(catalog, 2) as workers:
        wal = _value(catalog, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
        size = _value(catalog, "SELECT pg_total_relation_size('units')")
        run_id = ask(catalog, num_units, 0.0)
        told["plan_wal_bytes"] = round(
            (_value(catalog, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')") - wal) / num_units
        )
        wal = _value(catalog, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
        before = {kind: processor_seconds(kind) for kind in ("postgres", "redis", "python")}
        took = finish(catalog, run_id)
        spent = {kind: (processor_seconds(kind) - was) / num_units for kind, was in before.items()}
        told["wal_bytes"] = round(
            (_value(catalog, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')") - wal) / num_units
        )
        told["row_bytes"] = round((_value(catalog, "SELECT pg_total_relation_size('units')") - size) / num_units)
        told["connections_a_worker"] = round(
            (_value(catalog, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") - 1)
            / len(workers),
            1,
        )
        told["units_per_second_of_2_workers"] = round(num_units / took, 1)
    costs = Costs(
        worker=spent["python"],
        database=spent["postgres"],
        broker=spent["redis"],
        sweep_database=sweep,
        renewal_database=renewal,
        commit_delay=delay,
    )
    return costs, told


def validate(place: Place, costs: Costs, seconds: float, num_units: int) -> list[dict[str, float]]:
    """Units a second of 1, 2 and 4 workers on this machine, measured and simulated."""
    found = []
    for count in (1, 2, 4):
        with catalog_at(place) as catalog, workers_of(catalog, count):
            took = finish(catalog, ask(catalog, num_units * count, seconds))
        measured = num_units * count / took
        told = simulate(
            costs, workers=count, seconds=seconds, cores=os.cpu_count() or 1, shared=True, horizon=200 * seconds
        )
        found.append(
            {
                "workers": count,
                "measured": round(measured, 2),
                "simulated": round(told.units_per_second, 2),
                "ratio": round(told.units_per_second / measured, 3),
            }
        )
    return found


def predict(costs: Costs) -> list[dict[str, Any]]:
    """What many workers reach on machines of their own, and how loaded database and broker are by it."""
    found = []
    for seconds in UNIT_SECONDS:
        for count in WORKERS:
            for progress in (True, False):
                told = simulate(
                    costs,
                    workers=count,
                    seconds=seconds,
                    cores=DATABASE_CORES,
                    shared=False,
                    horizon=30.0 * seconds,
                    progress=progress,
                )
                ideal = count / seconds
                row = {"workers": count, "unit_seconds": seconds, "progress": progress} | asdict(told)
                found.append(row | {"of_ideal": told.units_per_second / ideal})
    return [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} for row in found
    ]


def partitions(place: Place, num_runs: int, rows: int) -> dict[str, dict[str, float]]:
    """The last of several runs' verdicts written, counted and removed again, in one table and in a partition a run."""
    found = {}
    for name in ("one_table", "partition_a_run"):
        with catalog_at(place) as catalog:
            found[name] = _with_layout(catalog, num_runs, rows, partitioned=name == "partition_a_run")
    return found


def deep_queue(place: Place, depths: Sequence[int], times: int = 200) -> list[dict[str, float]]:
    """Whether taking a unit up becomes dearer with the number of units that are ready: database time of one, in ms.

    With a run of higher priority that is not yet done, so that the unit is looked for instead of named by its message.
    """
    return [_at_depth(place, depth, times) for depth in depths]


def _at_depth(place: Place, depth: int, times: int) -> dict[str, float]:
    owner = process_names.this_process()
    with catalog_at(place) as catalog:
        urgent = ask(catalog, times + 1, 0.0)
        with catalog.write() as session:
            runs.steer(session, session.get_one(Run, urgent), catalog.now(session), priority=5)
        began = time.perf_counter()
        run_id = ask(catalog, depth, 0.0)
        planned = time.perf_counter() - began
        ids = iter(_some_units(catalog, run_id, times + 1))
        hint = next(ids)
        looked_for = _repeated(lambda: engine.take(catalog, hint, owner), times)
        with catalog.write() as session:
            runs.cancel(session, session.get_one(Run, urgent), catalog.now(session))
        named = _repeated(lambda: engine.take(catalog, next(ids), owner), times)
    return {
        "ready_units": depth,
        "planned_per_second": round(depth / planned),
        "named_ms": round(named * 1e3, 3),
        "looked_for_ms": round(looked_for * 1e3, 3),
    }


def _some_units(catalog: Catalog, run_id: str, count: int) -> Sequence[str]:
    with catalog.read() as session:
        return session.scalars(select(Unit.id).where(Unit.run_id == run_id).order_by(Unit.id).limit(count)).all()


def _with_layout(catalog: Catalog, num_runs: int, rows: int, *, partitioned: bool) -> dict[str, float]:
    ids = [new_id() for _ in range(num_runs)]
    with catalog.write() as session:
        if partitioned:
            session.execute(text("ALTER TABLE verdicts RENAME TO verdicts_before"))
            session.execute(
                text("CREATE TABLE verdicts (LIKE verdicts_before INCLUDING ALL) PARTITION BY LIST (run_id)")
            )
    for run_id in ids[:-1]:
        with catalog.write() as session:
            _partition(session, run_id, partitioned=partitioned)
            session.execute(_FILL, {"run": run_id, "rows": rows})
    told: dict[str, float] = {}
    last = ids[-1]

    def timed(name: str, work: Callable[[Session], object]) -> None:
        began = time.perf_counter()
        with catalog.write() as session:
            work(session)
        told[f"{name}_seconds"] = round(time.perf_counter() - began, 3)

    frame = verdicts(last, rows)
    with catalog.write() as session:
        _partition(session, last, partitioned=partitioned)
    timed("insert", lambda session: upsert_frame(session, VERDICTS, frame))
    told["insert_rows_per_second"] = round(rows / told["insert_seconds"])
    timed("count", lambda session: session.execute(_FUNNEL, {"run": last}).all())
    told["bytes_a_row"] = round(
        _value(
            catalog,
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'verdicts%'",
        )
        / (rows * num_runs)
    )
    if partitioned:
        timed("delete", lambda session: session.execute(text(f'DROP TABLE "{_name(last)}"')))
        told["vacuum_seconds"] = 0.0
    else:
        timed(
            "delete", lambda session: session.execute(text("DELETE FROM verdicts WHERE run_id = :run"), {"run": last})
        )
        began = time.perf_counter()
        with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM verdicts"))
        told["vacuum_seconds"] = round(time.perf_counter() - began, 3)
    return told


_FILL = text(
    "INSERT INTO verdicts SELECT CAST(:run AS text), md5(CAST(:run AS text) || number) || '-0', "
    "number % 3 > 0, NULL, '[]'::jsonb, "
    "jsonb_build_object('word_count', number, 'mean_word_length', 4.25, 'alpha_word_ratio', 0.9375), "
    '\'{"length": 40.0, "compression_ratio": 0.81, "rarity": 6.1}\'::jsonb FROM generate_series(1, :rows) AS number '
    "ORDER BY 2"
)
_FUNNEL = text("SELECT reason, count(*) FROM verdicts WHERE run_id = :run GROUP BY reason")


def _name(run_id: str) -> str:
    return f"verdicts_{run_id.replace('-', '')}"


def _partition(session: Session, run_id: str, *, partitioned: bool) -> None:
    if partitioned:
        session.execute(text(f"CREATE TABLE \"{_name(run_id)}\" PARTITION OF verdicts FOR VALUES IN ('{run_id}')"))


def of_records(told: dict[str, Any], bytes_a_verdict: float) -> list[dict[str, float]]:
    """What so many records are to the control plane, for one cleaning."""
    found = []
    for records in RECORDS:
        units = -(-records // SHARD_ROWS) * UNITS_A_SHARD
        found.append(
            {
                "records": records,
                "units": units,
                "unit_gigabytes": round(units * told["row_bytes"] / 1e9, 3),
                "wal_gigabytes_of_units": round(units * (told["wal_bytes"] + told["plan_wal_bytes"]) / 1e9, 3),
                "verdict_gigabytes": round(records * bytes_a_verdict / 1e9, 1),
            }
        )
    return found


def main() -> None:
    """Measure, simulate, print."""
    options = arguments(__doc__ or "")
    num_units, seconds, per_worker = (300, 0.2, 30) if options.quick else (2_000, 0.2, 150)
    num_runs, rows = (3, 20_000) if options.quick else (10, 200_000)
    with places() as all_places:
        place = all_places[3]
        costs, told = measure_unit(place, num_units)
        print(f"a unit: {told['unit']}, {told['message_bytes']} B of message, {told['wal_bytes']} B of log; {told}")
        print({name: f"{value * 1e3:.2f} ms" for name, value in asdict(costs).items()})
        checked = validate(place, costs, seconds, per_worker)
        for one in checked:
            print(
                f"{one['workers']} workers, units of {seconds} s: "
                f"{one['measured']} a second measured, {one['simulated']} simulated"
            )
        predicted = predict(costs)
        for row in predicted:
            print(row)
        depths = deep_queue(place, (1_000, 20_000) if options.quick else (1_000, 400_000))
        for depth in depths:
            print(depth)
        layouts = partitions(place, num_runs, rows)
        for name, row in layouts.items():
            print(name, row)
    scale = of_records(told, layouts["one_table"]["bytes_a_row"])
    for row in scale:
        print(row)
    figures = {
        "load_average": os.getloadavg()[0],
        "costs_ms": {name: round(value * 1e3, 3) for name, value in asdict(costs).items()},
        "measured": told,
        "units_per_second_of_a_database_core": round(1 / costs.database),
        "validation": checked,
        "predicted": predicted,
        "queue_depth": depths,
        "rows_of_partitions": rows * num_runs,
        "partitions": layouts,
        "records": scale,
    }
    report("capacity", options, figures, ("celery", "redis", "sqlalchemy", "psycopg"))


if __name__ == "__main__":
    main()
