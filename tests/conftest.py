"""What every test may ask for: a PostgreSQL server, and a catalog on either database."""

import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from sqlalchemy import create_engine, make_url
from xdist.remote import Producer

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables import metadata
from tests.distribution import ByGroup, place_of
from tests.made_ahead import encoder_folder
from tests.servers import S3Server, administer, postgres_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every command that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis_settings.register_profile("winnow", deadline=None)
hypothesis_settings.load_profile("winnow")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByGroup:
    """Whatever ``--dist`` says."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first, and otherwise as they stand."""
    items.sort(key=lambda item: place_of(item.nodeid))


@pytest.fixture(scope="session")
def encoder_cache() -> Path:
    """A folder for what encoders compute once."""
    return encoder_folder()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this test process alone; its ``postgres`` database."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """Name of a database with every table, to be copied for each test."""
    name = "winnow_template"
    administer(postgres_url, f"CREATE DATABASE {name}")
    engine = create_engine(make_url(postgres_url).set(database=name))
    metadata.create_all(engine)
    engine.dispose()
    return name


@pytest.fixture
def new_postgres(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Make URLs of fresh databases with every table, dropped after the test."""
    made: list[str] = []

    def make() -> str:
        name = f"t{uuid.uuid4().hex}"
        template = request.getfixturevalue("postgres_template")
        administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        made.append(name)
        return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_empty_postgres(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database without any table, dropped after the test."""
    name = f"e{uuid.uuid4().hex}"
    administer(postgres_url, f"CREATE DATABASE {name}")
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of this test process."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, with the variables set by which clients reach it."""
    import s3fs

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3_server.new_bucket()
    s3fs.S3FileSystem.clear_instance_cache()


def opened(settings: Settings) -> Iterator[Catalog]:
    """A catalog with every table and no rows; PostgreSQL's tables come with its template."""
    catalog = Catalog(settings)
    if catalog.is_sqlite:
        with catalog.write() as session:
            metadata.create_all(session.connection())
    yield catalog
    catalog.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog with every table and no rows, on SQLite and on PostgreSQL."""
    url = request.getfixturevalue("new_postgres")() if request.param == "postgresql" else ""
    yield from opened(Settings(home=tmp_path, database_url=url))


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Catalog]:
    """As ``database``, for what takes long and whose statements other tests run on PostgreSQL."""
    yield from opened(Settings(home=tmp_path))
