"""Registered data sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Id = sa.String(32)


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "datasets",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("registered_at", sa.DateTime(), nullable=False),
        sa.Column("run_id", Id),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_datasets_run_id_runs", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("folder", name="uq_datasets_folder"),
    )


def downgrade() -> None:
    """Undo the change."""
    op.drop_table("datasets")
