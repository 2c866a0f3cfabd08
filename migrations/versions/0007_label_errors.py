"""Suspected label errors."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "label_errors",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("record_id", sa.String(44), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("given", sa.Text(), nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("suggested", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("quality", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "record_id", name=op.f("pk_label_errors")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_label_errors_run_id_rank", "label_errors", ["run_id", "rank"])


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_label_errors_run_id_rank", table_name="label_errors")
    op.drop_table("label_errors")
