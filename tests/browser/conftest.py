"""A real server process and a real browser."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright
from sqlalchemy import select

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables import metadata
from catalog.tables.base import new_id
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.labeling import Annotation, LabelTask
from labeling import queue
from labeling.schema import LabelSchema, parse_schema
from service.auth import create_user, issue_token
from tests.servers import free_port

PATIENCE_SECONDS = 90.0
"""Far above what anything takes: the machine may be busy."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERVE = """
import sys, uvicorn
from catalog.settings import load_settings
from service.app import create_app
uvicorn.run(create_app(load_settings()), port=int(sys.argv[1]), log_level="warning")
"""
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
READY = """(wanted) => document.querySelector("main").dataset.state === "ready"
  && document.getElementById("text").textContent === wanted"""
SCHEMA = parse_schema("question: 기분은?\nguidelines: Judge the tone, not the topic.\nlabels: [긍정, 부정, 중립]")


@dataclass
class Site:
    """One installation: its database, its server process, and short cuts into both."""

    home: Path
    catalog: Catalog
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    tokens: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        environment = {**os.environ, "WINNOW_HOME": str(self.home)}
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(self.port)], env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, (self.home / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start within 60 s"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def add_user(self, name: str, role: str) -> None:
        with self.catalog.write() as session:
            now = self.catalog.now(session)
            user = create_user(session, now=now, name=name, role=role)
            self.users[name] = user.id
            self.tokens[name] = issue_token(session, now=now, user_id=user.id, days=1)

    def add_queue(
        self, texts: list[str], *, schema: LabelSchema = SCHEMA, name: str = "tone", lease_seconds: float = 600
    ) -> str:
        """A dataset with one cleaned version and a queue that serves these texts in this order."""
        moment = datetime.now(UTC)
        dataset_id, run_id, version_id = new_id(), new_id(), new_id()
        with self.catalog.write() as session:
            session.add(Dataset(id=dataset_id, name=f"{name} {dataset_id[:4]}", text_column="text", created_at=moment))
            session.flush()
            session.add(
                Run(
                    id=run_id,
                    kind="clean",
                    dataset_id=dataset_id,
                    idempotency_key=run_id,
                    config={},
                    config_hash="0",
                    state="done",
                    created_at=moment,
                )
            )
            session.flush()
            session.add(
                Version(
                    id=version_id,
                    dataset_id=dataset_id,
                    number=1,
                    kind="curated",
                    run_id=run_id,
                    manifest_name="m",
                    manifest_sha256="0" * 64,
                    num_records=len(texts),
                    num_shards=1,
                    summary={"encoder": "minilm"},
                    created_at=moment,
                )
            )
            session.flush()
            now = self.catalog.now(session)
            made = queue.create_queue(
                session,
                now=now,
                name=name,
                dataset_id=dataset_id,
                version_id=version_id,
                schema=schema,
                strategy="random",
                encoder="minilm",
                overlap=1,
                lease_seconds=lease_seconds,
                seed=0,
            )
            entries = [
                queue.QueueEntry(
                    record_id=f"r{rank}",
                    text=text,
                    utility=1 / (1 + rank),
                    why=f"margin 0.{rank:02}: 긍정 0.49 vs 부정 0.47",
                )
                for rank, text in enumerate(texts)
            ]
            queue.publish_generation(session, now=now, queue_id=made.id, entries=entries)
            return made.id

    def answers(self, queue_id: str) -> list[tuple[str, str]]:
        """Every answer ever stored in a queue, as (text, value), in the order of arrival."""
        with self.catalog.read() as session:
            query = (
                select(LabelTask.text, Annotation.value)
                .join(LabelTask, LabelTask.id == Annotation.task_id)
                .where(Annotation.queue_id == queue_id)
                .order_by(Annotation.created_at)
            )
            return [(text, value) for text, value in session.execute(query)]

    def until_answers(self, queue_id: str, count: int) -> list[tuple[str, str]]:
        """Wait until this many answers are stored."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := self.answers(queue_id)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} answers: {found}"
            time.sleep(0.05)
        return found


# Of the folder, not of the session: while a browser is driven its event loop runs, and no other can be run beside it.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The system's Chromium. Without one these tests fail on CI and are skipped elsewhere."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        message = f"no browser: none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Site]:
    """A running site with a curator and an annotator."""
    home = tmp_path_factory.mktemp("site")
    catalog = Catalog(Settings(home=home))
    with catalog.write() as session:
        metadata.create_all(session.connection())
    made = Site(home, catalog, free_port())
    made.add_user("mina", "curator")
    made.add_user("지훈", "annotator")
    made.start()
    yield made
    made.kill()
    catalog.close()


@dataclass
class Visitor:
    """A browser window that notes every dialog, console error and policy violation."""

    context: BrowserContext
    page: Page
    troubles: list[str]

    def violations(self) -> list[str]:
        found: list[str] = self.page.evaluate("window.violations")
        return found

    def wait_for_text(self, text: str) -> None:
        """Wait until exactly this text is on the screen and may be answered."""
        self.page.wait_for_function(
            READY,
            arg=text,
        )

    def wait_for_status(self, words: str) -> None:
        self.page.wait_for_function("words => document.getElementById('status').textContent.includes(words)", arg=words)

    def log_in(self, site: Site, name: str, path: str) -> None:
        """Log in with a token, by keyboard, and land on ``path``."""
        self.page.goto(f"{site.url}{path}")
        assert "/login?next=" in self.page.url
        self.page.wait_for_function("() => document.activeElement.id === 'token'")
        self.page.keyboard.insert_text(site.tokens[name])
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"{site.url}{path}")


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[Visitor]:
    """A fresh browser window."""
    context = chromium.new_context()
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    troubles: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            troubles.append(f"console: {message.text}")

    page.on("dialog", on_dialog)
    page.on("console", on_console)
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    yield Visitor(context, page, troubles)
    context.close()
