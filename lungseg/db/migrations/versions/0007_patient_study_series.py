"""Patient, study and series stand with a case, its original files, and what was noticed when it was taken in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEXED = ("patient", "series_uid")


def upgrade() -> None:
    """Change the schema; cases of before have neither an examination nor original files."""
    op.add_column("cases", sa.Column("original_path", sa.String()))
    op.add_column("cases", sa.Column("examination", sa.JSON()))
    op.add_column("cases", sa.Column("findings", sa.JSON(), nullable=False, server_default="[]"))
    for name in (*INDEXED, "study_date"):
        op.add_column("cases", sa.Column(name, sa.String(), nullable=False, server_default=""))
    for name in INDEXED:
        op.create_index(op.f(f"ix_cases_{name}"), "cases", [name])


def downgrade() -> None:
    """Undo the change."""
    for name in INDEXED:
        op.drop_index(op.f(f"ix_cases_{name}"), "cases")
    for name in ("study_date", *INDEXED, "findings", "examination", "original_path"):
        op.drop_column("cases", name)
