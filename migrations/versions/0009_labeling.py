"""Labeling: random, gold and suggested tasks, versions of schemas, adjudication; owners and reviewers.

Only adds, and every new column has a default: programs of the release before go on working on it meanwhile.
"""

import sqlalchemy as sa
from alembic import op

from catalog.tables.base import Json, Moment

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BEFORE = "role IN ('admin', 'curator', 'annotator')"
AFTER = "role IN ('owner', 'admin', 'curator', 'reviewer', 'annotator')"


def upgrade() -> None:
    """Apply."""
    op.add_column("label_queues", sa.Column("random_share", sa.Float(), server_default="0", nullable=False))
    op.add_column("label_queues", sa.Column("gold_every", sa.Integer(), server_default="0", nullable=False))
    op.add_column("label_queues", sa.Column("hidden_share", sa.Float(), server_default="0", nullable=False))
    op.add_column("label_queues", sa.Column("model", sa.String(100), server_default="linear", nullable=False))
    op.add_column("label_queues", sa.Column("budget", sa.BigInteger(), nullable=True))
    op.add_column("label_tasks", sa.Column("gold", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "ix_label_tasks_queue_id_gold",
        "label_tasks",
        ["queue_id"],
        sqlite_where=sa.text("gold IS 1"),
        postgresql_where=sa.text("gold IS true"),
    )
    for table in ("label_entries", "label_assignments"):
        op.add_column(table, sa.Column("kind", sa.String(10), server_default="chosen", nullable=False))
    op.add_column("label_entries", sa.Column("predicted", Json, nullable=True))
    for table in ("label_assignments", "annotations"):
        op.add_column(table, sa.Column("schema_version", sa.Integer(), nullable=True))
    op.add_column("label_assignments", sa.Column("suggestion", Json, nullable=True))
    op.add_column("annotations", sa.Column("origin", sa.String(12), server_default="annotator", nullable=False))
    _tables()
    _change_roles(BEFORE, AFTER)


def _tables() -> None:
    def of_queue(table: str) -> tuple[sa.Column[str], sa.ForeignKeyConstraint]:
        name = op.f(f"fk_{table}_queue_id_label_queues")
        return (
            sa.Column("queue_id", sa.String(36), nullable=False),
            sa.ForeignKeyConstraint(["queue_id"], ["label_queues.id"], name=name),
        )

    op.create_table(
        "label_generations",
        *of_queue("label_generations"),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("strategy", sa.String(100), nullable=False),
        sa.Column("num_labels", sa.Integer(), nullable=False),
        sa.Column("figures", Json, nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "generation", name=op.f("pk_label_generations")),
    )
    op.create_table(
        "label_gold",
        *of_queue("label_gold"),
        sa.Column("record_id", sa.String(44), nullable=False),
        sa.Column("value", Json, nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_by", sa.String(200), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "record_id", name=op.f("pk_label_gold")),
    )
    op.create_table(
        "label_suggestions",
        *of_queue("label_suggestions"),
        sa.Column("record_id", sa.String(44), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("value", Json, nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "record_id", "source", name=op.f("pk_label_suggestions")),
    )


def _change_roles(before: str, after: str) -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.drop_constraint(op.f("ck_users_role"), "users", type_="check")
        op.create_check_constraint(op.f("ck_users_role"), "users", after)
        return
    # SQLite has no statement for it, and to write the table anew would cut the tokens off their users. Its manual's way
    # for a change that concerns no stored byte (lang_altertable, section 7): https://sqlite.org/lang_altertable.html
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'users'", (before, after)
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def downgrade() -> None:
    """Take back. Owners become admins, and reviewers annotators."""
    op.execute("UPDATE users SET role = 'admin' WHERE role = 'owner'")
    op.execute("UPDATE users SET role = 'annotator' WHERE role = 'reviewer'")
    _change_roles(AFTER, BEFORE)
    for table in ("label_suggestions", "label_gold", "label_generations"):
        op.drop_table(table)
    op.drop_index("ix_label_tasks_queue_id_gold", table_name="label_tasks")
    for table, column in (
        ("annotations", "origin"),
        ("label_assignments", "suggestion"),
        ("annotations", "schema_version"),
        ("label_assignments", "schema_version"),
        ("label_entries", "predicted"),
        ("label_assignments", "kind"),
        ("label_entries", "kind"),
        ("label_tasks", "gold"),
        ("label_queues", "budget"),
        ("label_queues", "model"),
        ("label_queues", "hidden_share"),
        ("label_queues", "gold_every"),
        ("label_queues", "random_share"),
    ):
        op.drop_column(table, column)
