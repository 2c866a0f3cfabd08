"""Alembic's entry point. The connection always comes from ``catalog.migrate``, which holds the lock."""

from alembic import context

from catalog.faults import fault
from catalog.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    transaction_per_migration=False,
    on_version_apply=lambda **_: fault("migrate.revision"),
)
# The caller's transaction is the migration's: all of it is kept, or none.
context.run_migrations()
