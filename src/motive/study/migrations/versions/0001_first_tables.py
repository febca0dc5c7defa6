"""The first tables: annotators, their places, and their judgements."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
    )
    op.create_table(
        "annotators",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("token_hash", sa.String(64)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_annotators"),
        sa.UniqueConstraint("name", name="uq_annotators_name"),
        sa.UniqueConstraint("token_hash", name="uq_annotators_token_hash"),
    )
    op.create_table(
        "places",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.String(32), nullable=False),
        sa.Column("a_left", sa.Boolean()),
        sa.Column("position", sa.Integer()),
        sa.Column("opened_at", sa.DateTime(timezone=True)),
        sa.Column("handed_on", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_places_annotator_id"),
        sa.PrimaryKeyConstraint("id", name="pk_places"),
        sa.UniqueConstraint("annotator_id", "item_id", name="uq_places_annotator_id"),
    )
    op.create_index("ix_places_turn", "places", ["annotator_id", "position"])
    op.create_table(
        "judgements",
        sa.Column("place_id", sa.String(32), nullable=False),
        sa.Column("winner", sa.String(3), nullable=False),
        sa.Column("response_ms", sa.Integer()),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["place_id"], ["places.id"], name="fk_judgements_place_id"),
        sa.PrimaryKeyConstraint("place_id", name="pk_judgements"),
    )


def downgrade() -> None:
    for table in ("judgements", "places", "annotators", "studies"):
        op.drop_table(table)
