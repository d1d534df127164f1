"""Tasks as containers, as Kubernetes runs them: ENTRYPOINT replaced, the exit code waited for, nothing left behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainshed import owner

if TYPE_CHECKING:
    from docker.models.containers import Container

OWNER_LABEL = "io.trainshed.owner"
RUN_LABEL = "io.trainshed.run"
TASK_LABEL = "io.trainshed.task"
_TIMEOUT = 120


class ImageMissing(RuntimeError):
    """The image of a task can neither be found nor pulled."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A container to run. ``command`` replaces the image's ENTRYPOINT, ``arguments`` its CMD; empty keeps them.

    ``readable`` and ``writable`` are folders that the container sees under the same path.
    """

    task: str
    image: str
    command: Sequence[str] = ()
    arguments: Sequence[str] = ()
    environment: Mapping[str, str]
    readable: Iterable[Path] = ()
    writable: Iterable[Path] = ()
    log: Path


class Containers:
    """The containers of one run on one engine."""

    def __init__(self, engine: str | None, *, run_id: str, network: str = "none") -> None:
        import docker

        self._client = docker.DockerClient(base_url=engine, timeout=_TIMEOUT) if engine else docker.from_env(timeout=_TIMEOUT)
        self._run_id, self._network = run_id, network
        self._lock, self._ended = threading.Lock(), False

    def run(self, job: Job) -> int:
        """Run a container to its end and return its exit code; its output goes to the log as it comes.

        Raises:
            ImageMissing: there is no such image.
        """
        container = self._start(job)
        try:
            with job.log.open("ab") as log:
                for chunk in container.logs(stream=True, follow=True):
                    log.write(chunk)
                    log.flush()
            # The container is not removed by the engine on its own, so its exit code is there to be waited for.
            return int(container.wait()["StatusCode"])
        finally:
            _remove(container)

    def remove_all(self) -> None:
        """End and remove every container of the run; none is started afterwards."""
        with self._lock:
            self._ended = True
            found = self._client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={self._run_id}"}, ignore_removed=True)
        for container in found:
            _remove(container)

    def _start(self, job: Job) -> Container:
        import docker.errors

        self._ensure(job.image)
        mounts = {str(folder): {"bind": str(folder), "mode": "ro"} for folder in job.readable}
        mounts |= {str(folder): {"bind": str(folder), "mode": "rw"} for folder in job.writable}
        options: dict[str, Any] = {"entrypoint": list(job.command)} if job.command else {}
        labels = {OWNER_LABEL: owner.mark(), RUN_LABEL: self._run_id, TASK_LABEL: job.task}
        with self._lock:
            if self._ended:
                raise InterruptedError("the run was terminated")
            container = self._client.containers.create(
                job.image,
                command=list(job.arguments),
                environment=dict(job.environment),
                labels=labels,
                network_mode=self._network,
                volumes=mounts,
                **options,
            )
        try:
            container.start()
        except docker.errors.APIError:
            _remove(container)
            raise
        return container

    def _ensure(self, image: str) -> None:
        import docker.errors

        try:
            self._client.images.get(image)
        except docker.errors.ImageNotFound:
            try:
                self._client.images.pull(image)
            except docker.errors.APIError as error:
                raise ImageMissing(f"image {image} cannot be pulled: {error.explanation or error}") from error


def _remove(container: Container) -> None:
    import docker.errors

    with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
        container.remove(force=True, v=True)
