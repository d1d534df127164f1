"""Which environments a run may work on, by how far it can be trusted."""

from __future__ import annotations

from trainshed.config import Config
from trainshed.errors import UsageError
from trainshed.settings import Tier
from trainshed.values import TIERS

RUNS = {Tier.LAPTOP: "a run on a laptop or of a fork", Tier.PULL_REQUEST: "a run of a pull request or branch", Tier.MAIN: "a run of main"}


def allowed(config: Config, tier: Tier) -> list[str]:
    """Return the environments that such a run may work on."""
    return [name for name in config.environments if tier >= TIERS.index(config.values[f"environments.{name}.trust"])]


def require(config: Config, tier: Tier) -> None:
    """Refuse the environment of a configuration to a run that is trusted less than it asks.

    Raises:
        UsageError: with the environments that are open to it.
    """
    name, found = config.environment.name, allowed(config, tier)
    if name not in found:
        message = f"environment {name} is for {config.environment.trust} and above, and this is {RUNS[tier]}"
        raise UsageError(message, next_step=f"It may use: {', '.join(found)}." if found else "No environment is open to it.")
