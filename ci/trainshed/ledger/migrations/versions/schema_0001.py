"""The first schema: verdicts, images, attachments, locks, events and leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _records("verdicts", "check_name", "version", "component", digests=("digest",), flags=("green",), timed=True, document="details")
    op.create_index("ix_verdicts_digest", "verdicts", ["digest", "check_name", "version"])
    _records("images", "component", "repository", digests=("input_digest", "digest"), timed=True, document="manifest")
    op.create_index("ix_images_component", "images", ["component", "repository"])
    _records("locks", "commit_id", "branch", digests=("plan_digest",), document="document")
    op.create_index("ix_locks_commit_id", "locks", ["commit_id"])
    op.create_index("ix_locks_branch", "locks", ["branch"])
    _records("events", "kind", "environment", "name", "key", document="document")
    op.create_index("ix_events_name", "events", ["kind", "environment", "name"])
    op.create_table(
        "attachments",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("tier", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
    )


def _records(
    table: str, *texts: str, document: str, digests: tuple[str, ...] = (), flags: tuple[str, ...] = (), timed: bool = False
) -> None:
    """Make a table of records: numbered, with texts, one JSON document, the tier and the time of each."""
    op.create_table(
        table,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        *(sa.Column(name, sa.String(71), nullable=False) for name in digests),
        *(sa.Column(name, sa.String, nullable=False) for name in texts),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in flags),
        *((sa.Column("seconds", sa.Double, nullable=False),) if timed else ()),
        sa.Column(document, sa.JSON, nullable=False),
        sa.Column("tier", sa.SmallInteger, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
    )
