"""A project on disk with a real engine and registry: components are written, built, pushed, scanned and tested as the stages do it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trainshed import config
from trainshed.console import Console
from trainshed.images import components
from trainshed.images.components import Component
from trainshed.images.hashes import HashCache
from trainshed.images.inputs import Inputs, image_inputs
from trainshed.settings import Tier
from trainshed.stages.checks import build, test
from trainshed.stages.checks.build import Built
from trainshed.stages.checks.test import Tested
from trainshed.stages.context import Context

BASE = "python:3.11-slim-bookworm"
NORMALISED = f"docker.io/library/{BASE}"


@dataclass
class World:
    """A project whose environment ``ci`` has the registry at ``address``."""

    root: Path
    address: str
    context: Context
    log: Path
    made: set[str] = field(default_factory=set)

    def component(self, name: str, files: Mapping[str, str]) -> Component:
        """Write a component and return it as the stages see it."""
        for path, content in files.items():
            target = self.root / "components" / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        return components.discover(self.root / "components")[name]

    def inputs(self, component: Component) -> Inputs:
        """Take a component's inputs as they are now."""
        image = self.context.engine.image(BASE)
        assert image is not None
        return image_inputs(
            component,
            args=self.context.config.build.args,
            platforms=["linux/amd64"],
            secrets=[],
            bases={NORMALISED: image.id},
            hashes=HashCache(self.root / "hashes.json"),
        )

    def build(self, component: Component, *, again: Callable[[], Inputs] | None = None, copies: Mapping[str, str] | None = None) -> Built:
        """Build a component's image."""
        before = self.inputs(component)
        base = before.manifest["bases"][NORMALISED]
        return build.build_image(
            self.context,
            component,
            inputs=before,
            arguments=self.context.config.build.args,
            own={},
            pins={},
            copies={NORMALISED: base} if copies is None else copies,
            again=again or (lambda: self.inputs(component)),
            log=self.log,
        )

    def repository(self, component: Component) -> str:
        """Return a component's repository."""
        return f"{self.context.repository_prefix}/{component.name}"

    def push(self, component: Component, image: Built, *, tag: str | None = None) -> str:
        """Push an image under the tag of its inputs; return the digest that stands."""
        chosen = tag or f"in-{self.inputs(component).digest.removeprefix('sha256:')}"
        self.made.add(f"{self.repository(component)}:{chosen}")
        return build.push_image(self.context, image, repository=self.repository(component), tag=chosen, log=self.log)

    def pushed(self, component: Component) -> str:
        """Build and push; return the reference by digest."""
        return f"{self.repository(component)}@{self.push(component, self.build(component))}"

    def test(self, component: Component, reference: str) -> Tested:
        """Run a component's tests in its image."""
        return test.test_image(self.context, component, reference, arguments={}, own={}, pins={}, log=self.log)


@contextmanager
def world(root: Path, address: str, *, settings: str = "", aws: str = "") -> Iterator[World]:
    """Yield a fresh project; its images are removed from the engine at the end. With the address of ``aws`` the registry is ECR."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "components").mkdir(exist_ok=True)
    ecr = ', ecr = "123456789012/us-east-1"' if aws else ""
    text = f'[project]\nname = "world"\n{settings}\n[environments.ci]\nregistry = {{ url = "{address}/w"{ecr} }}\n'
    text += f'[environments.ci.aws]\nendpoint-url = "{aws}"\n' if aws else ""
    (root / "trainshed.toml").write_text(text)
    made = config.load(root / "trainshed.toml", environment="ci")
    context = Context(config=made, console=Console(stream=io.StringIO()), tier=Tier.LAPTOP)
    here = World(root=root, address=address, context=context, log=root / "build" / "logs" / "log")
    here.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield here
    finally:
        for reference in here.made:
            context.engine.remove_image(reference)
        context.engine.end_own()
        context.close()
