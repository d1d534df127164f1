"""Which uploaded version of a pipeline a run shall take, and why it is this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from trainshed.errors import RemoteError, UsageError
from trainshed.pipelines.lock import Lock
from trainshed.reports.manifest import FILE_NAME
from trainshed.stages import locking, upload
from trainshed.stages.context import Context
from trainshed.stages.jenkins import finding
from trainshed.tools import git
from trainshed.tools.jenkins_records import NotFound as JenkinsNotFound
from trainshed.tools.kubeflow_records import NotFound, Version

MANIFEST = f"build/{FILE_NAME}"
_UPLOAD = "Run `trainshed upload`."
_NEEDED = frozenset({"pipeline_id", "version_id", "version"})


class References:
    """The versions for one command.

    In this order: the stamped file's, when the lock is of this tree; what the ledger says was uploaded for this commit, then for this
    branch; what the last green Jenkins build of this commit, then of this branch, uploaded to this environment. A controller that
    cannot be asked is an error, never a reason to take something older.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._manifests: list[tuple[str, Mapping[str, Any]]] = []
        self._asked = "no green build of this branch uploaded it"

    def version(self, name: str) -> tuple[Version, str]:
        """Return the version of a pipeline to run, and why it is this one.

        Raises:
            UsageError: nothing was uploaded, or what was is no longer in Kubeflow.
            RemoteError: Kubeflow or Jenkins cannot be asked.
        """
        client = self._context.kubeflow
        try:
            stamped = upload.read_stamped(self._context, self._lock, name)
        except UsageError as error:
            return self._of_ci(name, error)
        pipeline = client.pipeline_by_name(stamped.pipeline)
        version = upload.version_of(client, pipeline, stamped.digest) if pipeline else None
        if pipeline is None or version is None:
            raise UsageError(f"{name}: the stamped pipeline was not uploaded", next_step=_UPLOAD)
        return client.version(pipeline.id, version.id), f"version {version.name} of this tree"

    @cached_property
    def _lock(self) -> Lock:
        return locking.current(self._context)

    @cached_property
    def _head(self) -> git.Head:
        return git.head(self._context.config.project.root)

    def _of_ci(self, name: str, error: UsageError) -> tuple[Version, str]:
        found = self._in_ledger(name) or self._in_jenkins(name)
        if found is None:
            asked = f"; Jenkins was asked too: {self._asked}" if self._context.config.jenkins.url else ""
            message = f"{error.message}; and nothing was uploaded for this commit or branch{asked}"
            raise UsageError(message, next_step=error.next_step or _UPLOAD) from error
        facts, source = found
        try:
            return self._context.kubeflow.version(facts["pipeline_id"], facts["version_id"]), source
        except NotFound as missing:
            message = f"version {facts['version']} of {name} is no longer in Kubeflow ({source})"
            raise UsageError(message, next_step=_UPLOAD) from missing

    def _in_ledger(self, name: str) -> tuple[Mapping[str, Any], str] | None:
        if not self._context.has_ledger:
            return None
        events = self._context.ledger.events("upload", self._context.config.environment.name, name)
        for key, value in (("commit", self._head.commit), ("branch", self._head.branch)):
            for event in events:
                if value and event.document.get(key) == value and not event.document.get("dirty"):
                    return event.document, f"version {event.document['version']}, uploaded for {key} {value}"
        return None

    def _in_jenkins(self, name: str) -> tuple[Mapping[str, Any], str] | None:
        """Return what the newest green build that uploaded the pipeline to this environment says of it."""
        if not self._context.config.jenkins.url:
            return None
        for told, manifest in self._archived():
            facts = _facts(manifest, name)
            if facts and manifest.get("environment") == self._context.config.environment.name:
                return facts, f"version {facts['version']}, uploaded by {told}"
        return None

    def _archived(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the manifests of green builds; each is fetched once, and only when all before it did not fit."""
        yield from self._manifests
        try:
            for found in self._more:
                self._manifests.append(found)
                yield found
        except RemoteError as error:
            raise RemoteError(f"Jenkins cannot be asked for the last green build: {error.message}", next_step=error.next_step) from error
        except JenkinsNotFound as error:
            self._asked = error.message

    @cached_property
    def _more(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return self._fetched()

    def _fetched(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        head = self._head
        if not head.branch:
            self._asked = "no branch is checked out, so none can be asked for"
            return
        for green in finding.greens(self._context, commit=head.commit, branch=head.branch):
            content = self._context.jenkins.artifact(green.build, MANIFEST)
            if content is None:
                continue
            manifest = finding.document(content, place=f"{green.build.url}artifact/{MANIFEST}")
            if isinstance(manifest, dict) and manifest.get("project") == self._context.config.project.name:
                yield f"{green.told} ({'this commit' if green.of_commit else 'this branch'}), {green.build.url}", manifest


def _facts(manifest: Mapping[str, Any], name: str) -> Mapping[str, str]:
    """Return what a manifest says of a pipeline's version; nothing where it says less, or in another shape."""
    pipelines = manifest.get("pipelines")
    told = pipelines.get(name) if isinstance(pipelines, dict) else None
    facts = {key: value for key, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}
    return facts if facts.keys() >= _NEEDED else {}
