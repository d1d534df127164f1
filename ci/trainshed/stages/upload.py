"""Upload: the stamped pipelines become versions in Kubeflow; the same content is one version, whoever uploads it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainshed import files, settings
from trainshed.errors import Interrupted, TrainshedError, UsageError, WorkFailed
from trainshed.ledger.leases import Lease
from trainshed.ledger.records import Event
from trainshed.pipelines import content, documents, templates, verify
from trainshed.pipelines.lock import Lock, lock_digest
from trainshed.results import Report, Result, Status, failed
from trainshed.stages import compile as compiling
from trainshed.stages import locking, versions
from trainshed.stages.context import Context
from trainshed.stages.survey import LOOKUPS
from trainshed.tools import git, process
from trainshed.tools.kubeflow import KubeflowClient
from trainshed.tools.kubeflow_records import Conflict, NotFound, Pipeline, Version

STAGE = "upload"
EVENT = "upload"
DELETED = "version-deleted"
"""What the ledger keeps of a version that an undone release takes away, by its id: nothing may go on pointing at it."""
_LOOK_BACK = 300
_KNOWN = 5
"""How many of the newest versions, and of the ledger's, may be asked for a content."""
_MORE_TIME = "Give more time with --deadline."


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """A pipeline ready for upload. ``pipeline`` is its name in Kubeflow, ``digest`` that of its content, ``sdk`` what compiled it.

    ``images`` are component → ``repository@sha256:…`` of those that it uses.
    """

    name: str
    pipeline: str
    text: str
    digest: str
    sdk: str
    images: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Release:
    """The release that uploads: its id, which its versions keep; how it calls them, by pipeline; and the digest of the build's lock."""

    id: str
    names: Mapping[str, str]
    lock_digest: str


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is uploaded comes from: the lock and the commit, and the name that is wanted, such as the release that the tree is tagged as.

    ``by`` is the release that uploads, None outside of one.
    """

    lock: Lock
    head: git.Head
    release: str | None
    by: Release | None = None

    def name(self, stamped: Stamped) -> str:
        return versions.name(release=self.release, branch=self.head.branch, commit=self.head.commit, digest=stamped.digest)

    def told(self, context: Context, stamped: Stamped) -> str:
        return versions.description(
            commit=f"{self.head.commit or 'none'}{' (with changes)' if self.head.dirty else ''}",
            lock_digest=lock_digest(self.lock),
            digest=stamped.digest,
            build_url=context.build_url,
            images=stamped.images,
            release=self.by.id if self.by else "",
        )

    def tags(self, context: Context, stamped: Stamped) -> dict[str, str]:
        return versions.tags(
            project=self.lock.project,
            commit=self.head.commit,
            branch=self.head.branch,
            build_url=context.build_url,
            digest=stamped.digest,
        )


def upload(
    context: Context, names: Sequence[str] = (), *, dry_run: bool = False, deadline: float | None = None, release: Release | None = None
) -> Report:
    """Upload stamped pipelines, side by side; a version of the same content is found again and nothing is done.

    Args:
        context: the command's room.
        names: pipelines; empty: all.
        dry_run: show the difference to the newest version and change nothing.
        deadline: seconds for all uploads.
        release: that uploads; it says what the versions are called, which else the tags of the commit do.

    Raises:
        UsageError: before any upload: an unknown name, a stale lock, a file that is missing or not stamped from the lock, a namespace
            that this Kubeflow does not take.
        RemoteError: before any upload: Kubeflow cannot be reached, or the login expired.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    chosen = selected(context, names)
    lock = locking.current(context)
    stamped = [read_stamped(context, lock, template.name) for template in chosen]
    ready(context, [each.sdk for each in stamped])
    source = _source(context, lock, release)
    with ThreadPoolExecutor(LOOKUPS, thread_name_prefix="upload") as pool:
        jobs = [pool.submit(_uploaded, context, source(each), each, dry_run=dry_run, ends=ends) for each in stamped]
    results = tuple(job.result() for job in jobs)
    return Report(stage=STAGE, results=results)


def _source(context: Context, lock: Lock, release: Release | None) -> Callable[[Stamped], _Source]:
    """Return what each pipeline comes from, and is called by."""
    head = git.head(context.config.project.root)
    if release is not None:
        return lambda stamped: _Source(lock=lock, head=head, release=release.names[stamped.name], by=release)
    tags = git.tags_of(context.config.project.root, head.commit) if head.commit and not head.dirty else ()
    return lambda _: _Source(lock=lock, head=head, release=versions.semantic(tags))


def turn(context: Context, name: str, pipeline: str, *, deadline: float | None = None) -> AbstractContextManager[Lease]:
    """Keep other uploads of a pipeline out between the look and the upload: each would find nothing, and add its own."""
    key = f"upload {context.kubeflow.host} {context.kubeflow.namespace} {pipeline}"
    tell = context.console.line
    return context.ledger.lease(key, deadline=deadline, on_wait=lambda holder: tell(f"{name}: waiting for its upload by {holder}"))


def deleted(context: Context, name: str) -> frozenset[str]:
    """Return the ids of a pipeline's versions that an undone release took away from the environment."""
    return frozenset(event.key for event in context.ledger.events(DELETED, context.config.environment.name, name))


def recorded(context: Context, name: str) -> list[Event]:
    """Return what the ledger knows of a pipeline's uploads, the newest first, but for versions that an undone release took away."""
    if not context.has_ledger:
        return []
    events = context.ledger.events(EVENT, context.config.environment.name, name)
    gone = deleted(context, name) if events else frozenset()
    return [event for event in events if event.document.get("version_id") not in gone]


def ready(context: Context, sdks: Sequence[str]) -> None:
    """Prove that Kubeflow can be worked with, and show what it warns of, once for all that compiled the pipelines.

    Raises:
        UsageError: it does not fit the configuration.
        RemoteError: it cannot be reached, or the login expired.
    """
    newest = max(sdks, key=_ordered, default="")
    for warning in context.kubeflow.require_ready(sdk=newest):
        context.console.warning(warning)


def _ordered(sdk: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", sdk)]


def _uploaded(context: Context, source: _Source, stamped: Stamped, *, dry_run: bool, ends: float | None) -> Result:
    """Upload one pipeline and show what became of it; an error is its result."""
    started = time.monotonic()
    if process.stopping.is_set():
        raise Interrupted("interrupted")
    context.console.start(stamped.name, STAGE)
    try:
        if ends is not None and started > ends:
            raise WorkFailed("the deadline passed", next_step=_MORE_TIME)
        result = _Upload(context, source, stamped).run(dry_run=dry_run, started=started, ends=ends)
    except Interrupted:
        raise
    except TrainshedError as error:
        result = failed(stamped.name, STAGE, error, seconds=time.monotonic() - started)
    context.console.end(result)
    return result


def selected(context: Context, names: Sequence[str]) -> list[templates.Template]:
    """Return the templates of these names, or all."""
    return templates.select(templates.discover(context.config.project.pipelines), list(names))


def read_stamped(context: Context, lock: Lock, name: str) -> Stamped:
    """Read a stamped pipeline and prove that it is of the lock.

    Raises:
        UsageError: it is missing, not of the lock, or not what was compiled but for its images and the overlays in force.
    """
    folder = context.config.project.work_dir / "pipelines"
    text, template_text = (_read(folder / f"{name}{suffix}.yaml", name) for suffix in ("", ".template"))
    place = context.config.project.shown(folder / f"{name}.yaml")
    (template,) = selected(context, [name])
    in_force = compiling.overlays(context, template)
    wrong = verify.verify(text, lock.references, template_text=template_text, place=place, in_force=in_force).problems
    if wrong:
        raise UsageError("\n".join(f"{place}: {problem}" for problem in wrong), next_step=f"Run `trainshed stamp {name}`.")
    read = documents.load(text, place=place)
    return Stamped(
        name=name,
        pipeline=documents.pipeline_name(read),
        text=text,
        digest=content.digest_of(read),
        sdk=str(read[0].get("sdkVersion", "")),
        images=versions.images_of(read, lock.references),
    )


def version_of(client: KubeflowClient, pipeline: Pipeline, digest: str, *, known: Sequence[str] = ()) -> Version | None:
    """Find the version of a content, whatever its name, and prove it by its specification.

    Asked are, in this order: versions whose ids are ``known``, those whose name holds the content, then the newest ones of all.
    """
    for identifier in known:
        with suppress(NotFound):
            found = client.version(pipeline.id, identifier)
            if digest_of(found) == digest:
                return found
    named = client.versions(pipeline.id, containing=versions.short(digest))
    others = islice(client.versions(pipeline.id), _LOOK_BACK)
    return next((whole for found in chain(named, others) if (whole := _of_content(client, found, digest)) is not None), None)


def _of_content(client: KubeflowClient, found: Version, digest: str) -> Version | None:
    """Return the version when it has this content. A list may leave the specification out; then it is asked for where it may fit."""
    if not found.spec and (versions.short(digest) in found.name or versions.told_digest(found.description) == digest):
        found = client.version(found.pipeline_id, found.id)
    return found if found.spec and digest_of(found) == digest else None


def digest_of(version: Version) -> str:
    """Return the digest of what Kubeflow has."""
    return content.digest_of(_documents(version))


class _Upload:
    """One pipeline's way to Kubeflow."""

    def __init__(self, context: Context, source: _Source, stamped: Stamped) -> None:
        self._context, self._source, self._stamped = context, source, stamped
        self._client = context.kubeflow

    def run(self, *, dry_run: bool, started: float, ends: float | None) -> Result:
        if dry_run:
            pipeline, present = self._present()
            if present is not None:
                return self._result(Status.CACHED, self._cause(present), started, self._facts(present))
            return self._shown(pipeline, started)
        deadline = None if ends is None else max(0.0, ends - time.monotonic())
        with turn(self._context, self._stamped.name, self._stamped.pipeline, deadline=deadline) as lease:
            pipeline, present = self._present()
            if present is None and lease.lost:
                raise WorkFailed("another upload of this pipeline took over meanwhile: this one stood still", next_step="Run it again.")
            version = present or self._add(pipeline or self._create())
        self._record(version)
        if present is not None:
            return self._result(Status.CACHED, self._cause(present), started, self._facts(version))
        return self._result(Status.DONE, "new content", started, self._facts(version))

    def _present(self) -> tuple[Pipeline | None, Version | None]:
        """Return the pipeline and the version of this content, where they are there.

        Raises:
            Conflict: the release that the tree is tagged as has other content in Kubeflow.
        """
        pipeline = self._client.pipeline_by_name(self._stamped.pipeline)
        if pipeline is None:
            return None, None
        if self._source.release and (taken := self._named(pipeline)) is not None:
            self._require_same(taken)
            return pipeline, taken
        events = self._context.ledger.events(EVENT, self._environment, self._stamped.name, self._stamped.digest, limit=_KNOWN)
        # A pipeline made anew, or one of another namespace, which may be closed to us, has the others.
        known = dict.fromkeys(each.document.get("version_id", "") for each in events if each.document.get("pipeline_id") == pipeline.id)
        gone = deleted(self._context, self._stamped.name) if known else frozenset()
        return pipeline, version_of(
            self._client, pipeline, self._stamped.digest, known=[each for each in known if each and each not in gone]
        )

    def _cause(self, present: Version) -> str:
        told = f"same content as version {present.name}"
        return f"{told}, so there is none named {self._name}" if self._source.release not in {None, present.name} else told

    def _create(self) -> Pipeline:
        try:
            return self._client.create_pipeline(
                self._stamped.pipeline, description=f"Uploaded by Trainshed from {self._source.lock.project}"
            )
        except Conflict:  # another upload was quicker
            found = self._client.pipeline_by_name(self._stamped.pipeline)
            if found is None:
                raise
            return found

    def _add(self, pipeline: Pipeline) -> Version:
        """Upload, read back and compare; a name that is taken meanwhile is good when the content is the same."""
        told, tags = self._source.told(self._context, self._stamped), self._source.tags(self._context, self._stamped)
        try:
            added = self._client.upload_version(pipeline.id, self._name, self._stamped.text, description=told, tags=tags)
        except Conflict:
            found = self._named(pipeline)
            if found is None:
                raise
            added = found
        kept = self._client.version(pipeline.id, added.id)
        self._require_same(kept)
        return kept

    def _named(self, pipeline: Pipeline) -> Version | None:
        """Return the version of this upload's name."""
        found = next((each for each in self._client.versions(pipeline.id, name=self._name) if each.name == self._name), None)
        return None if found is None else self._client.version(pipeline.id, found.id)

    def _require_same(self, kept: Version) -> None:
        """Raise what it means that a version has other content: our upload was changed, or it is another's."""
        if digest_of(kept) == self._stamped.digest:
            return
        difference = self._difference(kept)
        if versions.told_digest(kept.description) == self._stamped.digest:
            message = f"Kubeflow keeps version {kept.name} otherwise than it was uploaded\n{difference}"
            raise WorkFailed(message, next_step="Tell who runs this Kubeflow.")
        step = "Tag another version" if self._source.release else "Commit, and upload again"
        raise Conflict(f"version {kept.name} has other content\n{difference}", next_step=f"{step}, or delete the one in Kubeflow.")

    def _shown(self, pipeline: Pipeline | None, started: float) -> Result:
        newest = next(self._client.versions(pipeline.id), None) if pipeline else None
        difference = self._difference(self._client.version(newest.pipeline_id, newest.id)) if newest else ""
        against = f"version {newest.name}" if newest else "nothing: this is the first version"
        self._context.console.line(f"{self._stamped.name} differs from {against}\n{difference}".rstrip())
        facts = {"pipeline": self._stamped.pipeline, "version": self._name, "difference": difference}
        return self._result(Status.SKIPPED, "dry run", started, facts)

    def _difference(self, kept: Version) -> str:
        here = documents.load(self._stamped.text, place=self._stamped.name)
        return versions.difference(_documents(kept), here, name=kept.name)

    @property
    def _name(self) -> str:
        return self._source.name(self._stamped)

    @property
    def _environment(self) -> str:
        return self._context.config.environment.name

    def _facts(self, version: Version) -> dict[str, Any]:
        return {
            "pipeline": self._stamped.pipeline,
            "pipeline_id": version.pipeline_id,
            "version": version.name,
            "version_id": version.id,
            "content_digest": self._stamped.digest,
        }

    def _record(self, version: Version) -> None:
        """Keep which version this commit's is; a found one is recorded once for each commit and branch."""
        head, by = self._source.head, self._source.by
        document = {
            **self._facts(version),
            "commit": head.commit,
            "branch": head.branch,
            "change_branch": settings.change_branch(),
            "dirty": head.dirty,
            "lock_digest": by.lock_digest if by else lock_digest(self._source.lock),
            "images": dict(self._stamped.images),
            "build_url": self._context.build_url,
            **({"release_id": by.id} if by else {}),
        }
        ledger = self._context.ledger
        before = ledger.events(EVENT, self._environment, self._stamped.name, limit=1)
        if not before or dict(before[0].document) != document:
            ledger.record_event(EVENT, self._environment, self._stamped.name, self._stamped.digest, document)

    def _result(self, status: Status, cause: str, started: float, details: dict[str, Any]) -> Result:
        seconds = time.monotonic() - started
        return Result(name=self._stamped.name, stage=STAGE, status=status, cause=cause, seconds=seconds, details=details)


def _documents(version: Version) -> list[dict[str, Any]]:
    """Part what Kubeflow shows of a version into the documents of its file."""
    spec = dict(version.spec)
    return [spec["pipeline_spec"], spec.get("platform_spec") or {}] if "pipeline_spec" in spec else [spec]


def _read(file: Path, name: str) -> str:
    if not file.exists():
        raise UsageError(f"{file}: there is no stamped pipeline", next_step=f"Run `trainshed stamp {name}`.")
    return files.read_text(file, what="the stamped pipeline")
