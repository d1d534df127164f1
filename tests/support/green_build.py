"""A green build of main without an engine: images of a few files, really pushed, scanned by the real Trivy, locked by the stage."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.oci import CONFIG, MANIFEST, Store, ask
from tests.support.repositories import Repository
from tests.support.trivy_db import write_database
from trainshed import config
from trainshed.console import Console
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock
from trainshed.settings import Tier
from trainshed.stages import lookup
from trainshed.stages.context import Context
from trainshed.stages.images import images
from trainshed.stages.survey import survey

LOW, WAIVED = "CVE-2099-0001", "CVE-2099-0002"
ADVISORIES = {("zlib", LOW): {"severity": "LOW", "fixed": "99"}, ("bzip2", WAIVED): {"severity": "HIGH", "fixed": "99"}}
_PACKAGES = {"base": ("zlib",), "train": ("zlib", "bzip2")}
_CONFIGURATION = """[project]
name = "small"

[scan]
scanners = ["vulnerability"]

[release]
environment = "prod"

[environments.dev]
registry = {{ url = "{source}", insecure = true }}

[environments.prod]
registry = {{ url = "{target}", insecure = true }}
trust = "main"
"""
_WAIVER = """[[waiver]]
id = "{id}"
owner = "models@example.org"
reason = "Nothing here is packed."
expires = {expires}
"""


def debian(store: Store, packages: Sequence[str], marker: str, *, tag: str = "") -> str:
    """Push an image of a Debian with these packages, past all clients of ours; return its digest."""
    told = "".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.2-3\nDescription: a package\n\n"
        for name in packages
    )
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "etc/debian_version": "12.5\n",
        "var/lib/dpkg/status": told,
        "marker": marker,
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    layer = store.blob(gzip.compress(raw.getvalue(), mtime=0))
    identity = f"sha256:{hashlib.sha256(raw.getvalue()).hexdigest()}"
    described = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": [identity]}}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": store.blob(json.dumps(described).encode(), CONFIG), "layers": [layer]}
    return str(store.manifest(document, tag=tag)["digest"])


@contextmanager
def opened(root: Path, environment: str, tier: Tier) -> Iterator[Context]:
    """Open a command's room in this process; what it says is in ``context.console.stream``."""
    loaded = config.load(root / "trainshed.toml", environment=environment)
    with closing(Context(config=loaded, console=Console(stream=io.StringIO()), tier=tier)) as context:
        yield context


@dataclass
class GreenBuild:
    """A project ``small`` of a base and a step on it, in a real repository with a remote; ``dev`` and ``prod`` are real registries."""

    root: Path
    source: str
    target: str

    @classmethod
    def new(cls, root: Path, source: str, target: str, *, expires: dt.date) -> GreenBuild:
        """Write it, commit and publish it, and have it built; the waiver of the one bad finding ends on a day."""
        made = cls(root, source, target)
        address = source.partition("/")[0]
        Store(address, "bases/small").image(b"a layer", tag="1")
        repository = Repository.new(root)
        repository.write("trainshed.toml", _CONFIGURATION.format(source=source, target=target))
        repository.write("waivers.toml", _WAIVER.format(id=WAIVED, expires=expires))
        repository.write(".gitignore", "build/\n.trainshed/\n")
        repository.write("components/base/Dockerfile", f"FROM {address}/bases/small:1\nUSER 1000\n")
        repository.write("components/train/Dockerfile", "ARG BASE=127.0.0.1:5000/small/base:latest\nFROM ${BASE}\nCOPY train.py /\n")
        repository.write("components/train/train.py", "print('trained')\n")
        (root / "pipeline_templates").mkdir()
        repository.commit()
        repository.git("init", "--quiet", "--bare", str(made.remote))
        repository.git("remote", "add", "origin", str(made.remote))
        repository.git("config", "user.name", "t")
        repository.git("config", "user.email", "t@example.org")
        repository.git("push", "--quiet", "origin", "main")
        made.database(ADVISORIES)
        made.push(Tier.MAIN)
        made.build(Tier.MAIN)
        return made

    @property
    def remote(self) -> Path:
        """Return where the repository is published."""
        return self.root.parent / "remote.git"

    @property
    def git(self) -> Repository:
        """Return the repository."""
        return Repository(self.root)

    @property
    def file(self) -> Path:
        """Return where the workspace's lock is."""
        return self.root / "build" / locks.FILE_NAME

    @property
    def lock(self) -> Lock:
        """Return the workspace's lock."""
        return locks.read(self.file)

    def store(self, name: str) -> Store:
        """Return a component's repository in the build's registry."""
        address, _, path = self.source.partition("/")
        return Store(address, f"{path}/small/{name}")

    @contextmanager
    def context(self, tier: Tier = Tier.MAIN, environment: str = "dev") -> Iterator[Context]:
        """Open a command's room; what it says is in ``context.console.stream``."""
        with opened(self.root, environment, tier) as context:
            yield context

    def database(self, advisories: Mapping[tuple[str, str], Mapping[str, str]], *, made: dt.datetime | None = None) -> None:
        """Give the scanner another database."""
        write_database(self.root / ".trainshed/trivy/db", advisories, updated=made)

    def push(self, tier: Tier, *, marker: str = "") -> dict[str, str]:
        """Push what a build of this tier makes of the tree; return the digests."""
        with self.context(tier) as context:
            taken = survey(context)
            own: dict[str, str] = {}
            for name in taken.selected:
                tag = lookup.own_tag(context, taken.inputs(name, own).digest)
                own[name] = debian(self.store(name), _PACKAGES[name], f"{name}{marker}", tag=tag)
        return own

    def build(self, tier: Tier) -> None:
        """Have the images found, scanned and locked."""
        with self.context(tier) as context:
            report = images(context)
            assert report.status == "green", context.console.stream.getvalue()  # type: ignore[attr-defined]

    def write(self, lock: Lock | Mapping[str, Any]) -> None:
        """Lay a lock into the workspace, sealed if it is no mere document."""
        self.file.write_text(json.dumps(lock.document() if isinstance(lock, Lock) else lock))

    def tagged(self, name: str) -> str:
        """Return the tag of a locked image's inputs."""
        return f"in-{self.lock.images[name].input_digest.removeprefix('sha256:')}"

    def manifest(self, name: str) -> bytes:
        """Return the manifest of a locked image."""
        with self.context() as context:
            return context.registry.manifest(self.lock.images[name].reference)[0]

    def put(self, name: str, selector: str, content: bytes) -> None:
        """Put a manifest back, past all clients of ours."""
        store = self.store(name)
        assert ask(store.address, "PUT", f"/v2/{store.name}/manifests/{selector}", content, MANIFEST).status == 201

    def delete(self, name: str, digest: str) -> None:
        """Delete an image with all its tags."""
        store = self.store(name)
        assert ask(store.address, "DELETE", f"/v2/{store.name}/manifests/{digest}").status == 202

    def traces(self) -> dict[str, Any]:
        """Return all that a release leaves in git, in the ledger and in the workspace, which a refused one must not."""
        with self.context(Tier.LAPTOP) as context:
            events = context.ledger.events("release", "prod")
        own = {path.name: path.read_bytes() for path in (self.root / "build").rglob("*") if path.is_file() and "release" not in path.parts}
        bare = Repository(self.remote).git("for-each-ref") if self.remote.exists() else ""
        return {"events": events, "refs": self.git.git("for-each-ref"), "published": bare, "workspace": own}
