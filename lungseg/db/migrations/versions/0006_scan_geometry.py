"""The geometry of a scan stands with its case."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema; cases of before get theirs from their scan, once the installation is at work."""
    op.add_column("cases", sa.Column("geometry", sa.JSON()))


def downgrade() -> None:
    """Undo the change."""
    op.drop_column("cases", "geometry")
