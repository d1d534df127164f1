"""Image builds through the engine's own client: the one door to BuildKit that needs nothing but what an agent has."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainshed import settings
from trainshed.errors import RemoteError, ToolMissing
from trainshed.tools import credentials, process
from trainshed.tools.credentials import Login

_WITHOUT_PLUGIN = 23  # from this major version on, the client needs the buildx plugin for BuildKit
_PROBE_SECONDS = 20.0
_MEND = "Install Docker's buildx plugin, or Debian's docker.io package."
_AWAY = ("cannot connect to the docker daemon", "error during connect", "is the docker daemon running")


@dataclass(frozen=True, kw_only=True)
class Order:
    """One build.

    ``context`` is a tar (a folder would let BuildKit reuse a replaced file of the same size and time); ``dockerfile`` is its
    name in there; ``secrets`` maps ids to files, and ``masked`` are the texts of theirs that no log may hold; ``logins`` are those of
    registries by host that the client does not find by itself; ``timeout`` in seconds.
    """

    context: Path
    dockerfile: str
    tag: str
    log: Path
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    masked: Sequence[str] = field(default=(), repr=False)
    logins: Mapping[str, Login] = field(default_factory=dict)
    platform: str = ""
    timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class BuildClient:
    """A client that builds. ``instance`` is the buildx builder, empty for the engine's own; ``buildkit`` False is the classic builder."""

    program: str
    version: str
    buildkit: bool
    buildx: bool
    engine_host: str
    instance: str = ""

    @classmethod
    def probe(cls, builder: str = "auto", *, engine_host: str, path: str | None = None) -> BuildClient:
        """Try every ``docker`` on PATH and take the first that can build with BuildKit, else the first at all.

        Args:
            builder: ``auto`` or ``docker`` for the engine's own BuildKit, ``buildx:<name>`` for another.
            engine_host: the engine, as in ``DOCKER_HOST``.
            path: where to look instead of ``PATH``.

        Raises:
            ToolMissing: there is no client, or none that fits.
        """
        instance = builder.partition(":")[2]
        found = [cls._asked(program, engine_host, instance) for program in _programs(path or settings.search_path())]
        fitting = [client for client in found if client.buildx] if instance else [client for client in found if client.buildkit] or found
        if not fitting:
            wanted = f"the builder {builder} needs the buildx plugin" if instance else "no docker client was found on PATH"
            raise ToolMissing(wanted, next_step=_MEND)
        return fitting[0]

    @classmethod
    def _asked(cls, program: str, engine_host: str, instance: str) -> BuildClient:
        said = process.run([program, "--version"], timeout=_PROBE_SECONDS, check=False).output
        match = re.search(r"version (\d+)([\w.+~-]*)", said)
        major, version = (int(match[1]), match[1] + match[2]) if match else (0, "unknown")
        buildx = process.run([program, "buildx", "version"], timeout=_PROBE_SECONDS, check=False).code == 0
        buildkit = buildx or 18 < major < _WITHOUT_PLUGIN  # noqa: PLR2004 - BuildKit came with 18.09
        return cls(program=program, version=version, buildkit=buildkit, buildx=buildx, engine_host=engine_host, instance=instance)

    def described(self) -> str:
        """Return one line for `doctor`: program, version, and which builder."""
        kind = "buildx" if self.buildx else "BuildKit" if self.buildkit else "the classic builder, without secrets and cache mounts"
        return f"{self.program} {self.version} ({kind}{f' {self.instance}' if self.instance else ''})"

    def build(self, order: Order) -> str:
        """Build an image, tag it and return its id.

        Raises:
            process.ProcessFailed: the build failed or took too long.
            RemoteError: the engine went away.
            Interrupted: SIGTERM or SIGINT arrived.
        """
        lent = credentials.lent(order.logins, within=order.context.parent)
        with tempfile.TemporaryDirectory() as folder, order.context.open("rb") as context, lent as variables:
            iid = Path(folder, "iid")
            try:
                process.run(
                    self.arguments(order, iid),
                    log=order.log,
                    stdin=context,
                    environment={**self.environment(), **variables},
                    timeout=order.timeout,
                    secrets=order.masked,
                )
            except process.ProcessFailed as error:
                if any(word in error.outcome.output.lower() for word in _AWAY):
                    message = f"{order.tag}: the engine at {self.engine_host} went away during the build"
                    raise RemoteError(message, next_step="Run `trainshed doctor`, then again.") from error
                raise
            return iid.read_text(encoding="utf-8").strip()

    def arguments(self, order: Order, iid: Path) -> list[str]:
        """Return the command of a build; it holds no secret's value."""
        start = [self.program, "build"]
        if self.buildx:
            # No provenance: it breaks scans of some registries and gives the same inputs another digest at each run.
            start = [self.program, "buildx", "build", "--load", "--provenance=false", "--sbom=false"]
            start += ["--builder", self.instance] if self.instance else []
        return [
            *start,
            *(["--progress", "plain"] if self.buildkit else ["--force-rm"]),
            *("--iidfile", str(iid), "--file", order.dockerfile, "--tag", order.tag),
            *(["--target", order.target] if order.target else []),
            *(["--platform", order.platform] if order.platform and self.buildkit else []),
            *_repeated("--build-arg", [*(f"{name}={value}" for name, value in sorted(order.args.items())), *_proxies()]),
            *(_repeated("--secret", [f"id={name},src={file}" for name, file in sorted(order.secrets.items())]) if self.buildkit else []),
            "-",
        ]

    def environment(self) -> dict[str, str]:
        """Return what the client is told through its environment."""
        return {"DOCKER_HOST": self.engine_host, "DOCKER_BUILDKIT": "1" if self.buildkit else "0", "BUILDKIT_PROGRESS": "plain"}


def _programs(path: str) -> list[str]:
    found: dict[Path, str] = {}
    for folder in path.split(":"):
        program = Path(folder or ".", "docker")
        if program.is_file():
            found.setdefault(program.resolve(), str(program))
    return list(found.values())


def _proxies() -> Iterator[str]:
    """Name the proxy variables without values: the client takes those from its environment, past command line and image."""
    yield from sorted(settings.proxies())


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
