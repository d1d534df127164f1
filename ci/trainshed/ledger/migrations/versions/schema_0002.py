"""The lineage: nodes and edges, filled from all records that stand already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from trainshed.ledger import filling

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and fill them."""
    plain = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "nodes",
        sa.Column("key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("label", plain, primary_key=True),
        sa.Column("tier", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("id", plain, nullable=False),
        sa.Column("alias", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
    )
    op.create_table(
        "edges",
        sa.Column("source", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("relation", sa.String, primary_key=True),
        sa.Column("target", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tier", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("present", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_edges_target", "edges", ["target", "relation"])
    filling.fill(op.get_bind())
    op.create_index("ix_nodes_id", "nodes", ["id"])
    op.create_index("ix_nodes_label", "nodes", ["label"])
