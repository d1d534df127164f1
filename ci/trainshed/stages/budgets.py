"""How much runs side by side: within one command by the scheduler's budgets, between the commands of one machine by slots."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from trainshed.stages.checks import sources
from trainshed.stages.context import Context
from trainshed.tools import process, slots


def of(context: Context) -> dict[str, int]:
    """Return how many of each may run side by side: ``build.parallel`` of all, else as many as the machine bears."""
    told, cores = context.config.build.parallel, os.cpu_count() or 1
    return {"build": told or cores, "scan": told or max(2, cores), "test": told or cores, "compile": 1}


def scheduled(context: Context, *, images: int) -> dict[str, int]:
    """Return how many may be under way: as `of`, but of scans as many as there are images where these mostly wait for ECR."""
    own = of(context)
    return {**own, "scan": max(own["scan"], images)} if sources.ECR in sources.asked(context.config) else own


@contextmanager
def turn(turns: threading.Semaphore) -> Iterator[None]:
    """Hold one of the turns of this command during the block; only then ask for a slot, for which others may be waiting."""
    while not turns.acquire(timeout=process.POLL_SECONDS):
        process.pause(0.0)
    try:
        yield
    finally:
        turns.release()


@contextmanager
def slot(context: Context, name: str, check: str) -> Iterator[None]:
    """Hold this machine's slot for a check while the work is really done; a verdict that is only looked up needs none."""
    count = of(context)[check]

    def tell() -> None:
        most = f"at most {count} at a time on this machine (build.parallel), and other commands have them all"
        context.console.line(f"{name}: the {check} waits for a slot: {most}")

    with slots.held(check, count, on_wait=tell):
        yield
