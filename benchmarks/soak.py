"""Everything at once for half an hour, with a fault every twenty seconds, and then the books are checked.

Files appear in a watched folder and are taken in and cleaned, annotators answer over HTTP, models are trained, while
workers and the web service are killed, stopped past their leases, and cut off from their database and broker. In the
end every row must have gone in once, every run must have given every record one verdict, every answer that an annotator
was told is kept must be there once, every file of every version must be whole, and the verdicts must be those of a run
over the same files that nobody disturbed.
"""

import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import create_engine, func, select, text

from benchmarks.reporting import options_parser, report
from catalog import migrate
from catalog.database import Catalog, _WriterLock
from catalog.errors import ServiceError
from catalog.settings import Settings
from catalog.store import Store, StoredFile
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Version
from catalog.tables.engine import Run
from catalog.tables.labeling import Annotation, LabelTask
from catalog.tables.schedules import Firing, Request, Schedule
from curation.recipe import parse_recipe
from service.auth import create_user, issue_token
from service.processes import Supervisor, bind
from tests.servers import RedisServer, administer, postgres_server
from tests.workers.building import drain
from tests.workers.corpus import KOREAN, LABELS, WORDS
from workers import manifests, runs, schedules
from workers.jobs import start_job
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

DATASET = "tickets"
RECIPE = {
    "name": "soak",
    "rules": {"char_count": {"minimum": 10}},
    "near": {"threshold": 0.7, "bands": 20, "rows": 5},
    "encoder": "hashing",
}
SCHEMA = "question: Which queue?\nlabels: [hardware, software, 환불]\n"
SEED = 7
SETTLED_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is going on, and for how long; seconds."""

    seconds: float
    fault_every: float
    file_every: float
    train_every: float
    first_rows: int
    """Rows of the first file, which is what annotators are asked about."""
    rows: int
    annotators: int
    think: float
    lease: float
    workers: int = 3


FULL = Plan(
    seconds=1800,
    fault_every=20,
    file_every=60,
    train_every=240,
    first_rows=8000,
    rows=200,
    annotators=50,
    think=3.0,
    lease=10.0,
)
QUICK = Plan(
    seconds=18, fault_every=4, file_every=6, train_every=60, first_rows=400, rows=60, annotators=8, think=0.5, lease=3.0
)


@dataclass
class Books:
    """What was done, as those who did it know it."""

    rows: int = 0
    bad_rows: int = 0
    kept: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Answers that the service said are kept: key to task and value."""
    sent: set[str] = field(default_factory=set)
    late: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    """Seconds from an annotator's request to its answer, tries included."""


class Soak:
    """The installation under test, those who use it, and who disturbs it."""

    def __init__(self, plan: Plan, folder: Path, settings: Settings, cut: dict[str, Callable[[], None]]) -> None:
        self.plan = plan
        self.settings = settings
        self.catalog = Catalog(settings)
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.books = Books()
        self.cut = cut
        self.over = threading.Event()
        self.listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.supervisor = Supervisor(settings)
        self.queue_id = ""
        self.stopped: list[threading.Thread] = []

    def start(self) -> None:
        """Database, store, schedule, processes."""
        migrate.upgrade(self.catalog)
        Store.of(self.settings).create()
        with self.catalog.write() as session:
            wanted = schedules.Wanted(
                name="inbox",
                dataset=DATASET,
                kind="clean",
                config={"recipe": "soak", "document": parse_recipe(RECIPE, Path()).canonical()},
                folder=str(self.inbox),
                mapping={"text": "body", "label": "queue"},
            )
            schedules.add_schedule(session, self.catalog.settings, wanted, now=self.catalog.now(session))
        self.supervisor.add_service(self.listener)
        self.supervisor.add_workers(self.plan.workers)

    def token(self, name: str) -> str:
        """A token of a new annotator."""
        with self.catalog.write() as session:
            now = self.catalog.now(session)
            user = create_user(session, now=now, name=name, role="annotator")
            return issue_token(session, now=now, user_id=user.id, days=1)

    def feed(self, number: int, num_rows: int) -> None:
        """One more file in the watched folder, there at once and whole."""
        chance = random.Random(f"{SEED} file {number}")
        lines = []
        for row in range(num_rows):
            if chance.random() < 0.02:
                lines.append('{"body": "broken')
                self.books.bad_rows += 1
                continue
            words = [chance.choice(WORDS if chance.random() < 0.8 else KOREAN) for _ in range(chance.randint(4, 14))]
            if chance.random() < 0.1 and lines:
                words = ["please", "help"] * 5 + words[:1]
            body = f"{' '.join(words)} {number}-{row}"
            lines.append(json.dumps({"body": body, "queue": chance.choice(LABELS)}, ensure_ascii=False))
            self.books.rows += 1
        path = self.inbox / f"batch-{number:04d}.jsonl"
        aside = path.with_suffix(".part")
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        aside.rename(path)

    def annotate(self, token: str, name: str) -> None:
        """One annotator: ask, think, answer with a key, repeat until it is acknowledged."""
        chance = random.Random(f"{SEED} {name}")
        client = httpx.Client(base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=15)
        number = 0
        with client:
            while not self.over.is_set():
                answer = self._try(lambda: client.post(f"/queues/{self.queue_id}/next"))
                task = answer.json().get("task") if answer is not None and answer.is_success else None
                if task is None:
                    self.over.wait(1.0)
                    continue
                self.over.wait(chance.expovariate(1 / self.plan.think))
                number += 1
                key, value = f"{name}-{number:06d}", chance.choice(LABELS)
                self.books.sent.add(key)
                body = {"key": key, "value": value}
                path, since = f"/leases/{task['lease_id']}/annotation", time.monotonic()
                done = None
                while done is None or done.status_code >= 500:
                    if self.over.is_set() and time.monotonic() - since > 60:
                        return
                    done = self._try(lambda path=path, body=body: client.put(path, json=body))  # type: ignore[misc]
                    if done is None or done.status_code >= 500:
                        time.sleep(0.3)
                self.books.waits.append(time.monotonic() - since)
                if done.is_success:
                    self.books.kept[key] = (task["task_id"], value)
                    self.books.late += done.json()["late"]

    @staticmethod
    def _try(request: Callable[[], httpx.Response]) -> httpx.Response | None:
        try:
            return request()
        except httpx.HTTPError:
            return None

    def workers(self) -> list[psutil.Process]:
        """Living workers of this soak."""
        found = []
        for child in self.supervisor.children:
            if child.name.startswith("worker") and child.popen is not None and child.ended() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(child.popen.pid))
        return found

    def fault(self, chance: random.Random) -> str:
        """Disturb something; return what was done."""
        kinds = ["kill a worker", "kill a worker", "stop a worker past its lease", "kill the web service", *self.cut]
        kind = chance.choice(kinds)
        if kind in self.cut:
            # In this thread: a server that a thread started would die with it.
            self.cut[kind]()
            return kind
        if kind == "kill the web service":
            (service,) = [one for one in self.supervisor.children if one.name == "service"]
            if service.popen is not None:
                service.popen.kill()
            return kind
        living = self.workers()
        if living:
            worker = chance.choice(living)
            if kind == "kill a worker":
                worker.kill()
            else:
                thread = threading.Thread(target=self._stop_for_a_while, args=(worker,), daemon=True)
                thread.start()
                self.stopped.append(thread)
        return kind

    def _stop_for_a_while(self, worker: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.suspend()
            time.sleep(1.5 * self.plan.lease)
            worker.resume()

    def open_queue(self) -> bool:
        """A queue over the first curated version, once there is one."""
        config = {"schema": SCHEMA, "strategy": "margin", "overlap": 3}
        try:
            started = start_job(self.catalog, kind="label", dataset=DATASET, config=config)
        except ServiceError:
            return False
        assert started.queue_id is not None
        self.queue_id = started.queue_id
        return True

    def train(self) -> None:
        """Ask for a training on what there is."""
        with contextlib.suppress(ServiceError):
            start_job(self.catalog, kind="train", dataset=DATASET, config={"recipe": "classify-small"})

    def prepare(self) -> None:
        """The first file in, cleaned, and asked about."""
        self.feed(0, self.plan.first_rows)
        deadline = time.monotonic() + SETTLED_SECONDS
        while not self.open_queue():
            self.supervisor.tend()
            if time.monotonic() > deadline:
                raise SystemExit("nothing was cleaned after a quarter of an hour")
            time.sleep(0.5)

    def run(self) -> None:
        """Half an hour of it."""
        chance = random.Random(SEED)
        tokens = {name: self.token(name) for name in (f"annotator{n:02d}" for n in range(self.plan.annotators))}
        annotators = [threading.Thread(target=self.annotate, args=(token, name)) for name, token in tokens.items()]
        for thread in annotators:
            thread.start()
        began = time.monotonic()
        next_file, next_fault, next_train, files = 0.0, self.plan.fault_every, self.plan.train_every, 1
        while (now := time.monotonic() - began) < self.plan.seconds:
            if now >= next_file:
                self.feed(files, self.plan.rows)
                files, next_file = files + 1, next_file + self.plan.file_every
            if now >= next_fault:
                kind = self.fault(chance)
                self.books.faults[kind] += 1
                sys.stdout.write(f"{now:7.0f} s  {kind}; {len(self.books.kept):,} answers, {files} files\n")
                sys.stdout.flush()
                next_fault += self.plan.fault_every
            if now >= next_train:
                self.train()
                next_train += self.plan.train_every
            self.supervisor.tend()
            time.sleep(0.2)
        self.over.set()
        for thread in [*annotators, *self.stopped]:
            while thread.is_alive():
                self.supervisor.tend()
                thread.join(0.2)

    def settle(self) -> int:
        """Wait until nothing is under way; resume what faults have failed. How many runs that were."""
        resumed = 0
        deadline = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < deadline:
            self.supervisor.tend()
            with self.catalog.write() as session:
                now = self.catalog.now(session)
                for run in session.scalars(select(Run).where(Run.state == "failed")):
                    sys.stdout.write(f"resumed: {run.kind} run {run.id[:8]}: {run.reason}\n")
                    runs.resume(session, run, now)
                    resumed += 1
            if self._is_quiet():
                return resumed
            time.sleep(1.0)
        raise SystemExit("not at rest after a quarter of an hour: " + ", ".join(self._under_way()))

    def _is_quiet(self) -> bool:
        with self.catalog.read() as session:
            num_files = len(list(self.inbox.glob("*.jsonl")))
            taken = sum(len(one.detail["files"]) for one in session.scalars(select(Firing)))
            waiting = session.scalar(select(func.count()).where(Request.state == "waiting"))
            pending = session.scalar(select(func.count()).where(Firing.outcome == "pending"))
        return taken >= num_files and not waiting and not pending and not self._under_way()

    def _under_way(self) -> list[str]:
        with self.catalog.read() as session:
            return [f"{run.kind} {run.id[:8]}" for run in session.scalars(select(Run).where(Run.state == "running"))]

    def stop(self) -> None:
        """End every process."""
        self.supervisor.stop()
        self.listener.close()


def check_rows(soak: Soak) -> dict[str, int]:
    """Rows that went missing or went in twice, verdicts likewise, damaged files."""
    lost = doubled = damaged = 0
    store = Store.of(soak.settings)
    with soak.catalog.read() as session:
        dataset = manifests.find_dataset(session, DATASET)
        raw = manifests.require_version(session, dataset, "raw")
        lost += max(0, soak.books.rows - raw.num_records)
        doubled += max(0, raw.num_records - soak.books.rows)
        for run in session.scalars(select(Run).where(Run.kind == "clean", Run.state == "done")):
            read = session.get_one(Version, run.version_id).num_records
            given = session.scalar(select(func.count()).where(Verdict.run_id == run.id)) or 0
            lost += max(0, read - given)
            doubled += max(0, given - read)
        for version in session.scalars(select(Version)):
            manifest = manifests.read(store, version)
            for entry in manifest["shards"]:
                try:
                    store.read_bytes(StoredFile.from_json(entry["data"]))
                except ServiceError:
                    damaged += 1
    return {"lost": lost, "doubled": doubled, "damaged_files": damaged}


def check_answers(soak: Soak) -> dict[str, int]:
    """Acknowledged answers that are missing or differ, keys that stand twice, tasks with too many answers."""
    with soak.catalog.read() as session:
        stored = session.execute(select(Annotation.key, Annotation.task_id, Annotation.value, Annotation.late)).all()
        overlaps: dict[str, int] = {
            row.id: row.overlap for row in session.execute(select(LabelTask.id, LabelTask.overlap))
        }
    by_key = Counter(row.key for row in stored)
    kept = {row.key: (row.task_id, str(row.value)) for row in stored}
    filled = Counter(row.task_id for row in stored if not row.late)
    return {
        "lost": sum(kept.get(key) != told for key, told in soak.books.kept.items()),
        "doubled": sum(times - 1 for times in by_key.values())
        + sum(max(0, times - overlaps[task]) for task, times in filled.items()),
        "unasked": len(set(by_key) - soak.books.sent),
    }


def differing_verdicts(soak: Soak, folder: Path) -> int:
    """Records that a run over the same files, undisturbed, judges otherwise."""
    calm = Catalog(Settings(home=folder / "calm"))
    (folder / "calm").mkdir()
    migrate.upgrade(calm)
    Store.of(calm.settings).create()
    paths = sorted(str(path) for path in soak.inbox.glob("*.jsonl"))
    submit_ingest(calm, dataset=DATASET, paths=paths, text_column="body", label_column="queue")
    drain(calm)
    submit_clean(calm, dataset=DATASET, recipe=parse_recipe(RECIPE, Path()))
    drain(calm)
    found = [_verdicts(catalog) for catalog in (soak.catalog, calm)]
    calm.close()
    return sum((found[0] - found[1]).values()) + sum((found[1] - found[0]).values())


def _verdicts(catalog: Catalog) -> Counter[tuple[str, bool, str | None]]:
    """Verdicts of the newest cleaning by the content's hash: which of equal texts is which says who came first."""
    with catalog.read() as session:
        newest = manifests.require_version(session, manifests.find_dataset(session, DATASET), "curated")
        rows = session.execute(
            select(Verdict.record_id, Verdict.kept, Verdict.reason).where(Verdict.run_id == newest.run_id)
        )
        return Counter((row.record_id[:32], row.kept, row.reason) for row in rows)


@contextlib.contextmanager
def installation(plan: Plan, folder: Path, *, servers: bool) -> Iterator[Soak]:
    """SQLite and the embedded broker, or PostgreSQL and Redis, with what can be cut off in each."""
    quick: dict[str, Any] = {
        "lease_seconds": plan.lease,
        "heartbeat_seconds": plan.lease / 4,
        "sweep_seconds": 1.0,
        "watch_settle_seconds": 1.0,
        "label_lease_seconds": 30.0,
        "num_workers": plan.workers,
        "max_attempts": 10,
    }
    if not servers:
        settings = Settings(home=folder / "home", **quick)
        settings.home.mkdir()

        def hold_lock() -> None:
            with _WriterLock(settings.home / "winnow.db.lock"):
                time.sleep(5.0)

        def wipe_broker() -> None:
            for path in settings.home.glob("broker.db*"):
                path.unlink(missing_ok=True)

        yield Soak(
            plan, folder, settings, {"hold the database's lock for 5 s": hold_lock, "wipe the broker": wipe_broker}
        )
        return
    redis = RedisServer(folder)
    redis.start()
    with postgres_server() as url:
        administer(url, "CREATE DATABASE soak")
        database = url.replace("/postgres?", "/soak?")
        settings = Settings(home=folder / "home", database_url=database, broker_url=redis.url, **quick)
        settings.home.mkdir()

        def cut_connections() -> None:
            engine = create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'soak'")
                )
            engine.dispose()

        def restart_redis() -> None:
            redis.stop()
            time.sleep(3.0)
            redis.start()

        yield Soak(
            plan, folder, settings, {"cut all database connections": cut_connections, "lose the broker": restart_redis}
        )
    redis.stop()


def main() -> None:
    """Soak, settle, check."""
    parser = options_parser(__doc__)
    parser.add_argument("--servers", action="store_true", help="PostgreSQL and Redis instead of what is embedded")
    parser.add_argument("--minutes", type=float, help="instead of thirty")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    if options.minutes is not None:
        plan = Plan(**{**vars(plan), "seconds": 60 * options.minutes})
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        tempfile.TemporaryDirectory(prefix="soak", dir="/tmp") as name,
        installation(plan, Path(name), servers=options.servers) as soak,
    ):
        began = time.monotonic()
        soak.start()
        try:
            soak.prepare()
            soak.run()
            resumed = soak.settle()
        finally:
            soak.stop()
        rows, answers = check_rows(soak), check_answers(soak)
        differing = differing_verdicts(soak, Path(name))
        with soak.catalog.read() as session:
            ended = Counter((kind, state) for kind, state in session.execute(select(Run.kind, Run.state)))
            problems = [one for one in session.scalars(select(Schedule.problem)) if one]
        waits = sorted(soak.books.waits)
        figures = {
            "lost": rows["lost"] + answers["lost"],
            "doubled": rows["doubled"] + answers["doubled"] + answers["unasked"],
            "faults_injected": sum(soak.books.faults.values()),
            "faults": dict(sorted(soak.books.faults.items())),
            "damaged_files": rows["damaged_files"],
            "verdicts_otherwise_than_undisturbed": differing,
            "rows": soak.books.rows,
            "bad_rows": soak.books.bad_rows,
            "answers_acknowledged": len(soak.books.kept),
            "answers_late": soak.books.late,
            "runs": {f"{kind} {state}": count for (kind, state), count in sorted(ended.items())},
            "runs_resumed_by_hand": resumed,
            "answer_seconds_p50": round(waits[len(waits) // 2], 3) if waits else None,
            "answer_seconds_p95": round(waits[int(0.95 * len(waits))], 3) if waits else None,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "database": "PostgreSQL and Redis" if options.servers else "SQLite and the embedded broker",
        }
        soak.catalog.close()
    for name_, value in figures.items():
        sys.stdout.write(f"{name_:40} {value}\n")
    if problems:
        sys.stdout.write(f"schedules: {problems}\n")
    report("soak_servers" if options.servers else "soak", options, figures, ("celery", "sqlalchemy"))


if __name__ == "__main__":
    main()
