"""A keeper may be a record of another dataset: DATASET:RECORD is longer than a record's id."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("duplicate_pairs", schema=None, table_kwargs={"sqlite_with_rowid": False}) as batch_op:
        batch_op.alter_column("keeper_id", existing_type=sa.String(44), type_=sa.String(150), existing_nullable=False)
