"""A project whose lock and stamped pipeline are there, so that upload and launch can be tried without building anything."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.kubeflow import OUTPUTS, PYTHON, specification, step, text
from trainshed import config
from trainshed.console import Console
from trainshed.pipelines import lock as locks
from trainshed.pipelines.stamp import stamp
from trainshed.settings import Tier
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.stages.survey import survey

DIGEST = "sha256:" + "1" * 64
REFERENCE = f"127.0.0.1:9/flows/train@{DIGEST}"
RATE = {"rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5}, "rows": {"parameterType": "NUMBER_INTEGER", "isOptional": True}}
METRICS = {"auc": {"parameterType": "NUMBER_DOUBLE"}}
UNSTAMPED = "component.invalid/train:unstamped"


class FlowProject:
    """The project in a folder, for the Kubeflow at an address; ``reference`` is the image of its one component."""

    def __init__(self, root: Path, address: str, *, reference: str = REFERENCE) -> None:
        self.root, self.reference = root, reference
        (root / "components" / "train").mkdir(parents=True)
        (root / "components" / "train" / "Dockerfile").write_text("FROM scratch\nCOPY train.py /\n")
        (root / "components" / "train" / "train.py").write_text("print('training')\n")
        (root / "pipeline_templates").mkdir()
        (root / "trainshed.toml").write_text(
            f'[project]\nname = "flows"\n[environments.local]\nregistry = "127.0.0.1:9/flows"\nkubeflow.host = "{address}"\n'
        )
        self.git("init", "-q", "-b", "main")
        self.template("training", "import sys; open(sys.argv[1], 'w').write('model'); open(sys.argv[2], 'w').write('0.9')")

    def git(self, *arguments: str) -> None:
        """Run git here, as nobody in particular."""
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(self.root), *identity, *arguments], check=True, capture_output=True)

    def commit(self) -> None:
        """Commit all there is."""
        (self.root / ".gitignore").write_text("build/\n.trainshed/\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "work")

    def template(
        self, name: str, program: str, steps: Mapping[str, Mapping[str, Any]] | None = None, *, language: tuple[str, str] = PYTHON
    ) -> None:
        """Write a pipeline template whose step ``train`` runs a program, with a model and a metric as outputs."""
        train = step(program, image=UNSTAMPED, outputs={**OUTPUTS, "parameters": METRICS}, language=language)
        spec = specification(name.replace("_", "-"), {"train": train, **(steps or {})}, RATE)
        (self.root / "pipeline_templates" / f"{name}.yaml").write_text(text(spec))

    @contextmanager
    def open(self, tier: Tier = Tier.LAPTOP) -> Iterator[Context]:
        """Yield the room of a command of a tier; what it told people is in ``context.console.stream``."""
        console = Console(io.StringIO(), live=False, color=False, root=self.root)
        context = Context(config=config.load(self.root / "trainshed.toml", environment="local"), console=console, tier=tier)
        try:
            yield context
        finally:
            context.close()

    def settle(self) -> None:
        """Write the lock and stamp every pipeline, as the stages before do."""
        with self.open() as context:
            image = locks.LockedImage(reference=self.reference, digest=self.reference.partition("@")[2], input_digest=DIGEST)
            images = {"train": image}
            plan_digest = survey(context, ["train"]).plan_digest(images)
            lock = locks.of(project="flows", commit=None, dirty=False, plan_digest=plan_digest, images=images)
            locks.write(locking.path(context), lock)
            folder = context.config.project.work_dir / "pipelines"
            folder.mkdir(parents=True, exist_ok=True)
            for template in (self.root / "pipeline_templates").glob("*.yaml"):
                (folder / f"{template.stem}.template.yaml").write_text(template.read_text())
                (folder / template.name).write_text(stamp(template.read_text(), lock.references, place=template.stem))


def told(context: Context) -> str:
    """Return what people saw."""
    stream = context.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()
