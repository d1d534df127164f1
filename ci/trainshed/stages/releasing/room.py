"""The two rooms of a release: that of the green build, and production, with a work folder of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

from trainshed import config, settings
from trainshed.config import Config
from trainshed.stages import trust
from trainshed.stages.context import Context
from trainshed.stages.policy import in_force

FOLDER = "release"


@dataclass(frozen=True, kw_only=True)
class Room:
    """``here`` is what the green build worked on, ``there`` is production: its stages write below ``<work-dir>/release``.

    ``ends`` is when the command gives up, on the monotonic clock; None: never.
    """

    here: Context
    there: Context
    ends: float | None = None

    @property
    def in_place(self) -> bool:
        """Tell whether both are one environment: nothing has to be promoted then."""
        return self.here.config.environment.name == self.there.config.environment.name

    @property
    def left(self) -> float | None:
        """Return the seconds that are left for all of it, None for any number."""
        return None if self.ends is None else max(0.0, self.ends - time.monotonic())


@contextmanager
def opened(context: Context, *, to: str | None, ends: float | None = None, keeps: bool = True) -> Iterator[Room]:
    """Open production's room beside the command's own, and close it after the block.

    Args:
        context: the command's room.
        to: production; ``release.environment`` by default, else the command's own environment.
        ends: when the command gives up.
        keeps: False for a dry run: neither room writes into the ledger.

    Raises:
        UsageError: no such environment, or it is closed to this run.
    """
    own = context.config
    name = to or own.release.environment or own.environment.name
    loaded = config.load(own.file, environment=name, overrides=settings.own(), policy=in_force(own.file))
    trust.require(loaded, context.tier)
    folder = own.project.work_dir / FOLDER
    moved = replace(loaded, project=replace(loaded.project, work_dir=folder))
    with ExitStack() as rooms:

        def room(config: Config) -> Context:
            return rooms.enter_context(closing(Context(config=config, console=context.console, tier=context.tier, keeps=keeps)))

        yield Room(here=context if keeps else room(own), there=room(moved), ends=ends)
