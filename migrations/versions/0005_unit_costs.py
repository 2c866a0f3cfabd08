"""What a unit took: the peak of its worker's memory."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("units", sa.Column("peak_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Revert."""
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.drop_column("peak_bytes")
