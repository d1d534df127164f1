"""The scanners of one command: who is asked, with what patience, how many side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainshed.images.components import Component
from trainshed.stages import budgets
from trainshed.stages.checks import sources
from trainshed.stages.context import Context, opened

if TYPE_CHECKING:
    from trainshed.stages.checks.scanning import Answer
    from trainshed.tools.ecr_scans import EcrScans
    from trainshed.tools.trivy import Trivy


class Scanners:
    """Ask all sources that the policy names; thread-safe."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._turns = threading.Semaphore(budgets.of(context)["scan"])

    @property
    def asked(self) -> tuple[str, ...]:
        """Return the sources that are asked. Raises as `sources.asked`."""
        return sources.asked(self.context.config)

    @property
    def version(self) -> tuple[Sequence[str], Sequence[str], str]:
        """Return what a verdict depends on: who is asked, who must answer, and the version of Trivy; ECR's scans have none."""
        return self.asked, sources.required(self.context.config), self.trivy.version if sources.TRIVY in self.asked else ""

    @opened
    def trivy(self) -> Trivy:
        """Return the scanner; its server starts with the first scan."""
        from trainshed.tools.trivy import Trivy

        scan, registry = self.context.config.scan, self.context.config.environment.registry
        host = self.context.repository_prefix.partition("/")[0]
        return self.context.closing.enter_context(
            Trivy(
                self.context.config.project.state / "trivy",
                config=self.context.registry.config,
                repository=scan.trivy_db,
                max_db_age=scan.max_db_age,
                insecure=[host] if registry is None or registry.insecure else [],
                token=self.context.token,
            )
        )

    @opened
    def ecr(self) -> EcrScans | None:
        """Return ECR's scans; None where they are not asked for."""
        from trainshed.tools.ecr_scans import EcrScans

        ecr = self.context.ecr if sources.ECR in self.asked else None
        return None if ecr is None else EcrScans(ecr.aws, account=ecr.account)

    @contextmanager
    def asking(self, component: Component, reference: str) -> Iterator[Asking]:
        """Ask about an image during the block: ECR from now on, beside all else, Trivy when its turn has come."""
        from trainshed.stages.checks import scanning

        beside = nullcontext() if self.ecr is None else scanning.asking_ecr(self.context, component, reference, scans=self.ecr)
        with beside as ecr:
            yield Asking(scanners=self, component=component, reference=reference, ecr=ecr)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Hold a turn of this command and a slot of this machine: for what is work here, never for a wait for ECR."""
        with budgets.turn(self._turns), budgets.slot(self.context, name, "scan"):
            yield


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One image about which the sources are asked; ``ecr`` waits for its answer, None where it is not asked."""

    scanners: Scanners
    component: Component
    reference: str
    ecr: Callable[[], Answer] | None

    def trivy(self, log: Path) -> list[Answer]:
        """Have the image scanned here, by those of the sources that do that; ``log`` takes what they say."""
        from trainshed.stages.checks import scanning

        if sources.TRIVY not in self.scanners.asked:
            return []
        return [scanning.ask_trivy(self.scanners.context, self.component, self.reference, trivy=self.scanners.trivy, log=log)]

    def all(self, here: Sequence[Answer]) -> list[Answer]:
        """Add ECR's answer to those from here; it is not waited for once there can be no verdict."""
        required = sources.required(self.scanners.context.config)
        hopeless = any(answer.error and answer.source in required for answer in here)
        return [*here, *([self.ecr()] if self.ecr is not None and not hopeless else [])]
