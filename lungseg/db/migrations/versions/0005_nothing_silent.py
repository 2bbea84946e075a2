"""Which lesions are doubtful, and how many were when a case was scored; which class of a data set is tumour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema; lesions of before stay what they were, a part of their mask."""
    op.add_column("lesions", sa.Column("is_doubtful", sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in ("doubtful_true", "doubtful_false"):
        op.add_column("scores", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("datasets", sa.Column("tumour_class", sa.String()))


def downgrade() -> None:
    """Undo the change."""
    op.drop_column("datasets", "tumour_class")
    for name in ("doubtful_false", "doubtful_true"):
        op.drop_column("scores", name)
    op.drop_column("lesions", "is_doubtful")
