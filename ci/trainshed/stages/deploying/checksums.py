"""The checksum of a model, by which the deployed one is known again: of a file, or of a folder with all its files.

A folder's is the SHA-256 of one line for each file, ``<SHA-256>  <path>``, in the order of the paths' bytes: what ``sha256sum`` prints.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import UsageError, WorkFailed
from trainshed.stages.context import Context
from trainshed.tools import process
from trainshed.tools.aws import Refused
from trainshed.tools.s3 import S3, Stored

EVENT = "model"
_CHUNK = 4 * 1024 * 1024
_TOLD_EVERY = 512 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model's address, and who gave it: a run of a pipeline. ``path`` is its place on this machine, if it has one."""

    pipeline: str
    run_id: str
    uri: str
    path: str = ""


def checksum(context: Context, source: Source) -> str:
    """Return the SHA-256 of a model; what was read before is not read again while S3 says that it is the same.

    Raises:
        WorkFailed: it is gone, or not what it was when its checksum was first taken.
        UsageError: it may not be read, or its address is of a kind that is not known.
    """
    environment = context.config.environment.name
    known = next((event.document for event in context.ledger.events(EVENT, environment, source.pipeline, source.uri, limit=1)), {})
    if source.path:
        stamp, found = "", of_path(Path(source.path), gone=_gone(source))
    else:
        stamp, found = _of_store(context, source, str(known.get("stamp", "")), str(known.get("sha256", "")))
    if known.get("sha256", found) != found:
        whose = f", as run {known['run_id']} gave it" if known.get("run_id", source.run_id) != source.run_id else ""
        message = f"the model of run {source.run_id} was changed after the run: {source.uri} has SHA-256 {found}"
        message += f" instead of {known['sha256']}{whose}"
        step = f"Find out who wrote it, and run `trainshed launch {source.pipeline} --wait` for a new one."
        raise WorkFailed(message, next_step=step)
    if (known.get("sha256"), known.get("stamp", "")) != (found, stamp):
        document = {"uri": source.uri, "run_id": source.run_id, "sha256": found, "stamp": stamp}
        context.ledger.record_event(EVENT, environment, source.pipeline, source.uri, document)
    return found


def of_path(path: Path, *, gone: WorkFailed) -> str:
    """Return the checksum of a file or folder of this machine."""
    try:
        if path.is_file():
            return _of_file(path)
        if path.is_dir():
            files = (Path(parent, name) for parent, _, names in os.walk(path) for name in names)
            return of_files((file.relative_to(path).as_posix(), _of_file(file)) for file in files if file.is_file())
    except OSError as error:
        raise UsageError(f"{error.filename or path}: the model cannot be read: {error.strerror}", next_step="Let it be read.") from error
    raise gone


def of_files(files: Iterable[tuple[str, str]]) -> str:
    """Return the checksum of a folder from its files: each a path within, with ``/``, and its SHA-256."""
    lines = (f"{digest}  {path}\n".encode() for path, digest in sorted(files, key=lambda item: item[0].encode()))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            process.pause(0)
            digest.update(chunk)
    return digest.hexdigest()


def _of_store(context: Context, source: Source, stamp: str, known: str) -> tuple[str, str]:
    """Return stamp and checksum of what lies in S3."""
    bucket, key = _place(context, source.uri)
    store = S3(context.aws)
    try:
        whole = store.object(bucket, key) if not key.endswith("/") else None
        found = [whole] if whole is not None else list(store.below(bucket, f"{key.rstrip('/')}/"))
        if not found:
            raise _gone(source)
        _require_readable(source, found)
        now = hashlib.sha256(json.dumps([[each.key, each.stamp] for each in found]).encode()).hexdigest()
        if known and now == stamp:
            return stamp, known
        size = sum(each.size for each in found)
        context.console.line(f"model {source.uri}: taking the checksum of {_shown(size)}")
        digests = {each.key: store.sha256(bucket, each, on_progress=_Teller(context, each)) for each in found}
    except Refused as error:
        if not error.denied:
            raise
        message = f"the model of run {source.run_id} may not be read, or is not there: {error.message}"
        step = f"Let this role read {source.uri} (s3:GetObject, s3:ListBucket; kms:Decrypt where it is encrypted with a key)."
        raise UsageError(message, next_step=step) from error
    if whole is not None:
        return now, digests[whole.key]
    return now, of_files((each.removeprefix(f"{key.rstrip('/')}/"), digest) for each, digest in digests.items())


def _require_readable(source: Source, found: Iterable[Stored]) -> None:
    """Refuse a model that a lifecycle has archived: its checksum may be known, but no task that starts could fetch it."""
    archived = next((each for each in found if each.archive), None)
    if archived is not None:
        message = f"the model of run {source.run_id} is archived: {archived.key} is in {archived.archive}, out of which no task can read it"
        step = (
            f"Restore it and copy it back, or run `trainshed launch {source.pipeline} --wait`; let the lifecycle use GLACIER_IR for models."
        )
        raise UsageError(message, next_step=step)


def _place(context: Context, uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    endpoint = context.config.environment.aws.endpoint_url
    if scheme == "minio" and not endpoint:
        step = "Set it to MinIO's address as this machine reaches it, or let Kubeflow keep its artifacts in S3."
        raise UsageError(f"the model {uri} lies in MinIO, and aws.endpoint-url is not set", next_step=step)
    if scheme not in {"s3", "minio"} or not bucket or not key.strip("/"):
        message = f"the model {uri} cannot be read: only addresses s3://BUCKET/KEY and minio://BUCKET/KEY are known"
        raise UsageError(message, next_step="Let the pipeline write its model to S3.")
    return bucket, key


class _Teller:
    """Says how far a large object is read."""

    def __init__(self, context: Context, stored: Stored) -> None:
        self._context, self._stored, self._told = context, stored, 0

    def __call__(self, done: int) -> None:
        if done - self._told >= _TOLD_EVERY and done < self._stored.size:
            self._told = done
            self._context.console.line(f"model: read {_shown(done)} of {_shown(self._stored.size)} of {self._stored.key}")


def _shown(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB" if size >= 1024**2 else f"{size} bytes"


def _gone(source: Source) -> WorkFailed:
    step = f"Run `trainshed launch {source.pipeline} --wait`."
    return WorkFailed(f"the model of run {source.run_id} is gone: {source.path or source.uri}", next_step=step)
