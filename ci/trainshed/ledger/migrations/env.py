"""What Alembic runs: the steps, on the connection that `migrations.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from trainshed.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
