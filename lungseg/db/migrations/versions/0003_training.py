"""Epochs and scores of training runs, and what users note on runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Id = sa.String(32)


def upgrade() -> None:
    """Change the schema."""
    op.add_column("runs", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("name", sa.String(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("runs", sa.Column("notes", sa.String(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("dataset", sa.String()))
    op.create_table(
        "epochs",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("train_loss", sa.Double(), nullable=False),
        sa.Column("validation_loss", sa.Double()),
        sa.Column("mean_dice", sa.Double()),
        sa.Column("learning_rate", sa.Double(), nullable=False),
        sa.Column("slices_per_s", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("memory_mb", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_epochs_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "epoch", name="pk_epochs"),
    )
    op.create_table(
        "scores",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("case", sa.String(), nullable=False),
        sa.Column("dice", sa.Double()),
        sa.Column("hd95_mm", sa.Double()),
        sa.Column("nsd_2mm", sa.Double()),
        sa.Column("reference_ml", sa.Double()),
        sa.Column("predicted_ml", sa.Double()),
        sa.Column("lesions_reference", sa.Integer(), nullable=False),
        sa.Column("lesions_found", sa.Integer(), nullable=False),
        sa.Column("false_lesions", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double()),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_scores_run_id_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "case", name="pk_scores"),
    )


def downgrade() -> None:
    """Undo the change."""
    op.drop_table("scores")
    op.drop_table("epochs")
    for column in ("dataset", "notes", "tags", "name", "losses"):
        op.drop_column("runs", column)
