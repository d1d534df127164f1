"""Images from one repository to another, by digest: what is there is not sent, what was cut off goes on, what came is proven."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.images import references
from trainshed.tools import process, referrers
from trainshed.tools.http import NoAnswer, Response, backoff
from trainshed.tools.registry import RegistryClient, require_ok

INDEX = "application/vnd.oci.image.index.v1+json"
_PIECE = 10 * 1024 * 1024  # ECR takes parts of 5 to 10 MiB
_TRIES = 5
_AT_ONCE = 4
_PUSH = "pull,push"
_CREATED, _PARTIAL, _BAD, _NOT_FOUND = 201, 206, 400, 404
_OCTETS = "application/octet-stream"


class How(StrEnum):
    """How a blob or manifest came to be in the target."""

    PRESENT = "present"
    MOUNTED = "mounted"
    SENT = "sent"


Progress = Callable[[str, int, How], None]
"""Is told each blob's and manifest's digest, its bytes, and how it came; from any thread."""


def copy(
    client: RegistryClient,
    source: str,
    target: str,
    *,
    tag: Callable[[str], str] | None = None,
    on_progress: Progress = lambda *_: None,
) -> str:
    """Copy an image, or an index with all its images, with everything that refers to any of them (signatures, SBOMs); return its digest.

    To refer is to name it as subject, or to have the tag that cosign gives what it makes of it.

    Layers and configurations go first, then manifests, the image's own tag last: whoever sees an image in the target sees all of it. Run
    again after any end, it sends what is missing; what came to refer to it meanwhile is brought, also where the image itself was there.

    Args:
        client: of both registries.
        source: the image, best by digest.
        target: repository (``host/path``) that takes it.
        tag: says which tag a digest is given in the target, where it must be free or the same; all that goes with the image gets its own.
        on_progress: is told what came, and how.

    Raises:
        WorkFailed: the source holds content that is not what its digest says; the target has another image under the tag.
        RemoteError: a registry could not be asked, refused, or has no such image; or the target does not tell what refers to it.
    """
    found = references.parse(source)
    content, _ = client.manifest(source)
    digest = _digest(content)
    run = _Copy(client=client, source=found.repository, target=target, on_progress=on_progress)
    run.tree(digest)
    run.prove()
    if tag is not None:
        for each in reversed(run.referring):
            run.tag(each, tag(each))
    return digest


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """One run from a repository to another; ``referring`` maps each manifest that is there to what refers to it in the source."""

    client: RegistryClient
    source: str
    target: str
    on_progress: Progress
    referring: dict[str, frozenset[str]] = field(default_factory=dict)

    def tree(self, digest: str) -> None:
        """Copy a manifest with all that it names, then all that refers to it."""
        if digest in self.referring:
            return
        self.referring[digest] = frozenset()
        content, kind = self.client.manifest(f"{self.source}@{digest}")
        document = json.loads(content)
        for child in document.get("manifests", ()):
            self.tree(child["digest"])
        if self.client.digest(f"{self.target}@{digest}") == digest:
            self.on_progress(digest, len(content), How.PRESENT)
        else:
            self._blobs(document)
            self._put(digest, content, kind)
            self.on_progress(digest, len(content), How.SENT)
        named = referrers.present(self.client, self.source, digest)
        for one in named:
            self.tree(one["digest"])
        if named:
            self._link(digest, named)
            self.referring[digest] = frozenset(one["digest"] for one in named)
        for tag, signed in referrers.tagged(self.client, self.source, digest).items():
            self.tree(signed)
            self._name(tag, signed)

    def prove(self) -> None:
        """Read all back: each manifest is there under its digest, and the target tells of it whatever the source told."""
        for digest, wanted in self.referring.items():
            there = self.client.digest(f"{self.target}@{digest}")
            if there != digest:
                raise RemoteError(f"{self.target}: has {there or 'nothing'} where {digest} was copied", next_step="Run it again.")
            for attempt in range(_TRIES if wanted else 0):
                lost = wanted - {one["digest"] for one in referrers.listed(self.client, self.target, digest)[0]}
                if not lost:
                    break
                if attempt == _TRIES - 1:
                    message = f"{self.target}@{digest}: does not tell that {', '.join(sorted(lost))} refer to it, as the source does"
                    raise RemoteError(message, next_step="Run it again; ask who runs this registry if it stays.")
                process.pause(backoff(attempt))  # a list may come later than what it tells of

    def tag(self, digest: str, tag: str) -> None:
        """Give the image a tag in the target, which is taken for no other."""
        has = self.client.digest(f"{self.target}:{tag}")
        if has is None:
            has = self.client.tag(f"{self.target}@{digest}", tag)
        if has != digest:
            raise WorkFailed(f"{self.target}:{tag} is {has}, not {digest}", next_step="Find out who pushed it; nothing was changed.")

    def _name(self, tag: str, digest: str) -> None:
        """Give what cosign made its tag in the target too; it is moved only to what holds all signatures that are there."""
        has = self.client.digest(f"{self.target}:{tag}")
        if has == digest:
            return
        here, there = self._layers(digest), self._layers(has) if has else frozenset()
        if has and here <= there:
            return  # somebody signed there, too
        if there - here:
            message = f"{self.target}:{tag} is {has}, which holds what {digest} lacks, and the other way round"
            raise WorkFailed(message, next_step=f"Sign it anew there with what {self.source}:{tag} holds, or take that tag away there.")
        try:
            self.client.tag(f"{self.target}@{digest}", tag)
        except UsageError as error:
            step = "Sign an image once, before it is copied; or have cosign use referrers (OCI 1.1), which need no tag to be moved."
            raise WorkFailed(error.message, next_step=step) from error

    def _layers(self, digest: str) -> frozenset[str]:
        content, _ = self.client.manifest(f"{self.target}@{digest}")
        return frozenset(layer["digest"] for layer in json.loads(content).get("layers", ()))

    def _blobs(self, document: Mapping[str, Any]) -> None:
        """Copy configuration and layers, some at once."""
        listed = [document.get("config"), *document.get("layers", ()), *document.get("blobs", ())]
        # A layer with addresses of its own is fetched from there by whoever pulls: no registry has to hold it.
        wanted = {blob["digest"]: int(blob["size"]) for blob in listed if blob and not blob.get("urls")}

        def work() -> None:
            with ThreadPoolExecutor(_AT_ONCE, initializer=process.abandonable) as pool:
                for future in [pool.submit(self._blob, digest, size) for digest, size in wanted.items()]:
                    future.result()

        process.interruptible(work)

    def _blob(self, digest: str, size: int) -> None:
        for attempt in range(_TRIES):
            try:
                self.on_progress(digest, size, self._brought(digest))
            except RemoteError as error:
                if error.permanent or attempt == _TRIES - 1:
                    raise
                process.pause(backoff(attempt))
            else:
                return

    def _brought(self, digest: str) -> How:
        """Have a blob in the target: it is there, it is mounted from a repository of the same registry, or it is sent."""
        head = self.client.ask("HEAD", self.target, f"blobs/{digest}", action=_PUSH)
        if head.status != _NOT_FOUND:
            if head.status >= _BAD:
                require_ok(head)
            return How.PRESENT  # also where it leads to another place
        host, _, _ = self.target.partition("/")
        own_host, _, own_path = self.source.partition("/")
        mount = f"?mount={digest}&from={own_path}" if host == own_host else ""
        begun = self.client.ask("POST", self.target, f"blobs/uploads/{mount}", action=_PUSH)
        require_ok(begun)
        if begun.status == _CREATED:
            return How.MOUNTED
        self._send(digest, begun)
        return How.SENT

    def _send(self, digest: str, begun: Response) -> None:
        """Send a blob piece by piece, never more than one in memory, and seal it when its content is proven."""
        least, seen, offset = begun.headers.get("oci-chunk-min-length", ""), hashlib.sha256(), 0
        location = begun.headers["location"]
        for piece in self._pieces(digest, max(_PIECE, int(least) if least.isdigit() else 0)):
            seen.update(piece)
            location = self._patched(location, piece, offset)
            offset += len(piece)
        if f"sha256:{seen.hexdigest()}" != digest:
            with suppress(RemoteError):  # what was sent is of no use to anybody
                self.client.ask("DELETE", self.target, location, action=_PUSH)
            message = f"{self.source}@{digest}: the registry holds content that is not what its digest says"
            raise WorkFailed(message, next_step="Build and push the image again.")
        sealing = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        require_ok(self.client.ask("PUT", self.target, sealing, action=_PUSH, headers={"Content-Type": _OCTETS}, body=b""))

    def _patched(self, location: str, piece: bytes, offset: int) -> str:
        """Send one piece; after a lost answer only what the registry has not taken of it. Return where the next one goes."""
        ends = offset + len(piece)
        start = offset
        for attempt in range(_TRIES):
            headers = {"Content-Type": _OCTETS, "Content-Range": f"{start}-{ends - 1}"}
            try:
                answer = self.client.ask("PATCH", self.target, location, action=_PUSH, headers=headers, body=piece[start - offset :])
                require_ok(answer)
            except NoAnswer:
                status = self.client.ask("GET", self.target, location, action=_PUSH)
                has = _taken(status)
                if attempt == _TRIES - 1 or has is None or not offset <= has <= ends:
                    raise
                start, location = has, status.headers.get("location", location)
                if start == ends:
                    return location
            else:
                return answer.headers.get("location", location)
        raise AssertionError("the last attempt returns or raises")

    def _pieces(self, digest: str, size: int) -> Iterator[bytes]:
        """Yield a blob of the source in pieces of one size, the last one smaller."""
        kept = bytearray()
        for part in self._read(digest):
            kept += part
            while len(kept) >= size:
                yield bytes(kept[:size])
                del kept[:size]
        if kept:
            yield bytes(kept)

    def _read(self, digest: str) -> Iterator[bytes]:
        """Yield a blob of the source as it comes; where the connection breaks, go on from there."""
        offset = failures = 0
        while True:
            try:
                with self.client.stream(self.source, f"blobs/{digest}", start=offset) as (answer, parts):
                    require_ok(answer)
                    skip = 0 if answer.status == _PARTIAL else offset  # a registry that knows no ranges begins anew
                    for part in parts:
                        fresh, skip = part[skip:], max(0, skip - len(part))
                        offset += len(fresh)
                        if fresh:
                            yield fresh
            except NoAnswer:
                failures += 1
                if failures == _TRIES:
                    raise
                process.pause(backoff(failures))
            else:
                return

    def _put(self, selector: str, content: bytes, kind: str) -> None:
        require_ok(self.client.ask("PUT", self.target, f"manifests/{selector}", action=_PUSH, headers={"Content-Type": kind}, body=content))

    def _link(self, digest: str, named: list[dict[str, Any]]) -> None:
        """Where the target does not keep by itself what refers to a manifest, keep it under the tag that the specification names."""
        has, itself = referrers.listed(self.client, self.target, digest)
        known = {one["digest"] for one in has}
        missing = [one for one in named if one["digest"] not in known]
        if itself or not missing:
            return
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*has, *missing]}
        self._put(referrers.fallback(digest), json.dumps(document).encode(), INDEX)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _taken(status: Response) -> int | None:
    """Return how many bytes of an upload the registry has, None when it does not say."""
    first, dash, last = status.headers.get("range", "").removeprefix("bytes=").partition("-")
    if not status.ok or not dash or first != "0" or not last.isdigit():
        return None
    # An upload that has nothing is told as 0-0 too, as is one of a single byte: to send from the start does no harm then.
    return int(last) + 1 if int(last) else 0
