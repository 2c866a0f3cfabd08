"""Runs that people steer: priorities, pauses, limits, needs of units, their log; schedules, requests, webhooks.

Only adds, and every new column has a default: programs of the release before go on working on it meanwhile.
"""

import sqlalchemy as sa
from alembic import op

from catalog.tables.base import Json, Moment

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
READY = sa.text("state = 'ready'")
UNFINISHED = sa.text("state <> 'done'")


def upgrade() -> None:
    """Apply."""
    op.add_column("runs", sa.Column("paused_at", Moment(), nullable=True))
    op.add_column("runs", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("runs", sa.Column("max_units", sa.Integer(), nullable=True))
    op.add_column("units", sa.Column("needs", sa.String(20), server_default="cpu", nullable=False))
    op.add_column("outbox", sa.Column("needs", sa.String(20), server_default="cpu", nullable=False))
    op.add_column("workers", sa.Column("needs", sa.String(100), server_default="cpu,embed,train", nullable=False))
    for name, columns, rows in (
        ("ix_units_run_id_unfinished", ["run_id", "stage", "position"], UNFINISHED),
        ("ix_units_needs_ready_at", ["needs", "ready_at"], READY),
    ):
        op.create_index(name, "units", columns, sqlite_where=rows, postgresql_where=rows)
    op.create_table(
        "unit_log",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("unit_id", sa.String(36), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("worker", sa.String(200), nullable=True),
        sa.Column("level", sa.String(10), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_unit_log_run_id_runs")),
        sa.ForeignKeyConstraint(["unit_id"], ["units.id"], name=op.f("fk_unit_log_unit_id_units")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unit_log")),
    )
    op.create_index("ix_unit_log_run_id_id", "unit_log", ["run_id", "id"])
    _schedules()
    _webhooks()


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("config", Json, nullable=False),
        sa.Column("trigger", sa.String(20), nullable=False),
        sa.Column("cron", sa.String(200), nullable=True),
        sa.Column("timezone", sa.String(60), nullable=False),
        sa.Column("folder", sa.Text(), nullable=True),
        sa.Column("mapping", Json, nullable=True),
        sa.Column("missed", sa.String(10), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_units", sa.Integer(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_at", Moment(), nullable=True),
        sa.Column("cursor", sa.String(36), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_by", sa.String(200), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.CheckConstraint("trigger IN ('cron', 'ingest', 'clean', 'watch')", name=op.f("ck_schedules_trigger")),
        sa.CheckConstraint("missed IN ('once', 'skip')", name=op.f("ck_schedules_missed")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules_name")),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])
    op.create_table(
        "firings",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("schedule_id", sa.String(36), nullable=False),
        sa.Column("due_at", Moment(), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("detail", Json, nullable=False),
        sa.Column("run_id", sa.String(36), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("settled_at", Moment(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('pending', 'started', 'unchanged', 'skipped', 'refused')", name=op.f("ck_firings_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_firings_schedule_id_schedules"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firings")),
        sa.UniqueConstraint("schedule_id", "due_at", name=op.f("uq_firings_schedule_id_due_at")),
    )
    op.create_index("ix_firings_outcome", "firings", ["outcome"])
    op.create_table(
        "watched_files",
        sa.Column("schedule_id", sa.String(36), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_watched_files_schedule_id_schedules"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "path", name=op.f("pk_watched_files")),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("config", Json, nullable=False),
        sa.Column("after_run_id", sa.String(36), nullable=True),
        sa.Column("after_queue_id", sa.String(36), nullable=True),
        sa.Column("after_request_id", sa.String(36), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_units", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=True),
        sa.Column("queue_id", sa.String(36), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.String(200), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("settled_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'started', 'refused', 'cancelled')", name=op.f("ck_requests_state")),
        sa.ForeignKeyConstraint(["after_run_id"], ["runs.id"], name=op.f("fk_requests_after_run_id_runs")),
        sa.ForeignKeyConstraint(
            ["after_queue_id"], ["label_queues.id"], name=op.f("fk_requests_after_queue_id_label_queues")
        ),
        sa.ForeignKeyConstraint(
            ["after_request_id"], ["requests.id"], name=op.f("fk_requests_after_request_id_requests")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index("ix_requests_after_run_id", "requests", ["after_run_id"])
    op.create_index("ix_requests_state", "requests", ["state"])


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", Json, nullable=False),
        sa.Column("secret", sa.String(100), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("webhook_id", sa.String(36), nullable=False),
        sa.Column("event_id", sa.String(100), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", Moment(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("settled_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name=op.f("ck_deliveries_state")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("webhook_id", "event_id", name=op.f("uq_deliveries_webhook_id_event_id")),
    )
    op.create_index("ix_deliveries_state_next_at", "deliveries", ["state", "next_at"])


def downgrade() -> None:
    """Take back."""
    for table in ("deliveries", "webhooks", "requests", "watched_files", "firings", "schedules", "unit_log"):
        op.drop_table(table)
    op.drop_index("ix_units_needs_ready_at", table_name="units")
    op.drop_index("ix_units_run_id_unfinished", table_name="units")
    for table, column in (("workers", "needs"), ("outbox", "needs"), ("units", "needs")):
        op.drop_column(table, column)
    for column in ("max_units", "priority", "paused_at"):
        op.drop_column("runs", column)
