"""Which uploaded version of a pipeline a run shall take, and why it is this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainshed import formats
from trainshed.errors import RemoteError, UsageError
from trainshed.pipelines.lock import Lock
from trainshed.reports import manifest
from trainshed.settings import Tier
from trainshed.stages import locking, upload
from trainshed.stages.context import Context
from trainshed.stages.jenkins import finding
from trainshed.stages.jenkins.finding import Green
from trainshed.tools import git
from trainshed.tools.jenkins_records import NotFound as JenkinsNotFound
from trainshed.tools.kubeflow_records import NotFound, Version

MANIFEST = f"build/{manifest.FILE_NAME}"
_UPLOAD = "Run `trainshed upload`."
_PUSH = "Push, and let CI build and upload it."
_LOCAL = "Push, and let CI build and upload it; or run what was built here: `trainshed upload`, then --local-images."
_NEEDED = frozenset({"pipeline_id", "version_id", "version"})


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A version to run.

    ``source`` says why it is this one; ``commit`` and ``build_url`` say what made it, empty where nothing does.

    ``changed``: of a tree with changes that are not committed.
    """

    version: Version
    source: str
    commit: str = ""
    build_url: str = ""
    changed: bool = False


class References:
    """The versions for one command.

    On a laptop it is what CI uploaded: for this commit, says the ledger, else Jenkins; else for this branch, in the same order. What a
    laptop uploaded is none of CI's. In a Jenkins build, and where Kubeflow is the embedded one, the tree's own stamped pipeline comes
    before these while the lock is of the tree. A controller that cannot be asked is an error, never a reason to take something older.

    Args:
        context: the command's room.
        local_images: take the tree's own, and nothing else; None for a command that has no such option.
    """

    def __init__(self, context: Context, *, local_images: bool | None = False) -> None:
        self._context, self._only_own, self._optional = context, bool(local_images), local_images is not None
        self._own_first = bool(context.build_url) or context.config.environment.kubeflow.host is None
        self._manifests: dict[int, Mapping[str, Any] | None] = {}
        self._asked = "no green build of this branch uploaded it"

    def check_ahead(self, names: Iterable[str]) -> None:
        """Read the tree's own pipelines where nothing else will do, before anything is asked.

        Raises:
            UsageError: there is no lock of this tree, or one is not stamped from it.
        """
        if self._only_own:
            for name in names:
                upload.read_stamped(self._context, self._lock, name)

    def version(self, name: str) -> tuple[Version, str]:
        """Return the version of a pipeline to run, and why it is this one; see `reference`."""
        found = self.reference(name)
        return found.version, found.source

    def reference(self, name: str) -> Reference:
        """Return the version of a pipeline to run; a warning says what of the tree it does not have.

        Raises:
            UsageError: nothing was uploaded, or what was is no longer in Kubeflow.
            RemoteError: Kubeflow or Jenkins cannot be asked.
        """
        if not self._only_own and not self._own_first:
            return self._of_ci(name, None)
        try:
            stamped = upload.read_stamped(self._context, self._lock, name)
        except UsageError as error:
            if self._only_own:
                raise
            return self._of_ci(name, error)
        return self._own(stamped)

    def _own(self, stamped: upload.Stamped) -> Reference:
        client = self._context.kubeflow
        pipeline = client.pipeline_by_name(stamped.pipeline)
        version = upload.version_of(client, pipeline, stamped.digest) if pipeline else None
        if pipeline is None or version is None:
            raise UsageError(f"{stamped.name}: the stamped pipeline of this tree was not uploaded", next_step=_UPLOAD)
        return Reference(
            version=client.version(pipeline.id, version.id),
            source=f"version {version.name} of this tree (its own images)",
            commit=self._head.commit or "",
            build_url=self._context.build_url or "",
            changed=self._head.dirty,
        )

    @cached_property
    def _lock(self) -> Lock:
        return locking.current(self._context)

    @cached_property
    def _head(self) -> git.Head:
        return git.head(self._context.config.project.root)

    def _of_ci(self, name: str, error: UsageError | None) -> Reference:
        found = (
            self._in_ledger(name, "commit", self._head.commit)
            or self._in_jenkins(name, of_commit=True)
            or self._in_ledger(name, "branch", self._head.branch)
            or self._in_jenkins(name, of_commit=False)
        )
        if found is None:
            asked = f"; Jenkins was asked too: {self._asked}" if self._context.config.jenkins.url else ""
            before = f"{error.message}; and" if error else f"{name}:"
            message = f"{before} CI uploaded nothing for this commit or branch to {self._context.config.environment.name}{asked}"
            raise UsageError(message, next_step=(error.next_step if error else "") or (_LOCAL if self._optional else _PUSH)) from error
        facts, source = found
        try:
            version = self._context.kubeflow.version(facts["pipeline_id"], facts["version_id"])
        except NotFound as missing:
            message = f"version {facts['version']} of {name} is no longer in Kubeflow ({source})"
            raise UsageError(message, next_step=_UPLOAD) from missing
        commit = _text(facts, "commit")
        self._warn(name, version, commit)
        return Reference(version=version, source=source, commit=commit, build_url=_text(facts, "build_url"))

    def _warn(self, name: str, version: Version, commit: str) -> None:
        """Say what of the tree is not in the version: nobody shall take the run of a pushed commit for one of the edited file."""
        head = self._head
        ahead = bool(head.commit) and not finding.same_commit(commit, head.commit or "")
        if not ahead and not head.dirty:
            return
        wrong = [
            *([f"the tree is at commit {finding.short(head.commit)}, it is of commit {finding.short(commit)}"] if ahead else []),
            *(["the tree has changes that are not committed"] if head.dirty else []),
        ]
        see = "; see --local-images" if self._optional else ""
        self._context.console.warning(f"{name}: version {version.name} is not of this tree: {', and '.join(wrong)}{see}")

    def _in_ledger(self, name: str, key: str, value: str | None) -> tuple[Mapping[str, Any], str] | None:
        """Return the newest upload of a build of CI for the commit or branch."""
        for event in upload.recorded(self._context, name) if value else ():
            told = event.document
            same = told.get(key) == value or (key == "branch" and told.get("change_branch") == value)
            if event.tier >= Tier.PULL_REQUEST and same and not told.get("dirty") and told.keys() >= _NEEDED:
                by = f" by {told['build_url']}" if told.get("build_url") else ""
                shown = finding.short(value) if key == "commit" else value
                return told, f"version {told['version']}, uploaded for {key} {shown}{by}"
        return None

    def _in_jenkins(self, name: str, *, of_commit: bool) -> tuple[Mapping[str, Any], str] | None:
        """Return what the newest green build that uploaded the pipeline to this environment says of it."""
        for green in self._greens(of_commit=of_commit):
            archived = self._manifest(green)
            facts = _facts(archived, name) if archived is not None else {}
            if archived is not None and facts and archived["environment"] == self._context.config.environment.name:
                told = f"{green.told} ({'this commit' if of_commit else 'this branch'}), {green.build.url}"
                commit = green.build.commit or _text(archived, "commit")
                return {**facts, "commit": commit, "build_url": green.build.url}, f"version {facts['version']}, uploaded by {told}"
        return None

    def _greens(self, *, of_commit: bool) -> Iterator[Green]:
        if self._context.config.jenkins.url:
            yield from (green for green in self._found_greens if green.of_commit == of_commit)

    @cached_property
    def _found_greens(self) -> list[Green]:
        head = self._head
        if not head.branch:
            self._asked = "no branch is checked out, so none can be asked for"
            return []
        try:
            return finding.greens(self._context, commit=head.commit, branch=head.branch)
        except JenkinsNotFound as error:
            self._asked = error.message
            return []
        except RemoteError as error:
            raise _unanswered(error) from error

    def _manifest(self, green: Green) -> Mapping[str, Any] | None:
        """Return what a build archived of this project; each is fetched once, and only when all before it did not fit."""
        number = green.build.number
        if number not in self._manifests:
            try:
                content = self._context.jenkins.artifact(green.build, MANIFEST)
                place = f"{green.build.url}artifact/{MANIFEST}"
                read = None if content is None else self._read(finding.document(content, place=place), place)
            except RemoteError as error:
                raise _unanswered(error) from error
            ours = read is not None and read["project"] == self._context.config.project.name
            self._manifests[number] = read if ours else None
        return self._manifests[number]

    def _read(self, document: Any, place: str) -> Mapping[str, Any] | None:  # noqa: ANN401 - what a build archived
        """Return a manifest; None when it is of a version that is known, and broken: an older build may tell more."""
        formats.version_of(document, manifest.KIND, place=place, next_step="Look at what the build archived there.")
        try:
            return manifest.parse(document, place=place)
        except UsageError as error:
            self._context.console.warning(f"{error.message}; looking further")
            return None


def _unanswered(error: RemoteError) -> RemoteError:
    return RemoteError(f"Jenkins cannot be asked for the last green build: {error.message}", next_step=error.next_step)


def _facts(archived: Mapping[str, Any], name: str) -> Mapping[str, str]:
    """Return what a manifest says of a pipeline's version; nothing where it says less."""
    facts: Mapping[str, str] = archived["pipelines"].get(name, {})
    return facts if facts.keys() >= _NEEDED else {}


def _text(told: Mapping[str, Any], key: str) -> str:
    """Return a text of what others wrote down."""
    value = told.get(key)
    return value if isinstance(value, str) else ""
