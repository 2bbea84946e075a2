"""First tables: cases, runs, masks, lesions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Json = sa.JSON(none_as_null=True)
Word = sa.String(16)
Id = sa.String(32)


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "cases",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scan_path", sa.String(), nullable=False),
        sa.Column("scan_sha256", sa.String(64), nullable=False),
        sa.Column("scan_bytes", sa.BigInteger(), nullable=False),
        sa.Column("shape", Json),
        sa.Column("spacing_mm", Json),
        sa.Column("orientation", sa.String(3)),
        sa.Column("is_demo", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cases"),
    )
    op.create_index("ix_cases_created_at", "cases", ["created_at"])
    op.create_table(
        "runs",
        sa.Column("id", Id, nullable=False),
        sa.Column("kind", Word, nullable=False),
        sa.Column("state", Word, nullable=False),
        sa.Column("case_id", Id),
        sa.Column("configuration", Json, nullable=False),
        sa.Column("checkpoint", sa.String()),
        sa.Column("checkpoint_sha256", sa.String(64)),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("device", sa.String()),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("progress", Json),
        sa.Column("failure", Json),
        sa.Column("warnings", Json, nullable=False),
        sa.Column("result", Json, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("worker", sa.String()),
        sa.Column("queued_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime()),
        sa.Column("finished_at", sa.DateTime()),
        sa.Column("heartbeat_at", sa.DateTime()),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_runs_case_id_cases", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_state_queued_at", "runs", ["state", "queued_at"])
    op.create_index("ix_runs_case_id_queued_at", "runs", ["case_id", "queued_at"])
    op.create_table(
        "masks",
        sa.Column("id", Id, nullable=False),
        sa.Column("case_id", Id, nullable=False),
        sa.Column("run_id", Id),
        sa.Column("kind", Word, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("volume_ml", sa.Double(), nullable=False),
        sa.Column("slice_voxels", Json, nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_masks_case_id_cases", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_masks_run_id_runs", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_masks"),
        sa.UniqueConstraint("case_id", "kind", "version", name="uq_masks_case_id_kind_version"),
    )
    op.create_index("ix_masks_run_id", "masks", ["run_id"])
    op.create_table(
        "lesions",
        sa.Column("mask_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("volume_ml", sa.Double(), nullable=False),
        sa.Column("centre_mm", Json, nullable=False),
        sa.Column("centre_index", Json, nullable=False),
        sa.Column("extent_mm", Json, nullable=False),
        sa.Column("first_slice", sa.Integer(), nullable=False),
        sa.Column("last_slice", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Double()),
        sa.ForeignKeyConstraint(["mask_id"], ["masks.id"], name="fk_lesions_mask_id_masks", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("mask_id", "number", name="pk_lesions"),
    )


def downgrade() -> None:
    """Undo the change."""
    for table in ("lesions", "masks", "runs", "cases"):
        op.drop_table(table)
