"""The labeling queue over HTTP with a million items: how long 100 annotators wait, how many leases it gives a second.

The real web service on SQLite and on PostgreSQL, which flushes every write. 100 annotators with 2 s of thought a task
take and answer; then as many as the service can take, on PostgreSQL, without thought. In the end what the database
holds is compared with what the annotators were told. The client is a few lines over sockets: it shares the two cores
with what it measures.
"""

import asyncio
import json
import os
import random
import secrets
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select

from benchmarks.annotators import LABELS, SCHEMA, _version, percentile
from benchmarks.engine import Place, catalog_at, places
from benchmarks.reporting import arguments, report
from catalog.database import Catalog
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset
from catalog.tables.labeling import Annotation, LabelAssignment, LabelTask
from labeling import queue
from labeling.schema import parse_schema
from service.auth import create_user, issue_token
from service.processes import Supervisor, bind, wait_until_healthy

SEED = 20_261_129
NUM_ANNOTATORS = 100
THINK_SECONDS = 2.0
GOALS = {"next_p99_ms": 50.0, "submit_p99_ms": 75.0, "leases_per_second": 500.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much of it."""

    num_items: int
    seconds: float
    saturated_seconds: float


@dataclass(kw_only=True)
class Seen:
    """What annotators saw."""

    next_seconds: list[float] = field(default_factory=list)
    submit_seconds: list[float] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    accepted: list[tuple[str, str, str]] = field(default_factory=list)
    """Annotation, record, label."""
    refused: Counter[int] = field(default_factory=Counter)


class Connection:
    """One connection that is kept open, as a browser's."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.head = f"Host: {self.host}:{self.port}\r\nAuthorization: Bearer {token}\r\n"

    async def open(self) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """One request; its status and JSON. A connection that the server closed because it was idle is opened anew."""
        try:
            return await self._ask(method, path, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()
            await self.open()
            return await self._ask(method, path, body)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} /api/v1{path} HTTP/1.1\r\n{self.head}{kind}Content-Length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        told = await self.reader.readexactly(length)
        return int(answer[9:12]), json.loads(told) if told else None


def prepare(catalog: Catalog, num_items: int) -> tuple[str, list[str]]:
    """A queue with all its items in one generation, and a token an annotator."""
    rng = random.Random(SEED)
    with catalog.write() as session:
        now = catalog.now(session)
        dataset = Dataset(id=new_id(), name="people", text_column="body", created_at=now)
        session.add(dataset)
        session.flush()
        made = queue.create_queue(
            session,
            now=now,
            name="people",
            dataset_id=dataset.id,
            version_id=_version(session, dataset.id, num_items, now),
            schema=parse_schema(SCHEMA),
            strategy="margin",
            encoder="hashing",
            overlap=1,
            lease_seconds=600.0,
            seed=SEED,
            # Nobody fits a model here: the tasks are all there.
            refresh_every=10**9,
        )
        entries = [
            queue.QueueEntry(record_id=f"r{number}", text=f"text {number} " * 10, utility=rng.random(), why="margin")
            for number in range(num_items)
        ]
        queue.publish_generation(session, now=now, queue_id=made.id, entries=entries)
        tokens = []
        for number in range(NUM_ANNOTATORS):
            user = create_user(session, now=now, name=f"annotator {number}", role="annotator")
            tokens.append(issue_token(session, now=now, user_id=user.id, days=1))
        return made.id, tokens


async def annotate(
    url: str, queue_id: str, token: str, think_seconds: float, until: float, rng: random.Random, seen: Seen
) -> None:
    """One annotator until the time is over: take, think, answer."""
    connection = Connection(url, token)
    await connection.open()
    await asyncio.sleep(rng.random() * think_seconds)
    while time.perf_counter() < until:
        began = time.perf_counter()
        status, told = await connection.ask("POST", f"/queues/{queue_id}/next")
        seen.next_seconds.append(time.perf_counter() - began)
        assert status == 200, told
        task = told["task"]
        assert task is not None, told
        seen.leases.append(task["lease_id"])
        await asyncio.sleep(rng.expovariate(1 / think_seconds) if think_seconds else 0.0)
        label = rng.choice(LABELS)
        body = {"key": secrets.token_urlsafe(12), "value": label, "seconds_spent": think_seconds}
        began = time.perf_counter()
        status, told = await connection.ask("PUT", f"/leases/{task['lease_id']}/annotation", body)
        seen.submit_seconds.append(time.perf_counter() - began)
        if status != 200:
            seen.refused[status] += 1
            continue
        seen.accepted.append((told["annotation_id"], task["record_id"], label))
    connection.writer.close()


async def _all(url: str, queue_id: str, tokens: list[str], think_seconds: float, seconds: float, seen: Seen) -> None:
    until = time.perf_counter() + seconds
    await asyncio.gather(
        *(
            annotate(url, queue_id, token, think_seconds, until, random.Random(SEED + number), seen)
            for number, token in enumerate(tokens)
        )
    )


def checked(catalog: Catalog, queue_id: str, seen: Seen) -> tuple[int, int]:
    """Answers lost and given out or stored twice: the database against what annotators were told."""
    with catalog.read() as session:
        stored = session.execute(
            select(Annotation.id, LabelTask.record_id, Annotation.value, Annotation.late)
            .join(LabelTask, LabelTask.id == Annotation.task_id)
            .where(Annotation.queue_id == queue_id, Annotation.retracted.is_(None))
        ).all()
        served = session.execute(select(LabelAssignment.id).where(LabelAssignment.queue_id == queue_id)).all()
    told = set(seen.accepted)
    lost = len(told - {(row.id, row.record_id, row.value) for row in stored})
    in_time = Counter(row.record_id for row in stored if not row.late)
    doubled = sum(count - 1 for count in in_time.values()) + len(seen.accepted) - len(told)
    doubled += len(seen.leases) - len(set(seen.leases)) + abs(len(served) - len(set(seen.leases)))
    return lost, doubled


def measure(place: Place, plan: Plan, *, saturate: bool) -> dict[str, Any]:
    """One database."""
    with catalog_at(place) as catalog:
        began = time.perf_counter()
        queue_id, tokens = prepare(catalog, plan.num_items)
        filled = time.perf_counter() - began
        supervisor, listener = Supervisor(catalog.settings), bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        seen = Seen()
        figures: dict[str, Any] = {"fill_seconds": round(filled, 1)}
        try:
            supervisor.add_service(listener)
            wait_until_healthy(supervisor, url)
            # The first of everybody's requests opens connections and fills caches.
            asyncio.run(_all(url, queue_id, tokens, 0.5, 3.0, seen))
            warm = (len(seen.next_seconds), len(seen.submit_seconds))
            asyncio.run(_all(url, queue_id, tokens, THINK_SECONDS, plan.seconds, seen))
            nexts, submits = seen.next_seconds[warm[0] :], seen.submit_seconds[warm[1] :]
            figures |= {
                "requests_per_second": round((len(nexts) + len(submits)) / plan.seconds, 1),
                **{f"next_p{share}_ms": percentile(nexts, share / 100) for share in (50, 95, 99)},
                **{f"submit_p{share}_ms": percentile(submits, share / 100) for share in (50, 95, 99)},
            }
            if saturate:
                before = len(seen.leases)
                asyncio.run(_all(url, queue_id, tokens, 0.0, plan.saturated_seconds, seen))
                figures["leases_per_second"] = round((len(seen.leases) - before) / plan.saturated_seconds, 1)
        finally:
            supervisor.stop()
            listener.close()
        figures["lost"], figures["doubled"] = checked(catalog, queue_id, seen)
        return figures | {"answers": len(seen.accepted), "refused": dict(seen.refused)}


def main() -> None:
    """Both databases."""
    options = arguments(__doc__ or "")
    plan = (
        Plan(num_items=20_000, seconds=5.0, saturated_seconds=2.0)
        if options.quick
        else Plan(num_items=1_000_000, seconds=60.0, saturated_seconds=20.0)
    )
    figures: dict[str, Any] = {"load_average": os.getloadavg()[0], "seed": SEED, "num_items": plan.num_items}
    with places() as found:
        for place in found:
            if place.broker != "embedded":
                continue
            figures[place.database] = measure(place, plan, saturate=place.database == "postgresql")
            sys.stdout.write(f"{place.database}: {figures[place.database]}\n")
            sys.stdout.flush()
    of_both = [figures[name] for name in ("sqlite", "postgresql")]
    last = figures["postgresql"]
    report(
        "queue_http",
        options,
        figures
        | {
            "next_p99_ms_postgresql": last["next_p99_ms"],
            "next_p99_ms_sqlite": figures["sqlite"]["next_p99_ms"],
            "submit_p99_ms": max(one["submit_p99_ms"] for one in of_both),
            "leases_per_second": last["leases_per_second"],
            "doubled": sum(one["doubled"] for one in of_both),
            "lost": sum(one["lost"] for one in of_both),
            "goals": GOALS,
        },
        ("fastapi", "uvicorn", "sqlalchemy", "psycopg"),
    )


if __name__ == "__main__":
    main()
