"""A database reaches this release's schema by migrations alone, once, and a newer one is left in peace."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from catalog import migrate
from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.settings import Settings
from catalog.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog on a database without any table."""
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("new_empty_postgres")
    catalog = Catalog(Settings(home=tmp_path, database_url=url))
    yield catalog
    catalog.close()


def test_migrations_give_exactly_the_declared_schema(empty: Catalog) -> None:
    assert migrate.upgrade(empty) is True
    assert migrate.upgrade(empty) is False
    migrate.check_revision(empty)
    with empty.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        names = set(inspect(connection).get_table_names())
    assert names == {*metadata.tables, "alembic_version"}


def test_a_user_of_an_older_release_keeps_the_token_and_may_get_a_new_role(empty: Catalog) -> None:
    config = migrate.alembic_config()
    users = "INSERT INTO users (id, name, role, created_at) VALUES (:id, :id, :role, CURRENT_TIMESTAMP)"
    tokens = (
        "INSERT INTO tokens (id, user_id, sha256, created_at, expires_at) "
        "VALUES ('t', 'ann', 'x', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
    )

    def go(step: Callable[[Config, str], None], revision: str) -> None:
        with empty.write() as session:
            config.attributes["connection"] = session.connection()
            step(config, revision)

    def add(name: str, role: str) -> None:
        with empty.write() as session:
            session.execute(text(users), {"id": name, "role": role})

    go(command.upgrade, "0008")
    add("ann", "admin")
    with empty.write() as session:
        session.execute(text(tokens))
    with pytest.raises(IntegrityError):
        add("bo", "reviewer")
    go(command.upgrade, "0009")
    add("bo", "reviewer")
    with pytest.raises(IntegrityError):
        add("cy", "king")
    go(command.downgrade, "0008")
    with empty.read() as session:
        assert session.execute(text("SELECT id, role FROM users ORDER BY id")).all() == [
            ("ann", "admin"),
            ("bo", "annotator"),
        ]
        assert session.scalar(text("SELECT user_id FROM tokens")) == "ann"
        if empty.is_sqlite:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
    with pytest.raises(IntegrityError):
        add("cy", "reviewer")


def test_pairs_of_an_older_release_keep_their_jaccard_and_survive_going_back(empty: Catalog) -> None:
    config = migrate.alembic_config()
    old = {"run_id": "r" * 36, "record_id": "a", "keeper_id": "b", "kind": "near", "jaccard": 0.9, "bands_shared": 3}
    new = old | {"record_id": "c", "kind": "semantic", "jaccard": None, "bands_shared": 0}
    insert = "INSERT INTO duplicate_pairs ({}) VALUES ({})"
    for revision, row in (("0002", old), ("0003", new), ("0002", None), ("0003", None)):
        with empty.write() as session:
            config.attributes["connection"] = session.connection()
            (command.downgrade if (revision, row) == ("0002", None) else command.upgrade)(config, revision)
            if row is not None:
                values = row | {"accepted": True, "rule": "x"} | ({"cosine": 0.97} if row is new else {})
                names = ", ".join(values)
                session.execute(text(insert.format(names, ", ".join(f":{name}" for name in values))), values)
            told = session.execute(text("SELECT * FROM duplicate_pairs ORDER BY record_id")).mappings().all()
            assert [one["jaccard"] for one in told] == ([0.9, None] if row is new else [0.9])
            assert [one.get("cosine") for one in told] == ([None, 0.97] if row is new else [None])
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        columns = metadata.tables["duplicate_pairs"].columns
        changes = [one[-1] for one in compare_metadata(context, metadata) if isinstance(one, tuple)]
        ours = [one for one in changes if getattr(getattr(one, "table", None), "name", "") == "duplicate_pairs"]
        assert not [one for one in ours if one.name in columns]
        if empty.is_sqlite:
            made = connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'duplicate_pairs'"))
            assert "WITHOUT ROWID" in made


def _upgrade(home: str, url: str) -> None:
    migrate.upgrade(Catalog(Settings(home=Path(home), database_url=url)))


def test_processes_that_migrate_at_once_all_succeed(empty: Catalog) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (str(empty.settings.home), empty.settings.database_url)
    processes = [context.Process(target=_upgrade, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    migrate.check_revision(empty)


def test_database_without_schema_is_refused(empty: Catalog) -> None:
    with pytest.raises(ConfigError, match="run `winnow init`"):
        migrate.check_revision(empty)


def test_database_of_a_newer_release_is_refused_and_unchanged(empty: Catalog) -> None:
    migrate.upgrade(empty)
    with empty.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (migrate.check_revision, migrate.upgrade):
        with pytest.raises(ConfigError, match="revision 9999, from a newer release"):
            attempt(empty)
    assert migrate.current_revision(empty) == "9999"
