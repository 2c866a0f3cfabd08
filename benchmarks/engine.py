"""The job engine: what it adds to a run of short units, no-op units a second, how soon a dead worker's unit runs again.

Real worker processes on every combination of database and broker; PostgreSQL with every write flushed, as in service.
Peer: plain Celery tasks that do nothing, on the same Redis with the same workers' settings: the price of bookkeeping.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import make_url, select

from benchmarks.engine_worker import KIND
from benchmarks.reporting import arguments, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset
from catalog.tables.engine import Run, Unit
from tests.servers import RedisServer, administer, postgres_server
from workers import process_names, runs
from workers.app import make_app, relay

SEED = 20_261_129
NUM_WORKERS = 2
POLL_SECONDS = 0.02
START_SECONDS = 90.0
GOALS = {"overhead_ratio": 0.05, "noop_units_per_second": 200.0, "recovery_over_lease": 2.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A database and a broker."""

    database: str
    broker: str
    database_url: str
    broker_url: str

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.database}+{self.broker}"


@contextmanager
def places() -> Iterator[list[Place]]:
    """Every combination of SQLite and PostgreSQL with the embedded broker and Redis."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgres_server(durable=True))
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        yield [
            Place(database=database, broker=broker, database_url=database_url, broker_url=broker_url)
            for database, database_url in (("sqlite", ""), ("postgresql", url))
            for broker, broker_url in (("embedded", ""), ("redis", redis.url))
        ]


@contextmanager
def catalog_at(place: Place, **options: Any) -> Iterator[Catalog]:
    """A fresh, migrated catalog there, with a home folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        url = place.database_url
        if url:
            name = f"b{new_id().replace('-', '')}"
            administer(url, f"CREATE DATABASE {name}")
            url = make_url(url).set(database=name).render_as_string(hide_password=False)
        broker_url = place.broker_url and f"{place.broker_url[:-1]}{random.randrange(1, 16)}"
        catalog = Catalog(Settings(home=Path(folder), database_url=url, broker_url=broker_url, **options))
        migrate.upgrade(catalog)
        Store.of(catalog.settings).create()
        try:
            yield catalog
        finally:
            if broker_url:
                make_app(catalog.settings).connection_for_write().default_channel.client.flushdb()
            catalog.close()


def start_worker(catalog: Catalog, name: str, module: str = "benchmarks.engine_worker") -> "subprocess.Popen[bytes]":
    """One worker process with these settings; its log lies in the home folder."""
    environment = os.environ | {
        f"WINNOW_{key.upper()}": str(value)
        for key, value in catalog.settings.model_dump().items()
        if value != "" and not isinstance(value, bool)
    }
    with (catalog.settings.home / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, "--name", name, "--parent", str(os.getpid())],
            env=environment,
            stdout=log,
            stderr=log,
        )


@contextmanager
def workers_of(catalog: Catalog, count: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Worker processes that are up, with their first unit behind them."""
    started = [start_worker(catalog, f"w{number}") for number in range(count)]
    try:
        deadline = time.monotonic() + START_SECONDS
        while runs.num_workers_alive(catalog) < count:
            for number, process in enumerate(started):
                if process.poll() is not None:
                    raise SystemExit((catalog.settings.home / f"w{number}.log").read_text())
            if time.monotonic() > deadline:
                raise SystemExit(f"{count} workers did not come up within {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        finish(catalog, ask(catalog, 10 * count, 0.02))
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(catalog: Catalog, num_units: int, seconds: float) -> str:
    """Ask for a run of that many units which wait for that long; its id."""
    with catalog.write() as session:
        now = catalog.now(session)
        dataset = Dataset(id=new_id(), name=new_id(), text_column="body", created_at=now)
        session.add(dataset)
        session.flush()
        run, _ = runs.submit(
            session,
            now=now,
            kind=KIND,
            dataset_id=dataset.id,
            version_id=None,
            config={"num_units": num_units, "seconds": seconds},
            idempotency_key=new_id(),
        )
        return run.id


def finish(catalog: Catalog, run_id: str) -> float:
    """Send the run's messages, wait for its end; seconds of wall time from the first message on."""
    began = time.perf_counter()
    app = make_app(catalog.settings)
    while relay(catalog, app):
        pass
    while True:
        with catalog.read() as session:
            state, reason = session.execute(select(Run.state, Run.reason).where(Run.id == run_id)).one()
        if state != "running":
            assert state == "done", reason
            return time.perf_counter() - began
        time.sleep(POLL_SECONDS)


def overhead(catalog: Catalog, num_units: int, seconds: float) -> dict[str, float]:
    """Wall time of a run of waiting units over what the waiting alone takes, less one."""
    took = finish(catalog, ask(catalog, num_units, seconds))
    ideal = num_units * seconds / NUM_WORKERS
    return {"seconds": round(took, 2), "ideal_seconds": ideal, "overhead_ratio": round(took / ideal - 1, 4)}


def cpu_seconds() -> float:
    """Of this process and all that it started: workers, database, broker."""
    total = 0.0
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system
    return total


def noops(catalog: Catalog, num_units: int) -> dict[str, float]:
    """Units a second that do nothing, and processor time a unit: of workers, database, broker and this process."""
    run_id, before = ask(catalog, num_units, 0.0), cpu_seconds()
    took = finish(catalog, run_id)
    return {
        "noop_units_per_second": round(num_units / took, 1),
        "cpu_ms_a_unit": round((cpu_seconds() - before) / num_units * 1e3, 2),
    }


def recoveries(
    catalog: Catalog, workers: list["subprocess.Popen[bytes]"], rng: random.Random, plan: str
) -> list[float]:
    """Seconds from a worker's end in the middle of a unit until somebody has claimed that unit again.

    Parameters
    ----------
    plan : a letter a fault: ``k`` kills a worker whose end the machine knows, ``s`` stops one dead, as a machine that
        is gone would be: nobody can tell it from a slow one before its lease runs out.
    """
    # Of the workers one is always idle: what is measured is the recovery, not the wait for somebody to be free.
    num_workers = len(workers)
    run_id = ask(catalog, num_workers - 1, catalog.settings.lease_seconds * 100)
    relay(catalog, make_app(catalog.settings))
    found = []
    for fault in plan:
        time.sleep(catalog.settings.lease_seconds * rng.uniform(0.1, 0.9))
        unit_id, epoch, pid = _victim(catalog, run_id)
        process = next(one for one in workers if one.pid == pid)
        process.send_signal(signal.SIGKILL if fault == "k" else signal.SIGSTOP)
        began = time.perf_counter()
        if fault == "k":
            process.wait()
        while _epoch(catalog, unit_id) == epoch:
            time.sleep(POLL_SECONDS)
        found.append(time.perf_counter() - began)
        if fault == "s":
            process.send_signal(signal.SIGKILL)
            process.send_signal(signal.SIGCONT)
            process.wait()
        workers.remove(process)
        if len(found) < len(plan):
            workers.append(start_worker(catalog, f"r{len(found)}"))
            while runs.num_workers_alive(catalog) < num_workers:
                time.sleep(POLL_SECONDS)
    with catalog.write() as session:
        runs.cancel(session, session.get_one(Run, run_id), catalog.now(session))
    return found


def _victim(catalog: Catalog, run_id: str) -> tuple[str, int, int]:
    """A unit under way, its epoch, and the process that has it."""
    while True:
        with catalog.read() as session:
            row = session.execute(
                select(Unit.id, Unit.epoch, Unit.owner).where(Unit.run_id == run_id, Unit.state == "running").limit(1)
            ).one_or_none()
        if row is not None and not process_names.is_gone(row.owner):
            return row.id, row.epoch, int(row.owner.split("/")[2])
        time.sleep(POLL_SECONDS)


def _epoch(catalog: Catalog, unit_id: str) -> int:
    with catalog.read() as session:
        return session.execute(select(Unit.epoch).where(Unit.id == unit_id)).scalar_one()


def plain_celery(place: Place, num_tasks: int) -> float:
    """Tasks a second of plain Celery that count themselves in Redis, sent and done by as many workers as ours."""
    import redis

    client = redis.Redis.from_url(place.broker_url)
    client.flushdb()
    environment = os.environ | {"PLAIN_BROKER": place.broker_url}
    command = [sys.executable, "-m", "celery", "--app=benchmarks.peers.plain_celery", "worker", "--pool=solo"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    with ExitStack() as stack:
        for number in range(NUM_WORKERS):
            worker = subprocess.Popen(
                [*command, f"--hostname=p{number}@%h"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
        os.environ["PLAIN_BROKER"] = place.broker_url
        from benchmarks.peers.plain_celery import COUNTER, nothing

        def until(count: int) -> None:
            while int(client.get(COUNTER) or 0) < count:
                time.sleep(POLL_SECONDS)

        for _ in range(20 * NUM_WORKERS):
            nothing.delay()
        until(20 * NUM_WORKERS)
        # Both must be up, not just the first.
        time.sleep(3)
        client.delete(COUNTER)
        began = time.perf_counter()
        for _ in range(num_tasks):
            nothing.delay()
        until(num_tasks)
        took = time.perf_counter() - began
    client.flushdb()
    return num_tasks / took


def main() -> None:
    """Measure, print a table, and the goals beside it."""
    options = arguments(__doc__ or "")
    num_units, seconds = (40, 0.25) if options.quick else (100, 1.0)
    num_noops = 600 if options.quick else 3_000
    plan, lease = ("ks", 3.0) if options.quick else ("kkkkkss", 12.0)
    figures: dict[str, Any] = {
        "load_average": os.getloadavg()[0],
        "seed": SEED,
        "num_workers": NUM_WORKERS,
        "combinations": {},
    }
    rng, found = random.Random(SEED), []
    times = {"lease_seconds": lease, "heartbeat_seconds": lease / 4, "sweep_seconds": lease / 12}
    with places() as all_places:
        at_scale = all_places[3]
        for place in [at_scale] if options.quick else all_places:
            settings = times | {"max_attempts": 50} if options.quick else {}
            with catalog_at(place, **settings) as catalog, workers_of(catalog, NUM_WORKERS) as workers:
                row: dict[str, Any] = noops(catalog, num_noops)
                row |= overhead(catalog, num_units, seconds)
                if options.quick:
                    # Starting workers anew would take longer than all that is measured.
                    found = recoveries(catalog, workers, rng, plan)
            figures["combinations"][place.name] = row
            print(
                f"{place.name:<22} {row['noop_units_per_second']:>7.1f} no-ops/s of {row['cpu_ms_a_unit']:.1f} ms CPU  "
                f"{num_units} units of {seconds:g} s: {row['seconds']:.2f} s, overhead {row['overhead_ratio']:.2%}"
            )
        figures["plain_celery_tasks_per_second"] = round(plain_celery(at_scale, num_noops), 1)
        print(f"plain Celery on Redis  {figures['plain_celery_tasks_per_second']:>7.1f} no-ops/s")
        if not options.quick:
            with (
                catalog_at(at_scale, max_attempts=50, **times) as catalog,
                workers_of(catalog, NUM_WORKERS + 1) as workers,
            ):
                found = recoveries(catalog, workers, rng, plan)
        figures["recoveries"] = [
            {"fault": "kill -9" if fault == "k" else "silence", "over_lease": round(took / lease, 3)}
            for fault, took in zip(plan, found, strict=True)
        ]
        for one in figures["recoveries"]:
            print(f"after {one['fault']:<8} its unit ran again after {one['over_lease']:.2f} leases")
    best = figures["combinations"][at_scale.name]["noop_units_per_second"]
    figures |= {
        "overhead_ratio": max(row["overhead_ratio"] for row in figures["combinations"].values()),
        "noop_units_per_second": best,
        "recovery_over_lease": max(one["over_lease"] for one in figures["recoveries"]),
        "of_plain_celery": round(best / figures["plain_celery_tasks_per_second"], 3),
        "goals": GOALS,
    }
    report("engine", options, figures, ("celery", "kombu", "redis", "sqlalchemy", "psycopg"))


if __name__ == "__main__":
    main()
