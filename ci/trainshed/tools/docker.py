"""The container engine by its API: images, pushes, and containers that are labelled with who started them, so that none is left.

Builds are not here: the SDK speaks the classic builder only, see `trainshed.tools.builder`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trainshed import owner, settings
from trainshed.errors import Interrupted, RemoteError, ToolMissing, TrainshedError, WorkFailed
from trainshed.images import references
from trainshed.tools import credentials, docker_archive, process, registry

if TYPE_CHECKING:
    import docker

    from trainshed.tools.credentials import Login

OWNER_LABEL = "io.trainshed.owner"
TEMPORARY = "trainshed.invalid"
"""The registry part of tags that mark an image as somebody's unfinished work; nothing can be pulled from there."""

DEFAULT_HOST = "unix:///var/run/docker.sock"
_CALL_SECONDS = 120
_PUSHES = 5
_FINAL = (
    *("denied", "unauthorized", "no basic auth", "authentication required", "forbidden"),
    *("immutable", "name unknown", "does not exist", "quota", "maximum allowed", "limit exceeded"),
)
_RAN_OUT = "token has expired"  # what ECR says behind "denied": the next try takes a new one
_SETTLE_SECONDS, _LOG_SECONDS, _LEAST_SECONDS = 3.0, 10.0, 0.1


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """An image of the engine. ``config`` is the engine's own (``User``, ``Cmd``, ``Env``…); ``layers`` are digests, the lowest first."""

    id: str
    config: Mapping[str, Any]
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A bind mount: a folder or file of the engine's machine; read-only unless said otherwise."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run in a container.

    ``network`` is ``none``, ``bridge``, …; ``memory`` as Docker writes it (``512m``), empty for no limit; ``timeout`` in seconds;
    ``collect`` maps folders of the container, made before the start and open to any user, to the folders that take their files
    after the end.
    """

    image: str
    name: str
    log: Path
    command: Sequence[str] | None = None
    network: str = "none"
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    memory: str = ""
    timeout: float | None = None
    user: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    collect: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a container ended; ``seconds`` is wall time."""

    code: int
    seconds: float
    timed_out: bool = False
    oom: bool = False


class Engine:
    """A connection to an engine; thread-safe, a context manager. Make it with `connect`."""

    def __init__(
        self, api: docker.APIClient, host: str, version: str, *, login: Callable[[str], Login | None] = credentials.lookup
    ) -> None:
        self._api, self.host, self.version = api, host, version
        self._login = login
        self._in_flight = 0
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, host: str | None = None, *, login: Callable[[str], Login | None] = credentials.lookup) -> Engine:
        """Connect to the engine at ``host`` (as in ``DOCKER_HOST``); None takes the client's default.

        Args:
            host: the engine's address.
            login: finds the log-in of a registry's host; by default Docker's own.

        Raises:
            ToolMissing: it cannot be reached or is too old.
        """
        import docker
        import docker.utils

        address = host or settings.docker_host() or DEFAULT_HOST
        try:
            _knock(address)
            options: dict[str, Any] = {**docker.utils.kwargs_from_env(), "base_url": address}
            api = docker.APIClient(**options, version="auto", timeout=_CALL_SECONDS, max_pool_size=32)
            version = str(api.version()["Version"])
        except (docker.errors.DockerException, OSError) as error:
            message = f"no container engine answers at {address}: {_refusal(error)}"
            raise ToolMissing(message, next_step="Start it, or run `trainshed doctor` to see what is missing.") from error
        return cls(api, address, version, login=login)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def info(self) -> Mapping[str, Any]:
        """Return what the engine says of itself (``DockerRootDir``, ``NCPU``, ``MemTotal``…)."""
        with self._asking("the engine's state"):
            return dict(self._api.info())

    def image(self, reference: str) -> ImageInfo | None:
        """Return an image by id or reference, None when the engine does not hold it."""
        import docker

        with self._asking(reference):
            try:
                found = self._api.inspect_image(reference)  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                return None
        return ImageInfo(
            id=found["Id"],
            config=found.get("Config") or {},
            layers=tuple((found.get("RootFS") or {}).get("Layers") or ()),
        )

    def tag(self, image: str, reference: str) -> None:
        """Give an image one more name."""
        name, _, tag = reference.rpartition(":")
        with self._asking(reference):
            self._api.tag(image, name, tag, force=True)

    def remove_image(self, reference: str, *, force: bool = False) -> None:
        """Remove a name (the image with its last one); nothing happens when it is gone or in use."""
        import docker

        with self._asking(reference), contextlib.suppress(docker.errors.NotFound):
            try:
                self._api.remove_image(reference, force=force)
            except docker.errors.APIError as error:
                if error.status_code != 409:  # noqa: PLR2004 - conflict: in use
                    raise

    def push(self, reference: str, *, present: Callable[[], str | None] = lambda: None) -> str:
        """Push a tag and return the digest that it then has.

        Two pushes of one image at once can end with "blob unknown" or "digest invalid" of the registry: repeated with pauses.

        Args:
            present: asks whether the tag exists by now; its digest is then taken instead of one more try.

        Raises:
            RemoteError: the push failed, for good or too often.
        """
        for attempt in range(_PUSHES):
            try:
                return self._push(reference)
            except RemoteError as error:
                found = present()
                if found is not None:
                    return found
                if attempt == _PUSHES - 1 or _final(error.message.removeprefix(f"push of {reference}: ")):
                    raise
                process.pause(0.25 * 2.0**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - spreads clients, hides nothing
        raise AssertionError("the last attempt returns or raises")

    def pull(self, reference: str) -> ImageInfo:
        """Pull an image and return it.

        Raises:
            RemoteError: it cannot be pulled.
        """
        what = f"pull of {reference}"

        def transfer() -> None:
            _transfer(what, self._api.pull(reference, stream=True, decode=True, auth_config=self._auth(reference)))

        with self._asking(what):
            process.interruptible(transfer)
        found = self.image(reference)
        if found is None:
            raise RemoteError(f"{reference}: pulled, and yet not there", next_step="Run again.")
        return found

    def run(self, job: Job) -> Exit:
        """Run a container to its end, copy its output to the log as it comes, and remove it.

        Raises:
            RemoteError: the engine failed.
            WorkFailed: the container could not be started (no such command or user).
            Interrupted: SIGTERM or SIGINT arrived; the container is gone.
        """
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with self._asking(job.name):
            container = process.interruptible(lambda: self._create(job))
            try:
                return self._watch(job, container)
            finally:
                self._remove(container)

    @contextlib.contextmanager
    def labelled_copy(self, image: str) -> Iterator[str]:
        """Yield the name of a copy of an image with our label, for tools that cannot label the containers that they start."""
        found = self.image(image)
        if found is None:
            raise WorkFailed(f"{image}: the engine does not hold this image", next_step="Build it again.")
        runnable = bool(found.config.get("Cmd") or found.config.get("Entrypoint"))
        job = Job(image=found.id, name="copy", log=Path(), command=None if runnable else ["none"])
        with self._asking(image):
            container = self._create(job)
            try:
                changes = [f'LABEL {OWNER_LABEL}="{owner.mark()}"', *([] if runnable else ["CMD []"])]
                # With a name of its own: an image without one goes with the first child that somebody removes.
                name, tag = temporary_tag(f"copy-{secrets.token_hex(4)}").rsplit(":", 1)
                self._api.commit(container, name, tag, changes=changes)
                copy = f"{name}:{tag}"
            finally:
                self._remove(container)
        try:
            yield copy
        finally:
            with contextlib.suppress(TrainshedError):  # what is left bears our label: `sweep` finds it
                self.remove_image(copy, force=True)

    def sweep(self) -> list[str]:
        """Remove the containers and unfinished images of dead owners on this machine; return their names."""
        return self._clear(owner.left_behind, lambda tag: _tag_alive(tag) is False)

    def end_own(self) -> list[str]:
        """Remove the containers and unfinished images of this process, also one that the engine is just about to create."""
        ends = time.monotonic() + _SETTLE_SECONDS
        while self._in_flight and time.monotonic() < ends:
            time.sleep(process.POLL_SECONDS)
        mine = owner.mark()
        own_tag = _own_tag()
        return self._clear(lambda mark: mark == mine, lambda tag: tag == own_tag)

    def _push(self, reference: str) -> str:
        digests: list[str] = []

        def note(event: Mapping[str, Any]) -> None:
            digest = (event.get("aux") or {}).get("Digest")
            if digest:
                digests.append(str(digest))

        what = f"push of {reference}"
        name, _, tag = reference.rpartition(":")

        def transfer() -> None:
            _transfer(what, self._api.push(name, tag, stream=True, decode=True, auth_config=self._auth(reference)), note)

        with self._asking(what):
            process.interruptible(transfer)
        if not digests:
            raise RemoteError(f"{what}: the engine named no digest", next_step="Run again.")
        return digests[-1]

    def _auth(self, reference: str) -> dict[str, str] | None:
        login = self._login(references.parse(reference).host)
        if login is None:
            return None
        if login.identity_token:
            return {"identitytoken": login.identity_token}
        return {"username": login.username, "password": login.password}

    def _create(self, job: Job) -> str:
        with self._lock:
            self._in_flight += 1
        try:
            created = self._api.create_container(
                job.image,
                list(job.command) if job.command is not None else None,
                name=f"trainshed-{job.name}-{secrets.token_hex(4)}",
                environment=dict(job.environment),
                labels={**job.labels, OWNER_LABEL: owner.mark()},
                user=job.user,
                host_config=self._api.create_host_config(
                    network_mode=job.network,
                    binds=[f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}" for mount in job.mounts],
                    mem_limit=job.memory or None,
                    memswap_limit=job.memory or None,
                    security_opt=["no-new-privileges"],
                ),
            )
            container = str(created["Id"])
            if process.stopping.is_set():  # who asked for it is gone
                self._remove(container)
                raise Interrupted("interrupted")
            return container
        finally:
            with self._lock:
                self._in_flight -= 1

    def _watch(self, job: Job, container: str) -> Exit:
        import docker

        if job.collect:
            self._api.put_archive(container, "/", docker_archive.open_folders(job.collect))
        started = time.monotonic()
        try:
            process.interruptible(lambda: self._api.start(container))
        except docker.errors.APIError as error:
            if error.is_client_error():
                raise WorkFailed(f"{job.name}: the container cannot start: {_brief(error)}") from error
            raise
        follower = threading.Thread(target=self._follow, args=(container, job.log), daemon=True)
        follower.start()
        timed_out = not self._wait(container, job.timeout)
        if timed_out:
            with contextlib.suppress(docker.errors.APIError):  # ended a moment ago by itself
                self._api.kill(container)
            self._wait(container, _LOG_SECONDS)
        seconds = time.monotonic() - started
        follower.join(_LOG_SECONDS)
        state = self._api.inspect_container(container)["State"]
        for folder, into in job.collect.items():
            chunks, _ = self._api.get_archive(container, folder)
            docker_archive.take_files(chunks, into)
        return Exit(code=int(state["ExitCode"]), seconds=seconds, timed_out=timed_out, oom=bool(state.get("OOMKilled")))

    def _wait(self, container: str, timeout: float | None) -> bool:
        """Wait until a container has ended; False when the time ran out first."""
        import requests

        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if ends is None else max(_LEAST_SECONDS, ends - time.monotonic())
            try:
                process.interruptible(lambda left=left: self._api.wait(container, timeout=left))  # type: ignore[misc]
            except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError):
                # The time ran out, or the connection broke: only the clock tells them apart.
                if not self._api.inspect_container(container)["State"]["Running"]:
                    return True
                if ends is not None and time.monotonic() >= ends:
                    return False
                process.pause(process.POLL_SECONDS)
            else:
                return True

    def _follow(self, container: str, log: Path) -> None:
        import docker
        import requests

        with log.open("ab") as out, contextlib.suppress(docker.errors.APIError, requests.exceptions.RequestException):
            for chunk in self._api.logs(container, stream=True, follow=True):
                out.write(chunk)
                out.flush()

    def _remove(self, container: str) -> None:
        import docker
        import requests

        # Gone, or just going: either is what we want; what the engine keeps bears our label.
        with contextlib.suppress(docker.errors.APIError, requests.exceptions.RequestException):
            self._api.remove_container(container, force=True, v=True)

    def _clear(self, mark_wanted: Callable[[str], bool], tag_wanted: Callable[[str], bool]) -> list[str]:
        removed = []
        with self._asking("the sweep of what was left behind"):
            for container in self._api.containers(all=True, filters={"label": OWNER_LABEL}):
                if mark_wanted(container["Labels"][OWNER_LABEL]):
                    self._remove(container["Id"])
                    removed.append(str((container.get("Names") or [container["Id"]])[0]).lstrip("/"))
            for image in self._api.images():
                mark = (image.get("Labels") or {}).get(OWNER_LABEL)
                if mark is not None and mark_wanted(mark):
                    self.remove_image(image["Id"], force=True)
                    removed.append(image["Id"])
                    continue
                for tag in image.get("RepoTags") or ():
                    if tag.startswith(f"{TEMPORARY}/") and tag_wanted(tag.rpartition(":")[2]):
                        self.remove_image(tag)
                        removed.append(tag)
        return removed

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn the libraries' errors into ours."""
        import docker
        import requests

        try:
            yield
        except docker.errors.DockerException as error:
            raise RemoteError(f"{what}: the engine says: {_brief(error)}", next_step="Run `trainshed doctor`, then again.") from error
        except (requests.exceptions.RequestException, OSError) as error:
            message = f"{what}: the engine at {self.host} does not answer ({type(error).__name__})"
            raise RemoteError(message, next_step="Run `trainshed doctor`, then again.") from error


def _knock(address: str) -> None:
    """Try a unix socket before the SDK does, which leaves its end open when nobody answers."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CALL_SECONDS)
            probe.connect(address.removeprefix("unix://"))


def temporary_tag(name: str) -> str:
    """Return a tag that marks an image as unfinished work of this process; `Engine.sweep` removes it once the process is dead."""
    return f"{TEMPORARY}/{name}:{_own_tag()}"


def _own_tag() -> str:
    return f"{_machine()}-{owner.mark().partition(':')[2].replace(':', '-')}"


def _machine() -> str:
    return hashlib.sha256(owner.machine().encode()).hexdigest()[:16]


def _tag_alive(tag: str) -> bool | None:
    machine, _, rest = tag.partition("-")
    return owner.alive(f"{owner.host()}:{rest.replace('-', ':')}") if machine == _machine() else None


def _transfer(what: str, events: Iterator[Any], note: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
    """Read a push or pull to its end, whatever comes, so that its connection is given back; its errors come as events."""
    said = ""
    for event in events:
        said = said or str(event.get("error", "")).strip()
        note(event)
    if said:
        unknown = "name unknown" in said.lower() and what.startswith("push")
        step = registry.ENSURE if unknown else "Check the registry and the log-in, then run again."
        raise RemoteError(f"{what}: {said[:500]}", next_step=step)


def _final(said: str) -> bool:
    """Tell whether a registry's refusal stays one: a permission, a quota or a tag that is taken does, too many requests do not."""
    lowered = said.lower()
    return _RAN_OUT not in lowered and any(word in lowered for word in _FINAL)


def _refusal(error: BaseException) -> str:
    """Return the system's own word for a failed connection, without the layers that the SDK puts around it."""
    found = re.search(r"\[Errno -?\d+\] ([A-Za-z ]+)", str(error))
    return found[1] if found else _brief(error)


def _brief(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None)
    text = str(explanation or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
