"""The tables of the ledger as they are now. How they came to be is in ``migrations/``; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, SmallInteger, String, Table
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _number() -> TypeEngine[int]:
    """Return a 64-bit number that SQLite, too, counts up by itself."""
    return BigInteger().with_variant(Integer(), "sqlite")


def _plain() -> TypeEngine[str]:
    """Return a text that is ordered by its bytes, as SQLite does: what begins alike is one range of its index."""
    return String().with_variant(String(collation="C"), "postgresql")


verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _number(), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("check_name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("component", String, nullable=False),
    Column("green", Boolean, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("details", JSON, nullable=False),
    Column("tier", SmallInteger, nullable=False),
    Column("created", Double, nullable=False),  # seconds since 1970, by the database's clock
    Index("ix_verdicts_digest", "digest", "check_name", "version"),
)

images = Table(
    "images",
    metadata,
    Column("id", _number(), primary_key=True),
    Column("component", String, nullable=False),
    Column("repository", String, nullable=False),
    Column("input_digest", String(71), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("tier", SmallInteger, nullable=False),
    Column("created", Double, nullable=False),
    Index("ix_images_component", "component", "repository"),
)

attachments = Table(
    "attachments",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("tier", SmallInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),  # zlib
    Column("created", Double, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("id", _number(), primary_key=True),
    Column("plan_digest", String(71), nullable=False),
    Column("commit_id", String, nullable=False),
    Column("branch", String, nullable=False),
    Column("document", JSON, nullable=False),
    Column("tier", SmallInteger, nullable=False),
    Column("created", Double, nullable=False),
    Index("ix_locks_commit_id", "commit_id"),
    Index("ix_locks_branch", "branch"),
)

events = Table(
    "events",
    metadata,
    Column("id", _number(), primary_key=True),
    Column("kind", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("name", String, nullable=False),
    Column("key", String, nullable=False),
    Column("document", JSON, nullable=False),
    Column("tier", SmallInteger, nullable=False),
    Column("created", Double, nullable=False),
    Index("ix_events_name", "kind", "environment", "name"),
)

leases = Table(
    "leases",
    metadata,
    Column("key", String, primary_key=True),
    Column("owner", String, nullable=False),  # `owner.mark()` of the holder
    Column("token", String, nullable=False),  # tells two holders of one process apart
    Column("expires", Double, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("key", BigInteger, primary_key=True, autoincrement=False),  # `graph.key_of` kind and id
    Column("label", _plain(), primary_key=True),  # each name of it is a row
    Column("tier", SmallInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("id", _plain(), nullable=False),
    Column("alias", Boolean, nullable=False),  # a further name, not the one that is shown
    Column("created", Double, nullable=False),
    Index("ix_nodes_id", "id"),
    Index("ix_nodes_label", "label"),
)

edges = Table(
    "edges",
    metadata,
    Column("source", BigInteger, primary_key=True, autoincrement=False),  # keys of nodes
    Column("relation", String, primary_key=True),
    Column("target", BigInteger, primary_key=True, autoincrement=False),
    Column("tier", SmallInteger, primary_key=True, autoincrement=False),
    Column("facts", JSON, nullable=False),
    Column("present", Boolean, nullable=False),  # false: a newer record takes it back
    Column("created", Double, nullable=False),
    Index("ix_edges_target", "target", "relation"),
    sqlite_with_rowid=False,
)
