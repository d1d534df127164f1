"""Real repositories with a project in them: clones whose versions are told, and servers that want a token."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.repositories import Repository
from trainshed import config
from trainshed.console import Console
from trainshed.releases.plan import Before, Plan, UnitVersion
from trainshed.results import Report
from trainshed.settings import Tier
from trainshed.stages import versioning
from trainshed.stages.context import Context
from trainshed.stages.releasing import journal
from trainshed.stages.releasing.room import Room
from trainshed.stages.version import version

CONFIGURATION = '[project]\nname = "small"\n'
_LEAKING = ("GIT_", "BUILD_", "CHANGE_", "BRANCH_", "TAG_", "TRAINSHED_")


class Clone(Repository):
    """A clone with a project in it, and the rooms of commands that run there."""

    tier = Tier.LAPTOP

    def context(self) -> Context:
        self.told = io.StringIO()
        loaded = config.load(self.root / "trainshed.toml", environment="local")
        context = Context(config=loaded, console=Console(self.told, root=self.root), tier=self.tier)
        self.opened = [*getattr(self, "opened", []), context]
        return context

    def room(self) -> Room:
        context = self.context()
        return Room(here=context, there=context)

    def close(self) -> None:
        for context in getattr(self, "opened", []):
            context.close()

    def version(self, *names: str, **options: Any) -> str:
        """Return what `trainshed version` tells of one unit."""
        return str(self.report(*names, **options).results[0].details["version"])

    def report(self, *names: str, **options: Any) -> Report:
        return version(self.context(), names, **options)

    def planned(self, *names: str, **options: Any) -> list[UnitVersion | None]:
        """Return the versions that a release would give."""
        return [plan.unit_version() for plan in versioning.planned(self.context(), names, **options)]

    def next(self) -> str | None:
        """Return the version that a release would give the repository."""
        [unit] = self.planned()
        return None if unit is None else unit.version

    def tag(self, name: str, commit: str = "HEAD") -> None:
        self.git("tag", "--annotate", "--message", name, name, commit)
        self.git("push", "--quiet", "origin", f"refs/tags/{name}")

    def plan(self, *tags: str, commit: str = "") -> Plan:
        versions = tuple(
            UnitVersion(unit=tag.rpartition("/v")[0], version=tag.rpartition("v")[2], tag=tag, previous="", bump="minor") for tag in tags
        )
        return Plan(
            id=f"plan of {' '.join(tags)}",
            project="small",
            versions=versions,
            commit=commit or self.git("rev-parse", "HEAD"),
            branch="main",
            source="local",
            target="local",
            lock={},
            lock_digest="",
            components=(),
            pipelines=(),
            services=(),
            models={},
            before=Before(),
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            by="Ada",
        )


def released(clone: Clone, *tags: str, undone: bool = False) -> Plan:
    """Write into the ledger that a release was made, or undone."""
    context, plan = clone.context(), clone.plan(*tags)
    entry = journal.begin(context, plan)
    journal.settled(context, journal.undoing(context, entry, "a test") if undone else entry)
    return plan


@contextmanager
def cloned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clone]:
    """Make a bare repository and a clone of it, ``remote.git`` and ``clone``, with a first commit, for a git that knows Ada alone."""
    for name in list(os.environ):
        if name.startswith(_LEAKING) or name == "CI":
            monkeypatch.delenv(name)
    settings = folder / "gitconfig"
    settings.write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("NO_PROXY", "no_proxy"):  # the servers of these tests are on this machine
        monkeypatch.setenv(name, "127.0.0.1")
    remote = folder / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", str(remote)], check=True)
    Repository.new(folder / "clone")
    made = Clone(folder / "clone")
    made.git("remote", "add", "origin", f"file://{remote}")
    made.write("trainshed.toml", CONFIGURATION)
    made.write(".gitignore", ".trainshed/\nbuild/\n")
    for part in ("components", "pipeline_templates"):
        made.write(f"{part}/.keep", "")
    made.commit("docs: begin")
    made.git("push", "--quiet", "origin", "main")
    yield made
    made.close()


class Guarded:
    """A server of one repository over http that wants a token; it remembers what it was told."""

    def __init__(self, folder: Path) -> None:
        self.logins: list[str] = []
        self.wanted = ""
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                given = self.headers.get("Authorization", "")
                told.logins.append(given)
                if given != told.wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                environment = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "REMOTE_USER": "bot",
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True, timeout=120)
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(fields.pop("Status", "200").split()[0]))
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/remote.git"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
