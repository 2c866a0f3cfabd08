"""100 annotators and a cleaning run at once on SQLite: how long people wait, whether an answer is lost or doubled.

Real clients over HTTP against the real web service, beside two real workers that clean another dataset in the same
file. People take a few seconds a task, one in ten oversleeps the lease, and one in twenty sends an answer again as a
browser does whose reply was lost.
"""

import asyncio
import os
import random
import secrets
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.reporting import arguments, report
from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from catalog.tables.base import new_id
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.labeling import Annotation, LabelTask
from curation.recipe import load_recipe
from labeling import queue
from labeling.schema import parse_schema
from service.auth import create_user, issue_token
from service.processes import Supervisor, bind, wait_until_healthy
from workers import runs
from workers.app import make_app, relay
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest

SEED = 20_261_129
NUM_ANNOTATORS = 100
GOAL_MS = 500.0
LABELS = ("positive", "neutral", "negative")
SCHEMA = f"question: Which?\nlabels: [{', '.join(LABELS)}]"
RECIPE = """
name: beside
rules:
  char_count: {minimum: 10}
  word_count: {minimum: 3, maximum: 1000}
near: {threshold: 0.7, bands: 20, rows: 5}
encoder: hashing
"""
_TLS = ssl.create_default_context()
"""One for all: making it takes a client 30 ms, and a hundred of them would be measured as the server's time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much of it."""

    num_tasks: int
    num_records: int
    think_seconds: float
    lease_seconds: float
    num_annotators: int = NUM_ANNOTATORS
    oversleep_ratio: float = 0.1
    repeat_ratio: float = 0.05


@dataclass(kw_only=True)
class Seen:
    """What the annotators saw: seconds of every request, and which answers were accepted."""

    next_seconds: list[float] = field(default_factory=list)
    """Of requests that were answered with a task."""
    empty_seconds: list[float] = field(default_factory=list)
    """Of those that were told to wait: the last tasks are held by those who oversleep, and all others ask."""
    submit_seconds: list[float] = field(default_factory=list)
    accepted: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """Annotation, record, label and whether it was late."""
    busy: int = 0
    cut: int = 0
    refused: Counter[int] = field(default_factory=Counter)


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return round(statistics.quantiles(values, n=1000, method="inclusive")[int(share * 1000) - 1] * 1e3, 1)


def prepare(catalog: Catalog, plan: Plan, folder: Path) -> tuple[str, list[str], str]:
    """A queue with its tasks, a token an annotator, and a file to be cleaned; the queue's id, the tokens, the file."""
    rng = random.Random(SEED)
    words = [f"word{number}" for number in range(3_000)]
    path = folder / "beside.jsonl"
    pl.DataFrame({"body": [" ".join(rng.choices(words, k=40)) for _ in range(plan.num_records)]}).write_ndjson(path)
    with catalog.write() as session:
        now = catalog.now(session)
        dataset = Dataset(id=new_id(), name="people", text_column="body", created_at=now)
        session.add(dataset)
        session.flush()
        version_id = _version(session, dataset.id, plan.num_tasks, now)
        made = queue.create_queue(
            session,
            now=now,
            name="people",
            dataset_id=dataset.id,
            version_id=version_id,
            schema=parse_schema(SCHEMA),
            strategy="margin",
            encoder="hashing",
            overlap=1,
            lease_seconds=plan.lease_seconds,
            seed=SEED,
            # Nobody fits a model here: the tasks are all there.
            refresh_every=10**9,
        )
        entries = [
            queue.QueueEntry(record_id=f"r{number}", text=f"text {number}", utility=rng.random(), why="margin")
            for number in range(plan.num_tasks)
        ]
        queue.publish_generation(session, now=now, queue_id=made.id, entries=entries)
        tokens = []
        for number in range(plan.num_annotators):
            user = create_user(session, now=now, name=f"annotator {number}", role="annotator")
            tokens.append(issue_token(session, now=now, user_id=user.id, days=1))
        return made.id, tokens, str(path)


def _version(session: Session, dataset_id: str, num_records: int, now: datetime) -> str:
    """A curated version without files: the texts stand in the tasks."""
    run = Run(
        id=new_id(),
        kind="clean",
        dataset_id=dataset_id,
        idempotency_key=new_id(),
        config={},
        config_hash="0" * 64,
        state="done",
        created_at=now,
    )
    session.add(run)
    session.flush()
    version = Version(
        id=new_id(),
        dataset_id=dataset_id,
        number=1,
        kind="curated",
        run_id=run.id,
        manifest_name="none",
        manifest_sha256="0" * 64,
        num_records=num_records,
        num_shards=0,
        summary={},
        created_at=now,
    )
    session.add(version)
    session.flush()
    return version.id


async def annotate(url: str, queue_id: str, token: str, plan: Plan, rng: random.Random, seen: Seen) -> None:
    """One annotator until there is nothing left."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120.0, verify=_TLS) as client:
        await asyncio.sleep(rng.random() * plan.think_seconds)
        while True:
            began = time.perf_counter()
            answer = await _ask(client, seen, "POST", f"/api/v1/queues/{queue_id}/next")
            if answer is None:
                continue
            answer.raise_for_status()
            took = time.perf_counter() - began
            task = answer.json()["task"]
            (seen.next_seconds if task else seen.empty_seconds).append(took)
            if task is None:
                if answer.json()["reason"] == "done":
                    return
                # As the page does: it asks again when it was told to.
                await asyncio.sleep(answer.json()["retry_after_seconds"])
                continue
            overslept = rng.random() < plan.oversleep_ratio
            await asyncio.sleep(plan.lease_seconds * 1.3 if overslept else rng.expovariate(1 / plan.think_seconds))
            await _answer(client, task, rng, plan, seen)


async def _ask(
    client: httpx.AsyncClient, seen: Seen, method: str, path: str, body: dict[str, Any] | None = None
) -> httpx.Response | None:
    """One request; None when it has to be made again, after a moment."""
    try:
        answer = await client.request(method, path, json=body)
    except httpx.TransportError:
        # The server had just closed a connection that lay idle, for one.
        seen.cut += 1
        return None
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return answer
    seen.busy += 1
    await asyncio.sleep(1.0)
    return None


async def _answer(client: httpx.AsyncClient, task: dict[str, Any], rng: random.Random, plan: Plan, seen: Seen) -> None:
    body = {"key": secrets.token_urlsafe(12), "value": rng.choice(LABELS), "seconds_spent": plan.think_seconds}
    sends, told = (2 if rng.random() < plan.repeat_ratio else 1), None
    while sends:
        began = time.perf_counter()
        # As the page does: the same answer with the same key, until it is taken.
        answer = await _ask(client, seen, "PUT", f"/api/v1/leases/{task['lease_id']}/annotation", body)
        if answer is None:
            continue
        seen.submit_seconds.append(time.perf_counter() - began)
        sends -= 1
        if answer.is_error:
            seen.refused[answer.status_code] += 1
            return
        told = told or answer.json()
    assert told is not None
    seen.accepted.append((told["annotation_id"], task["record_id"], str(body["value"]), told["late"]))


async def _all(url: str, queue_id: str, tokens: list[str], plan: Plan) -> Seen:
    seen = Seen()
    await asyncio.gather(
        *(
            annotate(url, queue_id, token, plan, random.Random(SEED + number), seen)
            for number, token in enumerate(tokens)
        )
    )
    return seen


def rehearse(folder: Path, plan: Plan, *, beside: bool = True) -> dict[str, Any]:
    """Everything at once; figures, and what was lost or doubled.

    Parameters
    ----------
    beside : clean meanwhile; else nobody but the annotators is there, for comparison.
    """
    settings = Settings(home=folder / "home", num_workers=2, shard_rows=1_000)
    catalog = Catalog(settings)
    settings.home.mkdir()
    migrate.upgrade(catalog)
    Store.of(settings).create()
    queue_id, tokens, path = prepare(catalog, plan, folder)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    supervisor, listener = Supervisor(settings), bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        supervisor.add_service(listener)
        supervisor.add_workers(settings.num_workers)
        wait_until_healthy(supervisor, url)
        while runs.num_workers_alive(catalog) < settings.num_workers:
            time.sleep(0.05)
        run_id = _ingest(catalog, path)
        if beside:
            run_id, _ = submit_clean(catalog, dataset="beside", recipe=load_recipe(str(folder / "recipe.yaml")))
            relay(catalog, make_app(settings))
        began = time.perf_counter()
        seen = asyncio.run(_all(url, queue_id, tokens, plan))
        seconds = time.perf_counter() - began
        _finished(catalog, run_id)
        cleaned = time.perf_counter() - began
    finally:
        supervisor.stop()
        listener.close()
    figures = checked(catalog, queue_id, run_id, plan, seen, beside=beside)
    catalog.close()
    requests = seen.next_seconds + seen.empty_seconds + seen.submit_seconds
    return figures | {
        "p95_next_ms": percentile(seen.next_seconds, 0.95),
        "p95_submit_ms": percentile(seen.submit_seconds, 0.95),
        "p95_empty_ms": percentile(seen.empty_seconds, 0.95),
        "worst_ms": round(max(requests) * 1e3, 1),
        "requests_per_second": round(len(requests) / seconds, 1),
        "seconds": round(seconds, 1),
        "cleaning_seconds": round(cleaned, 1),
        "busy": seen.busy,
        "cut": seen.cut,
    }


def _ingest(catalog: Catalog, path: str) -> str:
    run_id = submit_ingest(catalog, dataset="beside", paths=[path], text_column="body").run_id
    assert run_id is not None
    relay(catalog, make_app(catalog.settings))
    _finished(catalog, run_id)
    return run_id


def _finished(catalog: Catalog, run_id: str) -> None:
    while True:
        with catalog.read() as session:
            run = session.get_one(Run, run_id)
        if run.state != "running":
            assert run.state == "done", run.reason
            return
        time.sleep(0.1)


def checked(catalog: Catalog, queue_id: str, run_id: str, plan: Plan, seen: Seen, *, beside: bool) -> dict[str, Any]:
    """What the database holds against what the annotators were told."""
    with catalog.read() as session:
        stored = session.execute(
            select(Annotation.id, LabelTask.record_id, Annotation.value, Annotation.late)
            .join(LabelTask, LabelTask.id == Annotation.task_id)
            .where(LabelTask.queue_id == queue_id, Annotation.retracted.is_(None))
        ).all()
        open_tasks = session.scalars(
            select(LabelTask.id).where(LabelTask.queue_id == queue_id, LabelTask.done.is_(False))
        ).all()
        verdicts = session.scalars(select(Verdict.record_id).where(Verdict.run_id == run_id)).all()
    accepted = {(one, record, value, late) for one, record, value, late in seen.accepted}
    in_time = Counter(record for _, record, _, late in stored if not late)
    doubled = sum(count - 1 for count in in_time.values() if count > 1) + len(seen.accepted) - len(accepted)
    lost = len(accepted - {tuple(row) for row in stored}) + plan.num_tasks - len(in_time) + len(open_tasks)
    if beside:
        lost += plan.num_records - len(set(verdicts))
        doubled += len(verdicts) - len(set(verdicts))
    return {
        "answers": len(seen.accepted),
        "late": sum(late for _, _, _, late in seen.accepted),
        "lost": lost,
        "doubled": doubled,
        "refused": {str(status): count for status, count in seen.refused.items()},
    }


def main() -> None:
    """Measure with and without the cleaning."""
    options = arguments(__doc__ or "")
    plan = (
        Plan(num_tasks=400, num_records=4_000, think_seconds=2.0, lease_seconds=4.0)
        if options.quick
        else Plan(num_tasks=3_000, num_records=60_000, think_seconds=3.0, lease_seconds=8.0)
    )
    figures: dict[str, Any] = {"load_average": os.getloadavg()[0], "seed": SEED, "plan": asdict(plan)}
    for name in ("with_cleaning",) if options.quick else ("alone", "with_cleaning"):
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = rehearse(Path(folder), plan, beside=name == "with_cleaning")
        sys.stdout.write(f"{name}: {figures[name]}\n")
    measured = figures["with_cleaning"]
    report(
        "annotators",
        options,
        figures
        | {name: measured[name] for name in ("p95_next_ms", "p95_submit_ms", "lost", "doubled")}
        | {"goal_ms": GOAL_MS},
        ("fastapi", "uvicorn", "sqlalchemy", "httpx"),
    )


if __name__ == "__main__":
    main()
