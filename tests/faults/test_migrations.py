"""Migrations that are killed anywhere, and many at once: the schema is the old one or the newest, never between."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from catalog import migrate
from catalog.tables import metadata
from tests.faults.test_points import KILLED, MIGRATING
from tests.faults.world import Nursery, World

NUM_REVISIONS = len(list(ScriptDirectory.from_config(migrate.alembic_config()).walk_revisions()))
NUM_AT_ONCE = 8
STEP = 12
"""Every so many statements a migration is killed before one."""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery) -> Iterator[World]:
    """A home whose database has no table yet."""
    url = request.getfixturevalue("new_empty_postgres") if request.param == "postgresql" else ""
    world = World(tmp_path, nursery, {"database_url": url})
    yield world
    world.close()


def schema(world: World) -> dict[str, list[str]]:
    """All that a database says of its tables, in words: an index's condition is an object that equals only itself."""
    with world.catalog.engine.connect() as connection:
        found = inspect(connection)
        told = (
            found.get_columns,
            found.get_indexes,
            found.get_check_constraints,
            found.get_foreign_keys,
            found.get_unique_constraints,
        )
        return {
            table: sorted(
                str({key: str(value) for key, value in sorted(one.items()) if key != "dialect_options"})
                + "".join(f" {key}={value}" for key, value in one.get("dialect_options", {}).items())
                for ask in told
                for one in ask(table)
            )
            for table in found.get_table_names()
        }


def check_newest(world: World) -> None:
    migrate.check_revision(world.catalog)
    with world.catalog.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert len(connection.execute(text("SELECT version_num FROM alembic_version")).all()) == 1
    assert set(schema(world)) == {*metadata.tables, "alembic_version"}


def places() -> list[str]:
    """Where to kill: each point, that of a revision once for each."""
    return [
        f"{point}=kill@{nth}"
        for point in MIGRATING
        for nth in range(1, NUM_REVISIONS + 1 if point == "migrate.revision" else 2)
    ]


def test_migration_killed_at_each_point_leaves_all_or_nothing(empty: World) -> None:
    for spec in places():
        assert world_is_empty(empty)
        assert empty.run("migrate", spec=spec) == KILLED
        if spec.startswith("migrate.after_commit"):
            break
    check_newest(empty)
    assert empty.struck() == set(places())
    assert empty.run("migrate") == 0


def world_is_empty(world: World) -> bool:
    """Whether nothing of a migration is there."""
    return schema(world).keys() <= {"alembic_version"} and migrate.current_revision(world.catalog) is None


def test_migration_killed_between_two_statements_leaves_nothing(empty: World, tmp_path: Path) -> None:
    nth, status = 1, KILLED
    while status == KILLED:
        status = empty.run("migrate", str(nth))
        assert status == 0 or world_is_empty(empty), f"killed before statement {nth}"
        nth += STEP
    assert status == 0, empty.logs()
    assert nth > 5 * STEP, "hardly a statement was run"
    check_newest(empty)


def test_many_migrations_at_once_are_one(empty: World) -> None:
    names = [f"{empty.folder} migration {number}" for number in range(NUM_AT_ONCE)]
    for name in names:
        empty.start(name, "migrate")
    assert [empty.nursery.ends(name) for name in names] == [[0]] * NUM_AT_ONCE, empty.logs()
    check_newest(empty)


def test_killed_then_finished_gives_the_schema_of_one_that_was_never_killed(
    empty: World, tmp_path: Path, new_world: Callable[..., World]
) -> None:
    assert empty.run("migrate", spec=f"migrate.revision=kill@{NUM_REVISIONS - 1}") == KILLED
    assert empty.run("migrate") == 0
    clean = new_world("sqlite+embedded" if empty.catalog.is_sqlite else "postgresql+embedded")
    assert schema(empty) == schema(clean)
