"""A semantic pair has a cosine and no Jaccard similarity."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WITHOUT_ROWID = {"sqlite_with_rowid": False}


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("duplicate_pairs", schema=None, table_kwargs=WITHOUT_ROWID) as batch_op:
        batch_op.add_column(sa.Column("cosine", sa.Float(), nullable=True))
        batch_op.alter_column("jaccard", existing_type=sa.Float(), nullable=True)


def downgrade() -> None:
    """Revert: what the older schema cannot hold, semantic pairs, is dropped."""
    op.execute("DELETE FROM duplicate_pairs WHERE jaccard IS NULL")
    with op.batch_alter_table("duplicate_pairs", schema=None, table_kwargs=WITHOUT_ROWID) as batch_op:
        batch_op.alter_column("jaccard", existing_type=sa.Float(), nullable=False)
        batch_op.drop_column("cosine")
