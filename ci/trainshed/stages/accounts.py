"""Whose account the work is done in: asked before anything is judged or changed there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainshed.errors import UsageError

if TYPE_CHECKING:
    from trainshed.config import Config
    from trainshed.stages.context import Context
    from trainshed.tools.aws import Identity

KEY = "aws.account"
STEP = "Use the credentials of the right account."


def mismatch(config: Config, asking: Identity) -> str:
    """Say that somebody is of another account than `aws.account`; empty when that is right, or not checked."""
    wanted = config.environment.aws.account
    if not wanted or asking.account == wanted:
        return ""
    return f"expected {wanted}, but the credentials are of {asking.account} ({asking.arn})"


def asking(context: Context) -> Identity:
    """Return who asks AWS in this environment.

    Raises:
        UsageError: it is somebody of another account than `aws.account`.
    """
    found = context.aws.identity()
    if what := mismatch(context.config, found):
        message = f"{context.config.file}: environments.{context.config.environment.name}.{KEY}: {what}"
        raise UsageError(message, next_step=STEP)
    return found
