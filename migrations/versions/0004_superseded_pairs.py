"""A run that builds on an earlier one says which of that one's duplicate pairs it has decided anew."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "superseded_pairs",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("record_id", sa.String(44), nullable=False),
        sa.Column("by_run_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "record_id", "by_run_id", name=op.f("pk_superseded_pairs")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("superseded_pairs")
