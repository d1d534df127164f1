"""The steps from each schema of the ledger to the next. Alembic is imported only when there is a step to take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0002"
KNOWN = frozenset({"0001", "0002"})


def upgrade(connection: Connection) -> None:
    """Bring the schema to `HEAD` inside the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
