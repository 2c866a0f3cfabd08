"""A home with a tiny corpus, workers forked on it that are started again whenever they die, and the oracle."""

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from catalog import faults
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store, StoredFile
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Quarantined, Shard, Source, Version
from catalog.tables.engine import Outbox, Run, Unit
from tests.faults import judging
from workers import manifests, runs
from workers.app import make_app, relay
from workers.pipelines.ingest import submit_ingest

ROOT = Path(__file__).resolve().parents[2]
FINISH_SECONDS = 60.0
LEASE_SECONDS = 2.0
SETTINGS: dict[str, Any] = {
    "shard_rows": 8,
    "lease_seconds": LEASE_SECONDS,
    "heartbeat_seconds": 0.1,
    "sweep_seconds": 0.1,
    "max_attempts": 20,
    "broker_poll_seconds": 0.005,
}


class Nursery:
    """Programs forked from one process; see ``tests.faults.nursery``."""

    def __init__(self, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._ended: dict[str, list[int]] = {}
        try:
            self._told.get(timeout=FINISH_SECONDS)
        except queue.Empty:
            self.close()
            raise

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(json.loads(line))

    def order(self, **order: Any) -> None:
        """Send an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def ends(self, name: str) -> list[int]:
        """Wait until a program is no more; the status of each of its processes."""
        while name not in self._ended:
            told = self._told.get(timeout=FINISH_SECONDS)
            self._ended[told["ended"]] = told["ends"]
        return self._ended.pop(name)

    def close(self) -> None:
        """Kill what is left, and it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(FINISH_SECONDS)
        self._listener.join()
        self._process.stdout.close()


@dataclass
class World:
    """One home on one database and one broker.

    Parameters
    ----------
    folder : of this test alone.
    options : settings beside ``SETTINGS``.
    finish_seconds : how long anything may take, far more than it should.
    """

    folder: Path
    nursery: Nursery
    options: dict[str, Any] = field(default_factory=dict)
    finish_seconds: float = FINISH_SECONDS

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.tokens = self.folder / "tokens"
        self.tokens.mkdir(exist_ok=True)
        self.settings = Settings(home=self.home, **(SETTINGS | self.options))
        self.catalog = Catalog(self.settings)
        self.store = Store.of(self.settings)
        self.worker_names: list[str] = []

    def environment(self, spec: str = "", **settings: Any) -> dict[str, str]:
        """Settings and faults, for a process."""
        given = {"home": self.home} | SETTINGS | self.options | settings
        variables = {f"WINNOW_{name.upper()}": str(value) for name, value in given.items() if value != ""}
        return variables | ({faults.SPEC: spec, faults.FOLDER: str(self.tokens)} if spec else {})

    def start(
        self, name: str, program: str, *arguments: str, spec: str = "", keep: bool = False, **settings: Any
    ) -> None:
        """Start a program on this home, perhaps with settings of its own."""
        self.nursery.order(
            start=name,
            program=program,
            arguments=list(arguments),
            environment=self.environment(spec, **settings),
            log=str(self.folder / f"{program}.log"),
            keep=keep,
        )

    def run(self, program: str, *arguments: str, spec: str = "") -> int:
        """Run a program to its end; its status, negative for a signal."""
        name = f"{program} {time.monotonic_ns()}"
        self.start(name, program, *arguments, spec=spec)
        (status,) = self.nursery.ends(name)
        return status

    @contextmanager
    def workers(
        self, count: int = 1, *, spec: str = "", ends: list[int] | None = None, **settings: Any
    ) -> Iterator[None]:
        """Workers that are started again whenever they end, and killed at the end.

        How they ended before that is added to ``ends``.
        """
        names = self.worker_names = [f"{self.folder} w{number}" for number in range(count)]
        for name in names:
            self.start(name, "worker", "--name", name.rpartition(" ")[2], spec=spec, keep=True, **settings)
        try:
            yield
        finally:
            for name in names:
                self.nursery.order(stop=name)
            found = [status for name in names for status in self.nursery.ends(name)[:-1]]
            if ends is not None:
                ends += found

    def ask_ingest(self, paths: list[str]) -> str:
        """Ask for the corpus; the run's id."""
        asked = submit_ingest(self.catalog, dataset="tickets", paths=paths, text_column="body", label_column="queue")
        assert asked.run_id is not None
        return asked.run_id

    def ask_judge(self) -> str:
        """Ask for its verdicts; the run's id."""
        return judging.submit_judge(self.catalog, "tickets")

    def relay(self) -> None:
        """Send what asking has left in the outbox."""
        relay(self.catalog, make_app(self.settings))

    def wait_for(self, run_id: str) -> None:
        """Wait for a run's good end."""
        state = self.wait_until_ended(run_id)
        assert state.state == "done", state.reason

    def wait_until_ended(self, run_id: str) -> runs.RunProgress:
        """Wait for a run's end, good or not."""
        seen: list[runs.RunProgress] = []

        def ended() -> bool:
            with self.catalog.read() as session:
                seen[:] = [runs.run_progress(session, run_id, self.catalog.now(session))]
            return seen[0].state != "running"

        self.wait_until(ended)
        return seen[0]

    def wait_until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds, far longer than it should take."""
        deadline = time.monotonic() + self.finish_seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {self.finish_seconds:.0f} s\n{self.logs()}"
            time.sleep(0.01)

    def work(self, paths: list[str]) -> None:
        """Ingest and judge the corpus, whoever does it."""
        ingest = self.ask_ingest(paths)
        self.relay()
        self.wait_for(ingest)
        judge = self.ask_judge()
        self.relay()
        self.wait_for(judge)

    def struck(self) -> set[str]:
        """The faults that have struck."""
        return {path.name for path in self.tokens.iterdir()}

    def logs(self) -> str:
        """What the programs said, for a message."""
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def outcome(self) -> dict[str, Any]:
        """All that two ways of doing the same work must have in common: bytes, verdicts, rows set aside."""
        with self.catalog.read() as session:
            kinds = {row.id: row.kind for row in session.execute(select(Run.id, Run.kind))}
            shards = session.execute(
                select(
                    Shard.run_id, Unit.stage, Unit.position, Shard.position, Shard.kind, Shard.sha256, Shard.num_rows
                )
                .join(Unit, Unit.id == Shard.unit_id)
                .order_by(Unit.stage, Unit.position, Shard.position)
            ).all()
            verdicts = session.scalars(select(Verdict).order_by(Verdict.record_id)).all()
            versions = session.scalars(select(Version).order_by(Version.number)).all()
            quarantined = session.execute(
                select(Source.name, Quarantined.line, Quarantined.reason)
                .join(Source, Source.id == Quarantined.source_id)
                .order_by(Source.name, Quarantined.line)
            ).all()
        return {
            "shards": sorted((kinds[row[0]], *row[1:]) for row in shards),
            "verdicts": [(kinds[one.run_id], one.record_id, one.kept, one.reason, one.failed) for one in verdicts],
            "versions": [(one.number, one.kind, one.manifest_sha256, one.num_records) for one in versions],
            "quarantined": [tuple(row) for row in quarantined],
        }

    def check(self, num_records: int, num_rejected: int) -> None:
        """The oracle: one verdict a record, every row in one place, every file whole, nothing under way."""
        with self.catalog.read() as session:
            states = session.execute(select(Run.kind, Run.state)).all()
            assert [tuple(row) for row in states if row.state != "done"] == []
            assert set(session.scalars(select(Unit.state))) == {"done"}
            versions = session.scalars(select(Version).order_by(Version.number)).all()
            assert [one.kind for one in versions] == ["raw", "curated"]
            judged = session.scalars(select(Verdict.record_id).join(Run, Run.id == Verdict.run_id)).all()
            kept = session.scalar(select(func.count()).where(Verdict.kept.is_(True)))
            rejected = session.scalar(select(func.count()).select_from(Quarantined))
            named = [
                StoredFile(name=row.name, sha256=row.sha256, size_bytes=row.size_bytes)
                for row in session.execute(select(Shard.name, Shard.sha256, Shard.size_bytes))
            ]
        documents = [manifests.read(self.store, one) for one in versions]
        for file in named:
            assert len(self.store.read_bytes(file)) == file.size_bytes
        ids = [
            record
            for entry in documents[0]["shards"]
            for record in self.store.read_frame(StoredFile.from_json(entry["data"]), ["id"])["id"]
        ]
        assert len(ids) == num_records
        assert sorted(judged) == sorted(ids)
        assert rejected == num_rejected
        assert sum(entry["selection"]["num_rows"] for entry in documents[1]["shards"]) == kept
        for path in Path(self.settings.store.removeprefix("file://")).rglob("*"):
            # What a killed write left aside keeps the suffix under which nobody looks for it.
            if path.is_file() and not path.name.endswith(".tmp"):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem

    def num_unsent(self) -> int:
        """Messages that nobody has sent yet."""
        with self.catalog.read() as session:
            return session.scalar(select(func.count()).select_from(Outbox)) or 0

    def close(self) -> None:
        """Give the connections back."""
        self.catalog.close()
