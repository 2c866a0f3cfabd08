"""A small world behind the real application: three users, a dataset with a cleaning, a queue with texts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables import metadata
from catalog.tables.access import ROLES, AuditEntry
from catalog.tables.base import new_id
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Quarantined, Source, Version
from catalog.tables.engine import Run, Unit
from labeling import queue
from labeling.schema import parse_schema
from service.app import close_app, create_app
from service.auth import create_user, issue_token
from tests.workers.building import clean_dataset, drain
from workers.labeling import open_queue

BASE = "http://127.0.0.1:8765"
TEXTS = ("배송이 늦었지만 품질은 좋아요 👍", "Where is my refund?", "<script>alert(1)</script>", "ขอบคุณครับ", "最高です")
SCHEMA = "question: 기분은?\nguidelines: Judge the tone, not the topic.\nlabels: [긍정, 부정, 중립]"


@dataclass
class World:
    """The application, and who and what is in it."""

    catalog: Catalog
    tokens: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    dataset_id: str = ""
    run_id: str = ""
    version_id: str = ""
    queue_id: str = ""

    def __post_init__(self) -> None:
        self.app = create_app(self.catalog.settings)

    def close(self) -> None:
        """End the application."""
        close_app(self.app)

    def client(self, role: str | None = None, **headers: str) -> TestClient:
        """A client that sends this role's token, or none."""
        bearer = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return TestClient(self.app, base_url=BASE, headers={**bearer, **headers}, follow_redirects=False)

    def browser(self, role: str) -> TestClient:
        """A client that has logged in on the login page, as a browser does."""
        client = self.client(Origin=BASE)
        answer = client.post("/login", data={"token": self.tokens[role], "next": "/"})
        assert answer.status_code == 303, answer.text
        return client

    def add_user(self, name: str, role: str) -> str:
        """A user with a token; returns the user's id."""
        with self.catalog.write() as session:
            now = self.catalog.now(session)
            user = create_user(session, now=now, name=name, role=role)
            self.tokens[name] = issue_token(session, now=now, user_id=user.id, days=1)
            self.users[name] = user.id
        return self.users[name]

    def audited(self, action: str) -> list[AuditEntry]:
        """What the audit trail says about one kind of act."""
        with self.catalog.read() as session:
            found = session.scalars(select(AuditEntry).where(AuditEntry.action == action).order_by(AuditEntry.at))
            rows = list(found)
            session.expunge_all()
        return rows

    def fill(self, *, overlap: int = 1) -> None:
        """A dataset, a finished cleaning with its verdicts, a version, and a queue with texts."""
        moment = datetime.now(UTC)
        self.dataset_id, self.run_id, self.version_id = new_id(), new_id(), new_id()
        with self.catalog.write() as session:
            session.add(Dataset(id=self.dataset_id, name="tickets 고객", text_column="body", created_at=moment))
            session.flush()
            session.add(_run(self.run_id, self.dataset_id, moment))
            session.flush()
            session.add(_version(self.version_id, self.dataset_id, self.run_id, moment))
            session.add_all(_verdict(self.run_id, index, reason) for index, reason in enumerate(REASONS))
            session.add(
                Unit(
                    run_id=self.run_id,
                    stage=0,
                    stage_name="measure",
                    position=3,
                    payload={},
                    state="poisoned",
                    attempts=3,
                    reason="ValueError: <b>no</b>",
                    ready_at=moment,
                )
            )
            source = Source(
                id=new_id(),
                dataset_id=self.dataset_id,
                run_id=self.run_id,
                name="a<b>.jsonl",
                sha256="0" * 64,
                size_bytes=1234567,
                num_records=9,
                num_rejected=1,
            )
            session.add(source)
            session.flush()
            session.add(Quarantined(source_id=source.id, line=7, run_id=self.run_id, reason="not JSON", detail="{"))
            made = queue.create_queue(
                session,
                now=self.catalog.now(session),
                name="tone",
                dataset_id=self.dataset_id,
                version_id=self.version_id,
                schema=parse_schema(SCHEMA),
                strategy="margin",
                encoder="minilm",
                overlap=overlap,
                lease_seconds=600,
                seed=7,
            )
            entries = [
                queue.QueueEntry(record_id=f"r{index}", text=text, utility=1 / (1 + index), why=f"margin 0.0{index}")
                for index, text in enumerate(TEXTS)
            ]
            queue.publish_generation(session, now=self.catalog.now(session), queue_id=made.id, entries=entries)
            self.queue_id = made.id


REASONS = ["min_words"] * 3 + ["exact_duplicate"] * 2 + [None] * 5


def _run(run_id: str, dataset_id: str, moment: datetime) -> Run:
    return Run(
        id=run_id,
        kind="clean",
        dataset_id=dataset_id,
        idempotency_key=run_id,
        config={},
        config_hash="0" * 64,
        state="done",
        created_at=moment,
        finished_at=moment,
        requested_by="mina",
    )


def _version(version_id: str, dataset_id: str, run_id: str, moment: datetime) -> Version:
    return Version(
        id=version_id,
        dataset_id=dataset_id,
        number=1,
        kind="curated",
        run_id=run_id,
        manifest_name="m",
        manifest_sha256="ab" * 32,
        num_records=5,
        num_shards=1,
        summary={"encoder": "minilm", "recipe": "mine <1>"},
        created_at=moment,
    )


def _verdict(run_id: str, index: int, reason: str | None) -> Verdict:
    failed = [] if reason is None else [reason]
    return Verdict(
        run_id=run_id, record_id=f"r{index}", kept=reason is None, reason=reason, failed=failed, measured={}, scores={}
    )


SHOP_TEXTS = (
    "배송이 늦었지만 품질은 아주 좋아요 👍 고마워요 정말로",
    "where is my refund, I have asked three times by now",
    "a very friendly answer within the hour, thank you all",
    "ขอบคุณครับ ส่ง ของ เร็ว มาก ครับ ดี มาก",
)


def open_shop(catalog: Catalog, folder: Path) -> World:
    """A dataset that is really cleaned, so that its records can be asked about, and a queue over it."""
    clean_dataset(catalog, folder, [{"body": text, "queue": None} for text in SHOP_TEXTS])
    world = World(catalog)
    for role in ("curator", "reviewer", "annotator"):
        world.add_user(role, role)
    world.queue_id = add_queue(catalog, "tone")
    return world


def add_queue(catalog: Catalog, name: str) -> str:
    """Another queue over the newest version of the shop's dataset."""
    schema = parse_schema("question: 기분은?\nlabels: [긍정, 부정, 중립]")
    queue_id, _, _ = open_queue(catalog, dataset="tickets", name=name, schema=schema, strategy="random")
    drain(catalog)
    return queue_id


def _world(catalog: Catalog) -> World:
    world = World(catalog)
    for role in ROLES:
        world.add_user(role, role)
    world.fill()
    return world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The world on SQLite."""
    catalog = Catalog(Settings(home=tmp_path))
    with catalog.write() as session:
        metadata.create_all(session.connection())
    made = _world(catalog)
    yield made
    made.close()
    catalog.close()


@pytest.fixture
def worlds(database: Catalog) -> Iterator[World]:
    """The world on each database."""
    made = _world(database)
    yield made
    made.close()
