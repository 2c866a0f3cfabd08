"""Databases that were migrated once and copied for each test, one Redis, one process that forks all workers."""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import NotFound
from kombu import Connection
from redis import Redis
from sqlalchemy import make_url

from catalog import migrate
from catalog.database import Catalog
from catalog.settings import Settings
from catalog.store import Store
from tests.faults import judging
from tests.faults.world import Nursery, World
from tests.servers import RabbitServer, RedisServer, administer, rabbitmq_server
from tests.workers.corpus import sentences

NUM_FILES, NUM_RECORDS, NUM_BROKEN = 2, 12, 3
PLACES = ("sqlite+embedded", "postgresql+redis")
BROKERS = (*PLACES, "postgresql+rabbitmq")
"""Where the broker itself is at fault."""


def purge(url: str) -> int:
    """Delete what waits in RabbitMQ's queue; how many messages there were."""
    with Connection(url) as connection:
        channel = connection.default_channel
        try:
            return int(channel.queue_purge("winnow.cpu"))
        except NotFound:
            return 0


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that all workers of these tests are forked from."""
    made = Nursery("cleaning")
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server of this test process."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitServer]:
    """A RabbitMQ server of this test process."""
    with rabbitmq_server() as server:
        yield server


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of which a few rows become no record."""
    folder = tmp_path_factory.mktemp("corpus")
    paths = []
    for number in range(NUM_FILES):
        rows = [json.dumps(row, ensure_ascii=False) for row in sentences(NUM_RECORDS, seed=number)]
        rows[5:5] = ['{"queue": "no body"}'] * NUM_BROKEN
        path = folder / f"part-{number}.jsonl"
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        paths.append(str(path))
    return paths


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file of the newest schema, to be copied."""
    home = tmp_path_factory.mktemp("migrated")
    catalog = Catalog(Settings(home=home))
    migrate.upgrade(catalog)
    with catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    catalog.close()
    return home / "winnow.db"


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> str:
    """Name of a database of the newest schema, to be copied."""
    name = "winnow_migrated"
    administer(postgres_url, f"CREATE DATABASE {name}")
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    catalog = Catalog(Settings(home=Path("/nonexistent"), database_url=url))
    migrate.upgrade(catalog)
    catalog.close()
    return name


@pytest.fixture(scope="package", autouse=True)
def judge() -> Iterator[None]:
    """The job kind of these tests, for them alone."""
    judging.register()
    yield
    judging.forget()


@pytest.fixture
def new_world(
    tmp_path: Path, nursery: Nursery, migrated_sqlite: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., World]]:
    """Make worlds, by the name of the place: database and broker."""
    made: list[World] = []
    databases: list[str] = []

    def make(place: str, *, folder: Path | None = None, **options: Any) -> World:
        database, _, broker = place.partition("+")
        folder = folder or tmp_path / f"world-{len(made)}"
        (folder / "home").mkdir(parents=True)
        if database == "postgresql":
            url = request.getfixturevalue("postgres_url")
            name = f"f{uuid.uuid4().hex}"
            template = request.getfixturevalue("migrated_postgres")
            administer(url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
            databases.append(name)
            options["database_url"] = make_url(url).set(database=name).render_as_string(hide_password=False)
        else:
            shutil.copyfile(migrated_sqlite, folder / "home" / "winnow.db")
        if broker == "redis":
            options["broker_url"] = request.getfixturevalue("redis").url
            Redis.from_url(options["broker_url"]).flushall()
        elif broker == "rabbitmq":
            options["broker_url"] = request.getfixturevalue("rabbitmq").url
            purge(options["broker_url"])
        world = World(folder, nursery, options)
        Store.of(world.settings).create()
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()
    for name in databases:
        administer(request.getfixturevalue("postgres_url"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, migrated_sqlite: Path, corpus: list[str]
) -> dict[str, Any]:
    """What comes of the corpus when nothing happens: one worker, SQLite, the embedded broker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "home").mkdir()
    shutil.copyfile(migrated_sqlite, folder / "home" / "winnow.db")
    world = World(folder, nursery)
    Store.of(world.settings).create()
    judging.register()
    with world.workers():
        world.work(corpus)
    world.check(NUM_FILES * NUM_RECORDS, NUM_FILES * NUM_BROKEN)
    found = world.outcome()
    world.close()
    return found
