"""A project with one service, and the room in which the stage deploy runs: a real ledger, a real lock, a scripted ECS."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.scripted_ecs import ScriptedEcs
from trainshed import config
from trainshed.console import Console
from trainshed.pipelines import lock as locks
from trainshed.results import Report, Result
from trainshed.settings import Tier
from trainshed.stages import deploy as deploying
from trainshed.stages import locking
from trainshed.stages import rollback as rolling
from trainshed.stages.context import Context
from trainshed.stages.survey import survey
from trainshed.tools.ecs import Ecs

SERVICE = """name: answer
port: 8080
count: 1
health: {path: /healthz, interval: 5s, timeout: 2s, retries: 3, start: 30s}
"""
GOLDEN = {"requests": [{"name": "twice", "path": "/predict", "body": {"x": 21}, "answer": {"twice": 42}}]}


class Images:
    """A registry that knows some references."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def digest(self, reference: str) -> str | None:
        """Return the digest of a known reference."""
        return self.known.get(reference)


class Desk:
    """One project, one scripted cluster."""

    def __init__(self, root: Path, ecs: ScriptedEcs, client: Ecs) -> None:
        self.root, self.ecs, self.client = root, ecs, client
        self.images, self.said = Images(), io.StringIO()
        self.write("trainshed.toml", '[project]\nname = "small"\n')
        self.write("components/answer/Dockerfile", "FROM scratch\nCOPY main.py /\n")
        self.write("components/answer/.dockerignore", "service.yaml\ngolden.json\n")
        self.write("components/answer/main.py", "")
        self.write("components/answer/golden.json", json.dumps(GOLDEN))
        self.service(SERVICE)
        self.context = self._context()
        self.build("1")

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def service(self, text: str) -> None:
        """Write the service."""
        self.write("components/answer/service.yaml", text)

    def build(self, digit: str) -> str:
        """Lock another image; return its digest."""
        digest = f"sha256:{digit * 64}"
        reference = f"127.0.0.1:5000/small/answer@{digest}"
        image = locks.LockedImage(reference=reference, digest=digest, input_digest=digest)
        plan = survey(self.context, ["answer"]).plan_digest()
        lock = locks.of(project="small", commit=None, dirty=False, plan_digest=plan, images={"answer": image})
        locks.write(locking.path(self.context), lock)
        self.images.known[reference] = digest
        return digest

    def deploy(self, *names: str, **options: Any) -> Report:
        """Run the stage, with a deadline that only a mistake of the script can reach."""
        return deploying.deploy(self.context, names, **{"deadline": 60.0, **options})

    def result(self, **options: Any) -> Result:
        """Run the stage; return its one result."""
        (found,) = self.deploy(**options).results
        return found

    def rollback(self, **options: Any) -> Result:
        """Go back; return the one result."""
        (found,) = rolling.rollback(self.context, **{"deadline": 60.0, **options}).results
        return found

    def keep(self) -> Callable[[], None]:
        """Return what brings ledger and cluster back to how they are now."""
        state, saved = self.context.config.project.state, self.root / "kept"
        self.reopen()
        if not self.context.has_ledger:
            state.mkdir(exist_ok=True)
        self.context.close()
        shutil.copytree(state, saved)
        cluster = copy.deepcopy(self.ecs.__dict__)

        def restore() -> None:
            self.context.close()
            shutil.rmtree(state)
            shutil.copytree(saved, state)
            self.ecs.__dict__.update(copy.deepcopy(cluster))
            self.context = self._context()

        self.context = self._context()
        return restore

    def reopen(self) -> None:
        """Read the configuration again."""
        self.context.close()
        self.context = self._context()

    def close(self) -> None:
        """Close what the context opened."""
        self.context.close()

    def _context(self) -> Context:
        loaded = config.load(self.root / "trainshed.toml", environment="local")
        context = Context(config=loaded, console=Console(self.said, root=self.root), tier=Tier.LAPTOP)
        context.__dict__ |= {"prediction": self.client, "registry": self.images}
        return context
