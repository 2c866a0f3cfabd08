"""``/metrics``: the state of the whole installation in Prometheus' text format, read from the database when asked.

So any web process tells the same, whoever does the work. Only the HTTP figures are of the process that is asked.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import func, or_, select, text
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalog import tracing
from catalog.database import Catalog
from catalog.errors import ForbiddenError
from catalog.settings import NEEDS
from catalog.tables.access import ROLES
from catalog.tables.datasets import Shard, Source
from catalog.tables.engine import READY, UNFINISHED, Outbox, Run, Unit
from catalog.tables.labeling import Annotation
from workers.runs import num_workers_alive

PATH = "/metrics"
READERS = ROLES[: ROLES.index("curator") + 1]
RECENT_SECONDS = 300.0
SLOW_SECONDS = 60.0
"""What takes a walk over a whole table is read at most this often by a process."""
LIVE_STATES = ("ready", "running", "poisoned")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def _gauge(name: str, meaning: str, labels: tuple[str, ...], rows: list[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(f"winnow_{name}", meaning, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


class DatabaseCollector:
    """Reads the figures of the control plane when it is scraped."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._slow: tuple[float, list[Metric]] = (-SLOW_SECONDS, [])

    def collect(self) -> Iterator[Metric]:
        """Every family; one snapshot of the database, and the slow ones at most ``SLOW_SECONDS`` old."""
        workers = num_workers_alive(self._catalog)
        with self._catalog.read() as session:
            now = self._catalog.now(session)
            found = [
                *runs_by_state(session),
                *live_units(session),
                *queue(session, now),
                *self._totals(session, now),
            ]
        yield _gauge("workers_alive", "Worker processes that showed a sign of life lately.", (), [((), workers)])
        yield from found

    def _totals(self, session: Session, now: datetime) -> list[Metric]:
        with self._lock:
            taken, found = self._slow
            if time.monotonic() - taken >= SLOW_SECONDS:
                found = [
                    *units_by_state(session),
                    *units_done_lately(session, now),
                    *annotations(session),
                    *sums(session, self._catalog),
                ]
                self._slow = (time.monotonic(), found)
            return found


def runs_by_state(session: Session) -> list[Metric]:
    """Runs by kind and state."""
    rows = session.execute(select(Run.kind, Run.state, func.count()).group_by(Run.kind, Run.state)).all()
    return [_gauge("runs", "Runs.", ("kind", "state"), [((kind, state), count) for kind, state, count in rows])]


def live_units(session: Session) -> list[Metric]:
    """Units that somebody may have to look at, by stage: few, and found by an index."""
    rows = session.execute(
        select(Unit.state, Unit.stage_name, func.count())
        .join(Run, Run.id == Unit.run_id)
        .where(Unit.state.in_(LIVE_STATES), or_(Unit.state == "poisoned", Run.state == "running"))
        .group_by(Unit.state, Unit.stage_name)
    ).all()
    labels = ("state", "stage")
    meaning = "Units that are ready, running or poisoned, by stage."
    return [_gauge("units_live", meaning, labels, [((state, stage), count) for state, stage, count in rows])]


def units_by_state(session: Session) -> list[Metric]:
    """All units by state; those that a run which has ended left behind are cancelled, whatever their rows say."""
    of_all = select(Unit.state, func.count()).group_by(Unit.state)
    counts: dict[str, int] = {row[0]: row[1] for row in session.execute(of_all)}
    left = (
        select(Unit.state, func.count())
        .join(Run, Run.id == Unit.run_id)
        .where(Unit.state.in_(("ready", "running")), UNFINISHED, Run.state != "running")
        .group_by(Unit.state)
    )
    for state, count in session.execute(left):
        counts[state] -= count
        counts["cancelled"] = counts.get("cancelled", 0) + count
    return [_gauge("units", "Units.", ("state",), [((state,), count) for state, count in counts.items()])]


def queue(session: Session, now: datetime) -> list[Metric]:
    """What waits: for a worker, for a sweep, for the broker."""
    ready = (
        select(Unit.needs, func.count(), func.min(Unit.ready_at))
        .join(Run, Run.id == Unit.run_id)
        .where(READY, Run.state == "running", Run.paused_at.is_(None))
        .group_by(Unit.needs)
    )
    waiting_for = {need: (count, oldest) for need, count, oldest in session.execute(ready)}
    by_need = [(need, *waiting_for.get(need, (0, None))) for need in NEEDS]
    expired = session.scalar(
        select(func.count()).select_from(Unit).where(Unit.state == "running", Unit.lease_until < now)
    )
    waiting, first = session.execute(select(func.count(), func.min(Outbox.created_at))).one()
    needs = ("needs",)
    return [
        _gauge(
            "units_ready",
            "Units of running runs, not paused, that wait for a worker.",
            needs,
            [((need,), count) for need, count, _ in by_need],
        ),
        _gauge(
            "oldest_ready_seconds",
            "How long the unit that has waited longest has been ready; 0 when none waits.",
            needs,
            [((need,), _age(oldest, now)) for need, _, oldest in by_need],
        ),
        _gauge(
            "leases_expired",
            "Running units whose lease has run out and that no sweep has seen.",
            (),
            [((), expired or 0)],
        ),
        _gauge("outbox_messages", "Messages that the broker has not taken yet.", (), [((), waiting)]),
        _gauge("outbox_oldest_seconds", "Age of the oldest of them.", (), [((), _age(first, now))]),
    ]


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())


def units_done_lately(session: Session, now: datetime) -> list[Metric]:
    """Units done within ``RECENT_SECONDS``, and their seconds, by stage."""
    since = now - timedelta(seconds=RECENT_SECONDS)
    took = _seconds_between(session, Unit.started_at, Unit.finished_at)
    rows = session.execute(
        select(Unit.stage_name, func.count(), func.sum(took))
        .where(Unit.finished_at > since, Unit.state == "done")
        .group_by(Unit.stage_name)
    ).all()
    labels = ("stage",)
    return [
        _gauge(
            "recent_units_done",
            f"Units done within the last {RECENT_SECONDS:.0f} s.",
            labels,
            [((stage,), count) for stage, count, _ in rows],
        ),
        _gauge(
            "recent_unit_seconds",
            "What they took together, from claim to commit.",
            labels,
            [((stage,), float(seconds or 0)) for stage, _, seconds in rows],
        ),
    ]


def _seconds_between(session: Session, begin: Any, end: Any) -> Any:
    if session.get_bind().dialect.name == "sqlite":
        return (func.julianday(end) - func.julianday(begin)) * 86400.0
    return func.extract("epoch", end - begin)


def annotations(session: Session) -> list[Metric]:
    """Answers that count."""
    accepted = session.scalar(select(func.count()).select_from(Annotation).where(Annotation.retracted.is_(None)))
    return [_gauge("annotations", "Answers of annotators that count.", (), [((), accepted or 0)])]


def sums(session: Session, catalog: Catalog) -> list[Metric]:
    """Sums over whole tables, and the size of the database."""
    rejected = session.scalar(select(func.sum(Source.num_rejected)))
    stored = session.scalar(select(func.sum(Shard.size_bytes)))
    if catalog.is_sqlite:
        path = catalog.sqlite_path
        files = (path, path.with_name(path.name + "-wal"))
        database = sum(one.stat().st_size for one in files if one.exists())
    else:
        database = session.scalar(select(func.pg_database_size(text("current_database()")))) or 0
    return [
        _gauge("quarantined_rows", "Rows of sources that became no record.", (), [((), rejected or 0)]),
        _gauge("store_bytes", "Bytes of the shards that units have committed.", (), [((), stored or 0)]),
        _gauge("database_bytes", "Bytes of the database, SQLite's log included.", (), [((), database)]),
    ]


class Measured:
    """ASGI middleware: how many requests this process answered, how, and how long they took.

    Labelled by the route's template, so that ids in paths make no series. Each is a span too, when traces are on.
    """

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ("method", "route")
        self._count = Counter("winnow_http_requests", "Requests answered.", (*labels, "status"), registry=registry)
        self._seconds = Histogram(
            "winnow_http_request_seconds", "How long they took.", labels, buckets=BUCKETS, registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        method = scope["method"] if scope["method"] in METHODS else "other"
        # What answers runs in the span's context, in a thread too.
        with tracing.request_span(method, scope["headers"]) as span:
            try:
                await self._app(scope, receive, watched)
            finally:
                route = route_of(scope)
                if span is not None:
                    tracing.name_request(span, f"{method} {route}", route, status)
                self._seconds.labels(method, route).observe(time.perf_counter() - began)
                self._count.labels(method, route, str(status)).inc()


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_of(scope: Scope) -> str:
    """The template of the route that answered a request; ``(none)`` where the gate or nobody did."""
    if scope.get("root_path"):
        return str(scope["root_path"])
    route = scope.get("route")
    if route is None:
        return "(none)"
    # A route knows its path below the router that it was registered with; what stands before that has no ids.
    told = str(route.path_format.format(**scope["path_params"]))
    before = scope["path"].removesuffix(told) if scope["path"].endswith(told) else ""
    return f"{before}{route.path_format}"


def endpoint(registry: CollectorRegistry) -> Callable[[Request], Response]:
    """The handler of ``/metrics``.

    The gate has let in who has a token, or who may do without one; of the former, annotators may not read them.
    """

    def metrics(request: Request) -> Response:
        identity = getattr(request.state, "identity", None)
        if identity is not None and identity.role not in READERS:
            raise ForbiddenError(f"role {identity.role!r} may not read metrics; it takes {' or '.join(READERS)}")
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return metrics
