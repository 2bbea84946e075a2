"""Which folder of files a database belongs to, and which of the waiting runs go first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

AFTER_ALL_DROPS = "1000000"


def upgrade() -> None:
    """Change the schema."""
    op.add_column("runs", sa.Column("priority", sa.Integer(), nullable=False, server_default=AFTER_ALL_DROPS))
    op.create_table(
        "installation",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("home_id", sa.String(32)),
        sa.PrimaryKeyConstraint("number", name="pk_installation"),
    )


def downgrade() -> None:
    """Undo the change."""
    op.drop_table("installation")
    op.drop_column("runs", "priority")
