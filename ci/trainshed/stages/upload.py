"""Upload: the stamped pipelines become versions in Kubeflow; the same content is one version, whoever uploads it."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainshed import files
from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed
from trainshed.pipelines import content, documents, templates, verify
from trainshed.pipelines.lock import Lock, lock_digest
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import locking
from trainshed.stages.context import Context
from trainshed.tools import git
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import VERSION_NAME_LIMIT, Conflict, Pipeline, Version

_DIFFERENCE_LINES = 40
_SHORT = 8


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """A pipeline ready for upload. ``pipeline`` is its name in Kubeflow, ``digest`` that of its content."""

    name: str
    pipeline: str
    text: str
    digest: str


def upload(context: Context, names: Sequence[str] = (), *, dry_run: bool = False, deadline: float | None = None) -> Report:
    """Upload stamped pipelines; a version of the same content is found again and nothing is done.

    Args:
        context: the command's room.
        names: pipelines; empty: all.
        dry_run: show the difference to the newest version and change nothing.
        deadline: seconds for all uploads.

    Raises:
        UsageError: before any upload: an unknown name, a stale lock, a file that is missing or not stamped from the lock.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    chosen = selected(context, names)
    lock = locking.current(context)
    stamped = [read_stamped(context, lock, template.name) for template in chosen]
    head = git.head(context.config.project.root)
    results = []
    for pipeline in stamped:
        started = time.monotonic()
        context.console.start(pipeline.name, "upload")
        try:
            if ends is not None and started > ends:
                raise WorkFailed("the deadline passed", next_step="Give more time with --deadline.")
            result = _Upload(context, lock, head, pipeline).run(dry_run=dry_run, started=started)
        except Interrupted:
            raise
        except TrainshedError as error:
            result = failed(pipeline.name, "upload", error, seconds=time.monotonic() - started)
        context.console.end(result)
        results.append(result)
    return Report(stage="upload", results=tuple(results), extra={"dry_run": True} if dry_run else {})


def selected(context: Context, names: Sequence[str]) -> list[templates.Template]:
    """Return the templates of these names, or all."""
    return templates.select(templates.discover(context.config.project.pipelines), list(names))


def read_stamped(context: Context, lock: Lock, name: str) -> Stamped:
    """Read a stamped pipeline and prove that it is of the lock.

    Raises:
        UsageError: it is missing, not of the lock, or not what was compiled but for its images.
    """
    folder = context.config.project.work_dir / "pipelines"
    text, template_text = (_read(folder / f"{name}{suffix}.yaml", name) for suffix in ("", ".template"))
    place = context.config.project.shown(folder / f"{name}.yaml")
    wrong = verify.verify(text, lock.references, template_text=template_text, place=place).problems
    if wrong:
        raise UsageError("\n".join(map(str, wrong)), next_step=f"Run `trainshed stamp {name}`.")
    read = documents.load(text, place=place)
    return Stamped(name=name, pipeline=documents.pipeline_name(read), text=text, digest=content.digest_of(read))


def version_of(client: KubeflowClient, pipeline: Pipeline, digest: str) -> Version | None:
    """Find the version of a content: by the end of its name, and proved by its specification."""
    ending = f"-{digest.removeprefix('sha256:')[:_SHORT]}"
    for found in client.versions(pipeline.id):
        if found.name.endswith(ending) and digest_of(client.version(pipeline.id, found.id)) == digest:
            return found
    return None


def digest_of(version: Version) -> str:
    """Return the digest of what Kubeflow has."""
    return content.digest_of(_documents(version))


class _Upload:
    """One pipeline's way to Kubeflow."""

    def __init__(self, context: Context, lock: Lock, head: git.Head, stamped: Stamped) -> None:
        self._context, self._lock, self._head, self._stamped = context, lock, head, stamped
        self._client = context.kubeflow

    def run(self, *, dry_run: bool, started: float) -> Result:
        pipeline = self._client.pipeline_by_name(self._stamped.pipeline)
        present = version_of(self._client, pipeline, self._stamped.digest) if pipeline else None
        if pipeline is not None and present is not None:
            if not dry_run:
                self._record(pipeline, present)
            return self._result(Status.CACHED, f"same content as version {present.name}", started, self._facts(pipeline, present))
        if dry_run:
            return self._shown(pipeline, started)
        pipeline = pipeline or self._create()
        version = self._add(pipeline)
        self._record(pipeline, version)
        return self._result(Status.DONE, "new content", started, self._facts(pipeline, version))

    def _create(self) -> Pipeline:
        try:
            return self._client.create_pipeline(self._stamped.pipeline, description=f"Uploaded by Trainshed from {self._lock.project}")
        except Conflict:  # another upload was quicker
            found = self._client.pipeline_by_name(self._stamped.pipeline)
            if found is None:
                raise
            return found

    def _add(self, pipeline: Pipeline) -> Version:
        """Upload, read back and compare; a name that is taken meanwhile is good when the content is the same."""
        name = self._version_name()
        try:
            added = self._client.upload_version(pipeline.id, name, self._stamped.text, description=self._description())
        except Conflict as conflict:
            found = next((version for version in self._client.versions(pipeline.id) if version.name == name), None)
            if found is None:
                raise
            added = found
            reason: TrainshedError = Conflict(f"version {name} has other content", next_step="Delete it in Kubeflow, or commit and upload.")
            reason.__cause__ = conflict
        else:
            reason = WorkFailed(f"Kubeflow keeps version {name} otherwise than it was uploaded", next_step="Tell who runs this Kubeflow.")
        kept = self._client.version(pipeline.id, added.id)
        if digest_of(kept) != self._stamped.digest:
            reason.message += "\n" + self._difference(kept)
            raise reason
        return kept

    def _shown(self, pipeline: Pipeline | None, started: float) -> Result:
        newest = next(self._client.versions(pipeline.id), None) if pipeline else None
        difference = self._difference(self._client.version(newest.pipeline_id, newest.id)) if newest else ""
        against = f"version {newest.name}" if newest else "nothing: this is the first version"
        self._context.console.line(f"{self._stamped.name} differs from {against}\n{difference}".rstrip())
        facts = {"pipeline": self._stamped.pipeline, "version": self._version_name(), "difference": difference}
        return self._result(Status.SKIPPED, "dry run", started, facts)

    def _difference(self, kept: Version) -> str:
        there, here = documents.dump("", _documents(kept)), documents.split_header(self._stamped.text)[1]
        lines = list(difflib.unified_diff(there.splitlines(), here.splitlines(), kept.name, "this upload", n=1, lineterm=""))
        cut = [f"… {len(lines) - _DIFFERENCE_LINES} more lines"] if len(lines) > _DIFFERENCE_LINES else []
        return "\n".join([*lines[:_DIFFERENCE_LINES], *cut])

    def _version_name(self) -> str:
        """Name the version ``<branch>-<commit>-<content>``: the same for the same content of the same commit."""
        tail = f"{(self._head.commit or '')[:_SHORT] or 'uncommitted'}-{self._stamped.digest.removeprefix('sha256:')[:_SHORT]}"
        branch = re.sub(r"[^A-Za-z0-9._]+", "-", self._head.branch or ("detached" if self._head.commit else "")).strip("-.")
        return f"{branch[: VERSION_NAME_LIMIT - len(tail) - 1]}-{tail}".removeprefix("-")

    def _description(self) -> str:
        lines = [
            f"commit: {self._head.commit or 'none'}{' (with changes)' if self._head.dirty else ''}",
            f"images: {lock_digest(self._lock)}",
            f"content: {self._stamped.digest}",
            f"build: {self._context.build_url}" if self._context.build_url else "",
        ]
        return "\n".join(filter(None, lines))

    def _facts(self, pipeline: Pipeline, version: Version) -> dict[str, Any]:
        return {
            "pipeline": pipeline.name,
            "pipeline_id": pipeline.id,
            "version": version.name,
            "version_id": version.id,
            "content_digest": self._stamped.digest,
        }

    def _record(self, pipeline: Pipeline, version: Version) -> None:
        """Keep which version this commit's is; a found one is recorded once for each commit and branch."""
        document = {
            **self._facts(pipeline, version),
            "commit": self._head.commit,
            "branch": self._head.branch,
            "dirty": self._head.dirty,
            "lock_digest": lock_digest(self._lock),
            "build_url": self._context.build_url,
        }
        environment, ledger = self._context.config.environment.name, self._context.ledger
        before = ledger.events("upload", environment, self._stamped.name, limit=1)
        if not before or dict(before[0].document) != document:
            ledger.record_event("upload", environment, self._stamped.name, self._stamped.digest, document)

    def _result(self, status: Status, cause: str, started: float, details: dict[str, Any]) -> Result:
        seconds = time.monotonic() - started
        return Result(name=self._stamped.name, stage="upload", status=status, cause=cause, seconds=seconds, details=details)


def _documents(version: Version) -> list[dict[str, Any]]:
    """Part what Kubeflow shows of a version into the documents of its file."""
    spec = dict(version.spec)
    return [spec["pipeline_spec"], spec.get("platform_spec") or {}] if "pipeline_spec" in spec else [spec]


def _read(file: Path, name: str) -> str:
    if not file.exists():
        raise UsageError(f"{file}: there is no stamped pipeline", next_step=f"Run `trainshed stamp {name}`.")
    return files.read_text(file, what="the stamped pipeline")
