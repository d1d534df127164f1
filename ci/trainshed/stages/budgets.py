"""How much runs side by side: within one command by the scheduler's budgets, between the commands of one machine by slots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from trainshed.stages.context import Context
from trainshed.tools import slots


def of(context: Context) -> dict[str, int]:
    """Return how many of each may run side by side: ``build.parallel`` of all, else as many as the machine bears."""
    told, cores = context.config.build.parallel, os.cpu_count() or 1
    return {"build": told or cores, "scan": told or max(2, cores), "test": told or cores, "compile": 1}


@contextmanager
def slot(context: Context, name: str, check: str) -> Iterator[None]:
    """Hold this machine's slot for a check while the work is really done; a verdict that is only looked up needs none."""
    count = of(context)[check]

    def tell() -> None:
        most = f"at most {count} at a time on this machine (build.parallel), and other commands have them all"
        context.console.line(f"{name}: the {check} waits for a slot: {most}")

    with slots.held(check, count, on_wait=tell):
        yield
