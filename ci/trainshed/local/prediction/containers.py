"""The containers of the tasks, on the engine of this machine, each published on a port of loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from trainshed.local.prediction.records import Task

OWNER_LABEL = "io.trainshed.prediction"
TASK_LABEL = "io.trainshed.prediction.task"
_ENGINE_SECONDS = 120
_MEBIBYTE = 1024 * 1024


class CannotStartError(Exception):
    """A task's container could not be started; the text begins as ECS's own: ``CannotPullContainerError: …``."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What a container does. ``present`` is False when the engine does not know it."""

    present: bool
    running: bool = False
    exit_code: int | None = None
    reason: str = ""


class Containers:
    """The engine, as the embedded Prediction Service uses it.

    Args:
        engine: its address; empty for the default socket.
        identity: of this service's state: on the label of every container that it starts.
    """

    def __init__(self, engine: str, identity: str) -> None:
        self._identity = identity
        self._api = docker.APIClient(base_url=engine or None, version="auto", timeout=_ENGINE_SECONDS)

    def start(self, task: Task, definition: Mapping[str, Any], created: Callable[[str, str], None]) -> int:
        """Start a task's container; return its port on loopback, 0 when it has none.

        ``created`` is told the container's id and its image's digest before it runs, so that no crash leaves an unknown one.

        Raises:
            CannotStartError: with the reason that ECS would give.
        """
        container = definition["containerDefinitions"][0]
        digest = self._pulled(task.image)
        try:
            identity = self._create(task, definition, container)
            created(identity, digest)
            self._api.start(identity)
            return self._port(identity)
        except (DockerException, RequestException) as error:
            raise CannotStartError(f"CannotStartContainerError: {_said(error)}") from error

    def state(self, identity: str) -> State:
        """Look at a container. An engine that gives no answer leaves the judgement to the health check."""
        try:
            found = self._api.inspect_container(identity)["State"]
        except NotFound:
            return State(present=False)
        except (DockerException, RequestException):
            return State(present=True, running=True)
        if found["Running"]:
            return State(present=True, running=True)
        reason = "OutOfMemoryError: Container killed due to memory usage" if found.get("OOMKilled") else found.get("Error", "")
        return State(present=True, exit_code=found.get("ExitCode"), reason=reason)

    def port(self, identity: str) -> int:
        """Return the port on loopback of a running container, 0 when it has none."""
        return self._port(identity)

    def execute(self, identity: str, command: list[str]) -> bool:
        """Run a health check's command inside of a container; tell whether it ended with 0."""
        kind, *rest = command
        arguments = ["/bin/sh", "-c", *rest] if kind == "CMD-SHELL" else rest if kind == "CMD" else command
        try:
            run = self._api.exec_create(identity, arguments)["Id"]
            self._api.exec_start(run)
            return bool(self._api.exec_inspect(run)["ExitCode"] == 0)
        except (DockerException, RequestException):
            return False

    def tail(self, identity: str, lines: int = 200) -> bytes:
        """Return the last lines that a container wrote; nothing when it is gone."""
        try:
            return bytes(self._api.logs(identity, stdout=True, stderr=True, tail=lines))
        except (DockerException, RequestException):
            return b""

    def stop(self, identity: str, grace: int) -> None:
        """Send SIGTERM, and SIGKILL after ``grace`` seconds; a container that is gone is fine."""
        with contextlib.suppress(DockerException, RequestException):
            self._api.stop(identity, timeout=grace)

    def remove(self, identity: str) -> None:
        """Remove a container, running or not; one that is gone is fine."""
        with contextlib.suppress(DockerException, RequestException):
            self._api.remove_container(identity, force=True, v=True)

    def ours(self) -> dict[str, str]:
        """Return all containers of this service: id → task."""
        try:
            found = self._api.containers(all=True, filters={"label": f"{OWNER_LABEL}={self._identity}"})
        except (DockerException, RequestException):
            return {}
        return {container["Id"]: container["Labels"].get(TASK_LABEL, "") for container in found}

    def _pulled(self, image: str) -> str:
        """Make sure that the image is on the engine; return its digest."""
        try:
            try:
                found = self._api.inspect_image(image)  # type: ignore[no-untyped-call]
            except ImageNotFound:
                self._pull(image)
                found = self._api.inspect_image(image)  # type: ignore[no-untyped-call]
        except (DockerException, RequestException) as error:
            said = f"pull image manifest has been retried 1 time(s): failed to resolve ref {image}: {_said(error)}"
            raise CannotStartError(f"CannotPullContainerError: {said}") from error
        repository, _, digest = image.partition("@")
        known = [entry.partition("@")[2] for entry in found.get("RepoDigests") or () if not digest or entry.startswith(f"{repository}@")]
        return digest if digest in known else next(iter(known), str(found["Id"]))

    def _pull(self, image: str) -> None:
        repository, _, digest = image.partition("@")
        tag = digest or (repository.rpartition(":")[2] if ":" in repository.rpartition("/")[2] else "latest")
        name = repository if digest else repository.removesuffix(f":{tag}")
        for line in self._api.pull(name, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise DockerException(line["error"])

    def _create(self, task: Task, definition: Mapping[str, Any], container: Mapping[str, Any]) -> str:
        numbers = [int(mapping["containerPort"]) for mapping in container.get("portMappings", [])]
        ports: dict[int | str, Any] = {f"{number}/tcp": ("127.0.0.1",) for number in numbers}
        places = {volume["name"]: volume.get("host", {}).get("sourcePath") for volume in definition.get("volumes", [])}
        mounts = [
            docker.types.Mount(
                target=mount["containerPath"],
                source=places[mount["sourceVolume"]],
                type="bind" if places[mount["sourceVolume"]] else "volume",
                read_only=bool(mount.get("readOnly")),
            )
            for mount in container.get("mountPoints", [])
        ]
        memory = int(container.get("memory") or definition.get("memory") or 0)
        host = self._api.create_host_config(
            port_bindings=ports,
            mounts=mounts,
            mem_limit=memory * _MEBIBYTE or None,
            memswap_limit=memory * _MEBIBYTE or None,  # no swap on Fargate: a task that needs more is killed
            cpu_shares=int(definition.get("cpu") or 0) or None,
            read_only=bool(container.get("readonlyRootFilesystem")),
            log_config=docker.types.LogConfig(type="json-file", config={"max-size": "10m"}),
        )
        environment = {variable["name"]: variable["value"] for variable in container.get("environment", [])}
        created = self._api.create_container(
            image=task.image,
            command=container.get("command") or None,
            entrypoint=container.get("entryPoint") or None,
            environment=environment,
            user=container.get("user") or None,
            working_dir=container.get("workingDirectory") or None,
            ports=[(number, "tcp") for number in numbers],
            labels={**container.get("dockerLabels", {}), OWNER_LABEL: self._identity, TASK_LABEL: task.id},
            name=f"trainshed-{task.service}-{task.id[:12]}",
            host_config=host,
            use_config_proxy=False,
        )
        return str(created["Id"])

    def _port(self, identity: str) -> int:
        published = self._api.inspect_container(identity)["NetworkSettings"]["Ports"] or {}
        bound = [binding for bindings in published.values() for binding in bindings or ()]
        return int(bound[0]["HostPort"]) if bound else 0


def _said(error: Exception) -> str:
    if isinstance(error, APIError):
        return str(error.explanation or error).strip()
    return str(error).strip() or type(error).__name__
