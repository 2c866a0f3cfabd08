"""The first schema: datasets, runs and units, verdicts, labeling, training, access."""

import sqlalchemy as sa
from alembic import op

from catalog.tables.base import Json, Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("detail", Json, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_at"), ["at"], unique=False)

    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("text_column", sa.String(length=200), nullable=False),
        sa.Column("label_column", sa.String(length=200), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )
    op.create_table(
        "duplicate_pairs",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("record_id", sa.String(length=44), nullable=False),
        sa.Column("keeper_id", sa.String(length=44), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("jaccard", sa.Float(), nullable=False),
        sa.Column("bands_shared", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "record_id", "keeper_id", name=op.f("pk_duplicate_pairs")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("duplicate_pairs", schema=None) as batch_op:
        batch_op.create_index("ix_duplicate_pairs_run_id_keeper_id", ["run_id", "keeper_id"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("args", Json, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("role IN ('admin', 'curator', 'annotator')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "verdicts",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("record_id", sa.String(length=44), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=100), nullable=True),
        sa.Column("failed", Json, nullable=False),
        sa.Column("measured", Json, nullable=False),
        sa.Column("scores", Json, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "record_id", name=op.f("pk_verdicts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("seen_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=True),
        sa.Column("idempotency_key", sa.String(length=200), nullable=False),
        sa.Column("config", Json, nullable=False),
        sa.Column("config_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("result", Json, nullable=True),
        sa.Column("requested_by", sa.String(length=200), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done', 'failed', 'cancelled')", name=op.f("ck_runs_state")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_runs_dataset_id_datasets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_runs_idempotency_key")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_dataset_id"), ["dataset_id"], unique=False)

    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tokens_user_id"), ["user_id"], unique=False)

    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("arm", sa.String(length=100), nullable=False),
        sa.Column("variant", sa.String(length=100), nullable=False),
        sa.Column("num_examples", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Float(), nullable=False),
        sa.Column("macro_f1", sa.Float(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("flops", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("energy_joules", sa.Float(), nullable=True),
        sa.Column("detail", Json, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_evaluations_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint("run_id", "arm", "variant", name=op.f("uq_evaluations_run_id_arm_variant")),
    )
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_evaluations_run_id"), ["run_id"], unique=False)

    op.create_table(
        "loss_points",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("arm", sa.String(length=100), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_loss_points_run_id_runs")),
        sa.PrimaryKeyConstraint("run_id", "arm", "step", name=op.f("pk_loss_points")),
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("num_records", sa.BigInteger(), nullable=False),
        sa.Column("num_rejected", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_sources_dataset_id_datasets")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_sources_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("dataset_id", "sha256", name=op.f("uq_sources_dataset_id_sha256")),
    )
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sources_run_id"), ["run_id"], unique=False)

    op.create_table(
        "units",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("stage_name", sa.String(length=60), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("num_done", sa.BigInteger(), nullable=False),
        sa.Column("num_total", sa.BigInteger(), nullable=False),
        sa.Column("result", Json, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ready_at", Moment(), nullable=False),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.CheckConstraint(
            "state IN ('ready', 'running', 'done', 'poisoned', 'cancelled')", name=op.f("ck_units_state")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_units_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_units")),
        sa.UniqueConstraint("run_id", "stage", "position", name=op.f("uq_units_run_id_stage_position")),
    )
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.create_index("ix_units_state_lease_until", ["state", "lease_until"], unique=False)

    op.create_table(
        "versions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("parent_id", sa.String(length=36), nullable=True),
        sa.Column("manifest_name", sa.String(length=200), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("num_records", sa.BigInteger(), nullable=False),
        sa.Column("num_shards", sa.Integer(), nullable=False),
        sa.Column("summary", Json, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_versions_dataset_id_datasets")),
        sa.ForeignKeyConstraint(["parent_id"], ["versions.id"], name=op.f("fk_versions_parent_id_versions")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_versions_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("dataset_id", "number", name=op.f("uq_versions_dataset_id_number")),
        sa.UniqueConstraint("run_id", name=op.f("uq_versions_run_id")),
    )
    op.create_table(
        "label_queues",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("schema", Json, nullable=False),
        sa.Column("strategy", sa.String(length=100), nullable=False),
        sa.Column("encoder", sa.String(length=200), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("lease_seconds", sa.Float(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("held_out_share", sa.Float(), nullable=False),
        sa.Column("refresh_every", sa.Integer(), nullable=False),
        sa.Column("rehearsal", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("waiting_for_model", sa.Boolean(), nullable=False),
        sa.Column("num_tasks", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("closed_at", Moment(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_label_queues_state")),
        sa.CheckConstraint("overlap >= 1", name=op.f("ck_label_queues_overlap")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_label_queues_dataset_id_datasets")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_label_queues_version_id_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_queues")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_label_queues_dataset_id_name")),
    )
    op.create_table(
        "quarantine",
        sa.Column("source_id", sa.String(length=36), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_quarantine_run_id_runs")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_quarantine_source_id_sources")),
        sa.PrimaryKeyConstraint("source_id", "line", name=op.f("pk_quarantine")),
    )
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_quarantine_run_id"), ["run_id"], unique=False)

    op.create_table(
        "shards",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("unit_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("num_rows", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_shards_dataset_id_datasets")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_shards_run_id_runs")),
        sa.ForeignKeyConstraint(["unit_id"], ["units.id"], name=op.f("fk_shards_unit_id_units")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
        sa.UniqueConstraint("unit_id", "kind", "position", name=op.f("uq_shards_unit_id_kind_position")),
    )
    with op.batch_alter_table("shards", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_shards_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index("ix_shards_run_id_kind", ["run_id", "kind"], unique=False)

    op.create_table(
        "label_rounds",
        sa.Column("queue_id", sa.String(length=36), nullable=False),
        sa.Column("arm", sa.String(length=100), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("num_labels", sa.Integer(), nullable=False),
        sa.Column("num_examples", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Float(), nullable=False),
        sa.Column("accuracy_low", sa.Float(), nullable=False),
        sa.Column("accuracy_high", sa.Float(), nullable=False),
        sa.Column("macro_f1", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["queue_id"], ["label_queues.id"], name=op.f("fk_label_rounds_queue_id_label_queues")),
        sa.PrimaryKeyConstraint("queue_id", "arm", "round", name=op.f("pk_label_rounds")),
    )
    op.create_table(
        "label_tasks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("queue_id", sa.String(length=36), nullable=False),
        sa.Column("record_id", sa.String(length=44), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.CheckConstraint("overlap >= 1", name=op.f("ck_label_tasks_overlap")),
        sa.ForeignKeyConstraint(["queue_id"], ["label_queues.id"], name=op.f("fk_label_tasks_queue_id_label_queues")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_tasks")),
        sa.UniqueConstraint("id", "overlap", name=op.f("uq_label_tasks_id_overlap")),
        sa.UniqueConstraint("queue_id", "record_id", name=op.f("uq_label_tasks_queue_id_record_id")),
    )
    with op.batch_alter_table("label_tasks", schema=None) as batch_op:
        batch_op.create_index(
            "ix_label_tasks_queue_id_done",
            ["queue_id"],
            unique=False,
            sqlite_where=sa.text("done IS 1"),
            postgresql_where=sa.text("done IS true"),
        )

    op.create_table(
        "label_assignments",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("queue_id", sa.String(length=36), nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("annotator_id", sa.String(length=200), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("utility", sa.Float(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(state IN ('leased', 'accepted')) = (slot IS NOT NULL)", name=op.f("ck_label_assignments_slot_while_live")
        ),
        sa.CheckConstraint(
            "state IN ('leased', 'accepted', 'released', 'skipped', 'expired', 'late')",
            name=op.f("ck_label_assignments_state"),
        ),
        sa.CheckConstraint("slot >= 0 AND slot < overlap", name=op.f("ck_label_assignments_slot_below_overlap")),
        sa.ForeignKeyConstraint(
            ["queue_id"], ["label_queues.id"], name=op.f("fk_label_assignments_queue_id_label_queues")
        ),
        sa.ForeignKeyConstraint(
            ["task_id", "overlap"],
            ["label_tasks.id", "label_tasks.overlap"],
            name=op.f("fk_label_assignments_task_id_overlap_label_tasks"),
            onupdate="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_assignments")),
        sa.UniqueConstraint("task_id", "annotator_id", name=op.f("uq_label_assignments_task_id_annotator_id")),
        sa.UniqueConstraint("task_id", "slot", name=op.f("uq_label_assignments_task_id_slot")),
    )
    with op.batch_alter_table("label_assignments", schema=None) as batch_op:
        batch_op.create_index(
            "ix_label_assignments_annotator", ["queue_id", "annotator_id", "state", "event_id"], unique=False
        )
        batch_op.create_index("ix_label_assignments_expiry", ["queue_id", "state", "expires_at"], unique=False)

    op.create_table(
        "label_entries",
        sa.Column("queue_id", sa.String(length=36), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("utility", sa.Float(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["queue_id"], ["label_queues.id"], name=op.f("fk_label_entries_queue_id_label_queues")),
        sa.ForeignKeyConstraint(["task_id"], ["label_tasks.id"], name=op.f("fk_label_entries_task_id_label_tasks")),
        sa.PrimaryKeyConstraint("queue_id", "generation", "task_id", name=op.f("pk_label_entries")),
    )
    with op.batch_alter_table("label_entries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_label_entries_open",
            ["queue_id", "generation", "rank"],
            unique=False,
            sqlite_where=sa.text("done IS 0"),
            postgresql_where=sa.text("done IS false"),
        )

    op.create_table(
        "label_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("queue_id", sa.String(length=36), nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=True),
        sa.Column("annotator_id", sa.String(length=200), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("detail", Json, nullable=False),
        sa.ForeignKeyConstraint(["queue_id"], ["label_queues.id"], name=op.f("fk_label_events_queue_id_label_queues")),
        sa.ForeignKeyConstraint(["task_id"], ["label_tasks.id"], name=op.f("fk_label_events_task_id_label_tasks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_events")),
    )
    with op.batch_alter_table("label_events", schema=None) as batch_op:
        batch_op.create_index("ix_label_events_queue_id_id", ["queue_id", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_label_events_task_id"), ["task_id"], unique=False)

    op.create_table(
        "annotations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("queue_id", sa.String(length=36), nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("annotator_id", sa.String(length=200), nullable=False),
        sa.Column("lease_id", sa.String(length=36), nullable=False),
        sa.Column("value", Json, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("retracted", sa.String(length=20), nullable=True),
        sa.Column("retracted_at", Moment(), nullable=True),
        sa.Column("seconds_spent", sa.Float(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.CheckConstraint("retracted IN ('undone', 'superseded')", name=op.f("ck_annotations_retracted")),
        sa.ForeignKeyConstraint(
            ["lease_id"], ["label_assignments.id"], name=op.f("fk_annotations_lease_id_label_assignments")
        ),
        sa.ForeignKeyConstraint(["queue_id"], ["label_queues.id"], name=op.f("fk_annotations_queue_id_label_queues")),
        sa.ForeignKeyConstraint(["task_id"], ["label_tasks.id"], name=op.f("fk_annotations_task_id_label_tasks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint("annotator_id", "key", name=op.f("uq_annotations_annotator_id_key")),
    )
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index("ix_annotations_queue_id_annotator_id", ["queue_id", "annotator_id"], unique=False)
        batch_op.create_index(
            "uq_annotations_current",
            ["task_id", "annotator_id"],
            unique=True,
            sqlite_where=sa.text("retracted IS NULL"),
            postgresql_where=sa.text("retracted IS NULL"),
        )


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_annotations_current",
            sqlite_where=sa.text("retracted IS NULL"),
            postgresql_where=sa.text("retracted IS NULL"),
        )
        batch_op.drop_index("ix_annotations_queue_id_annotator_id")

    op.drop_table("annotations")
    with op.batch_alter_table("label_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_label_events_task_id"))
        batch_op.drop_index("ix_label_events_queue_id_id")

    op.drop_table("label_events")
    with op.batch_alter_table("label_entries", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_label_entries_open", sqlite_where=sa.text("done IS 0"), postgresql_where=sa.text("done IS false")
        )

    op.drop_table("label_entries")
    with op.batch_alter_table("label_assignments", schema=None) as batch_op:
        batch_op.drop_index("ix_label_assignments_expiry")
        batch_op.drop_index("ix_label_assignments_annotator")

    op.drop_table("label_assignments")
    with op.batch_alter_table("label_tasks", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_label_tasks_queue_id_done", sqlite_where=sa.text("done IS 1"), postgresql_where=sa.text("done IS true")
        )

    op.drop_table("label_tasks")
    op.drop_table("label_rounds")
    with op.batch_alter_table("shards", schema=None) as batch_op:
        batch_op.drop_index("ix_shards_run_id_kind")
        batch_op.drop_index(batch_op.f("ix_shards_dataset_id"))

    op.drop_table("shards")
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_quarantine_run_id"))

    op.drop_table("quarantine")
    op.drop_table("label_queues")
    op.drop_table("versions")
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.drop_index("ix_units_state_lease_until")

    op.drop_table("units")
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sources_run_id"))

    op.drop_table("sources")
    op.drop_table("loss_points")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_evaluations_run_id"))

    op.drop_table("evaluations")
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tokens_user_id"))

    op.drop_table("tokens")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_runs_dataset_id"))

    op.drop_table("runs")
    op.drop_table("workers")
    op.drop_table("verdicts")
    op.drop_table("users")
    op.drop_table("outbox")
    with op.batch_alter_table("duplicate_pairs", schema=None) as batch_op:
        batch_op.drop_index("ix_duplicate_pairs_run_id_keeper_id")

    op.drop_table("duplicate_pairs")
    op.drop_table("datasets")
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_at"))

    op.drop_table("audit")
