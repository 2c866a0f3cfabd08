"""Quality models that were trained from examples or a reference, by name and version."""

import sqlalchemy as sa
from alembic import op

from catalog.tables.base import Json, Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "quality_models",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("scorer", sa.String(40), nullable=False),
        sa.Column("file", Json, nullable=False),
        sa.Column("summary", Json, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_quality_models")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("quality_models")
