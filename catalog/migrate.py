"""Bring a database to this release's schema, once, whoever asks first."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.faults import fault

ADVISORY_LOCK = 0x77696E6E6F77  # "winnow"


def alembic_config() -> Config:
    """Where the migrations are; a connection goes into its ``attributes``."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).resolve().parent.parent / "migrations"))
    return config


def latest_revision() -> str:
    """The revision that this release's code expects."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def known_revisions() -> set[str]:
    """Every revision that this release can bring up to its own."""
    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def current_revision(catalog: Catalog) -> str | None:
    """The revision the database is at, or None when it has no schema yet."""
    with catalog.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def has_schema(catalog: Catalog) -> bool:
    """Whether a database is there and any release has made its tables; makes nothing itself."""
    return (not catalog.is_sqlite or catalog.sqlite_path.exists()) and current_revision(catalog) is not None


def check_revision(catalog: Catalog) -> None:
    """Refuse a database that this release cannot work with.

    Raises
    ------
    ConfigError : no schema yet (run ``winnow init``), an older one (likewise), or one from a newer release.
    """
    if catalog.is_sqlite and not catalog.sqlite_path.exists():
        raise ConfigError(f"there is no database at {catalog.sqlite_path}; run `winnow init`, or set WINNOW_HOME")
    current = current_revision(catalog)
    if current == latest_revision():
        return
    if current is None:
        raise ConfigError("the database has no schema yet; run `winnow init`")
    if current in known_revisions():
        raise ConfigError(
            f"the database is at revision {current}, this release needs {latest_revision()}; run `winnow init`"
        )
    raise ConfigError(
        f"the database is at revision {current}, from a newer release than this one; "
        "install that release, or point WINNOW_HOME elsewhere"
    )


def upgrade(catalog: Catalog) -> bool:
    """Migrate to the latest revision; return whether anything changed. Concurrent callers wait for the first.

    Raises
    ------
    ConfigError : the database is from a newer release.
    """
    if catalog.is_sqlite:
        catalog.sqlite_path.parent.mkdir(parents=True, exist_ok=True)
    before = current_revision(catalog)
    if before == latest_revision():
        return False
    if before is not None and before not in known_revisions():
        check_revision(catalog)
    with catalog.write() as session:
        if not catalog.is_sqlite:
            # However long the first one takes, and whatever it waits for.
            session.execute(text("SET LOCAL lock_timeout = 0"))
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        config = alembic_config()
        config.attributes["connection"] = session.connection()
        fault("migrate.before")
        command.upgrade(config, "head")
        fault("migrate.before_commit")
    fault("migrate.after_commit")
    return True
