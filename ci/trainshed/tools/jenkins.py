"""Jenkins controllers, by jenkinsapi's requester (crumbs, tokens, sessions) and tree queries of our own.

The library's objects poll whole controllers, follow the first build that they find and wait without end; none of them is used. What a
trigger started is told by its queue item alone: the item's number is in the answer to the trigger, and every build keeps it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, unquote, urlsplit

from trainshed.errors import RemoteError, UsageError, WorkFailed, suggestion
from trainshed.tools import process
from trainshed.tools.jenkins_records import (
    BUILD_TREE,
    PARAMETERS_TREE,
    Build,
    Definition,
    Denied,
    Job,
    NotFound,
    Unavailable,
    address_in,
    address_of,
    build_from,
    definitions_from,
    encode_branch,
    same_job,
)

if TYPE_CHECKING:
    from trainshed.tools.jenkins_requests import Controller

__all__ = ["Build", "Definition", "Denied", "Jenkins", "Job", "NotFound", "Unavailable"]

PAGE = 100
SEARCHED_BUILDS = 1000
VANISHED_SECONDS = 60.0
"""How long a build is looked for whose queue item is no more: a controller that starts up may not have read it yet."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_ITEM_TREE = "id,cancelled,why,task[name,url],executable[number,url]"
_NEAR = 5


def _quiet(_: str) -> None:
    """Say nothing."""


class Jenkins:
    """A controller; a context manager that closes its connections. Safe for several threads.

    Every method raises `Unavailable` (a RemoteError) where the controller is away even after some tries, `Denied` (a RemoteError)
    where a log-in or a permission is missing, `NotFound` (a UsageError) where a job or build is, `Interrupted` at SIGTERM.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @classmethod
    def connect(cls, url: str, *, user: str = "", token: str = "", timeout: float = 30.0) -> Self:
        """Return a client; nothing is asked yet.

        Args:
            url: the controller's address, with its context path.
            user: who asks; with ``token``, or neither.
            token: an API token, or a password.
            timeout: seconds for one try of a request.
        """
        from trainshed.tools.jenkins_requests import Controller

        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise UsageError("jenkins.url: expected https://HOST[/PATH], without user or password", next_step="Correct jenkins.url.")
        user, token = user.strip(), token.strip()
        if bool(user) != bool(token):
            missing = "an API token, in the variable that jenkins.token-env names" if user else "the user of the token: jenkins.user"
            raise UsageError(f"{url}: a user and a token belong together", next_step=f"Give {missing}.")
        return cls(Controller(url, user, token, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all idle connections."""
        self._controller.close()

    def end_at(self, ends: float | None) -> None:
        """Ask for nothing again after a time of `time.monotonic`, and wait for no answer much longer."""
        self._controller.ends = ends

    def job(self, path: str, branch: str | None = None) -> Job:
        """Return a job by its full name.

        Args:
            path: the name with its folders: ``team/repository``.
            branch: a branch of a multibranch job as git names it, or ``PR-7``.

        Raises:
            NotFound: names what is missing and what is near.
            UsageError: the job is of another kind than the question.
        """
        segments = [segment for segment in path.split("/") if segment]
        if not segments:
            raise UsageError("no job is named", next_step="Name it: jenkins.job = 'team/repository'.")
        name = "/".join(segments)
        if branch is None:
            found = self._folder(segments) or self._missing(segments)
            self._refuse_folder(name, found)
            return Job(path=name, branch=None, address=address_of(segments))
        address = address_of([*segments, encode_branch(branch)])
        if self._controller.document(address, "name") is not None:
            return Job(path=name, branch=branch, address=address)
        return self._branch(segments, name, branch)

    def parameters(self, job: Job) -> list[Definition]:
        """Return the parameters that a job takes, in its order; a new branch has none until its first build has read the Jenkinsfile."""
        return definitions_from(self._need(job.address, PARAMETERS_TREE, f"{job}"))

    def trigger(self, job: Job, parameters: Mapping[str, str]) -> int:
        """Ask for a build; return the number of its queue item. Jenkins gives two triggers with equal parameters one item while it waits.

        Parameters that the job does not define are ignored by Jenkins: check them against `parameters` before.

        Raises:
            Unavailable: certainly not taken; may be repeated.
            RemoteError: nobody knows whether it was taken; the next step says where to look.
            UsageError: Jenkins refuses it: the job takes no parameters, is disabled…
        """
        takes = bool(self.parameters(job))
        if parameters and not takes:
            step = "Build it once without parameters: a job reads them from its Jenkinsfile at its first build."
            raise UsageError(f"{job}: takes no parameters, but got {', '.join(parameters)}", next_step=step)
        look = f"{self._controller.name}/{job.address}/"
        verb = "buildWithParameters" if takes else "build"
        answer = self._controller.post(f"{job.address}/{verb}", {"delay": "0sec"}, dict(parameters), look=look)
        named = re.search(r"/queue/item/(\d+)/?$", answer.headers.get("location", ""))
        if named is None:
            self._controller.checked(answer)
            raise RemoteError(f"{job}: Jenkins named no queue item", next_step=f"Look at {look} before you trigger again.")
        return int(named[1])

    def build_of(self, job: Job, queue_id: int, *, deadline: float | None, on_wait: Callable[[str], None] = _quiet) -> Build:
        """Wait until the build of a queue item has begun; return that build and no other. A controller that restarts is waited for.

        Args:
            job: the job of the item.
            queue_id: what `trigger` returned.
            deadline: seconds to wait; None: as long as it takes.
            on_wait: called with what it waits for, each time that this changes.

        Raises:
            WorkFailed: the item was cancelled, or the deadline passed while it waited.
            RemoteError: the item is gone and no build is its own, or the controller was away until the deadline.
        """
        ends = None if deadline is None else time.monotonic() + deadline
        gone: float | None = None
        waiting = _Waiting(f"{job}: queue item {queue_id}", ends, on_wait)
        while True:
            try:
                found = self._look(job, queue_id, ends)
            except Unavailable as error:
                gone = None
                waiting.pause(error.message, error)
                continue
            if isinstance(found, Build):
                return found
            gone = None if found else gone or time.monotonic()
            if gone is not None and time.monotonic() - gone > VANISHED_SECONDS:
                raise RemoteError(
                    f"{job}: queue item {queue_id} is gone, and no build of the job is its own: it was cancelled, or its build deleted",
                    next_step=f"Look at {self._controller.name}/{job.address}/.",
                )
            waiting.pause(found or "its queue item is gone; looking for its build")

    def build(self, job: Job, which: int | str) -> Build:
        """Return a build by its number, or by a name such as ``lastBuild`` or ``lastSuccessfulBuild``."""
        found = self._controller.document(f"{job.address}/{quote(str(which), safe='')}", BUILD_TREE)
        if found is None:
            self._need(job.address, "name", f"{job}")
            what = f"build {which}" if str(which).isdigit() else f"'{which}'"
            step = f"Look at {self._controller.name}/{job.address}/ for the builds that it has; old ones are discarded."
            raise NotFound(f"{job}: has no {what}", next_step=step)
        return build_from(found, job)

    def builds(self, job: Job, *, limit: int = PAGE) -> list[Build]:
        """Return the newest builds, newest first."""
        return [build_from(document, job) for document in self._documents(job, BUILD_TREE, limit, None)]

    def console(self, build: Build, start: int) -> tuple[str, int, bool]:
        """Return what the log holds from an offset on, the offset to go on from, and whether more may come.

        A character that is cut in two is left for the next time. A log that has become shorter (its end was lost with a controller)
        gives no text and its present end.
        """
        answer = self._controller.get(f"{address_in(build.url)}/logText/progressiveText", {"start": str(start)})
        if answer is None:
            raise NotFound(f"{build.url}: has no log", next_step="Check that the build has not been discarded.")
        size = answer.headers.get("x-text-size", "")
        after = int(size) if size.isdigit() else start + len(answer.body)
        more = answer.headers.get("x-more-data", "").lower() == "true"
        if after < start:
            return "", after, more
        whole = answer.body if not more else answer.body[: len(answer.body) - _cut_off(answer.body)]
        return whole.decode(errors="replace"), after - (len(answer.body) - len(whole)), more

    def artifact(self, build: Build, path: str) -> bytes | None:
        """Return the content of an archived file by its relative path, None where there is none.

        A path may come out of an archive, so out of a pull request: one that leads out of the build's files is asked for by nobody.
        """
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            return None
        answer = self._controller.get(f"{address_in(build.url)}/artifact/{quote(path)}")
        return None if answer is None else answer.body

    def artifacts(self, build: Build) -> list[str]:
        """Return the relative paths of all archived files."""
        found = self._need(address_in(build.url), "artifacts[relativePath]", build.url)
        return [str(each["relativePath"]) for each in found.get("artifacts") or ()]

    def _look(self, job: Job, queue_id: int, ends: float | None) -> Build | str:
        """Return an item's build, else why there is none yet; an empty string when the item is gone."""
        item = self._controller.document(f"queue/item/{queue_id}", _ITEM_TREE, ends=ends)
        if item is None:
            return self._by_queue_id(job, queue_id, SEARCHED_BUILDS, ends) or ""
        task = item.get("task") or {}
        if task.get("url") and not same_job(str(task["url"]), job):
            other = unquote(unquote(address_in(str(task["url"])))).replace("job/", "")
            raise UsageError(f"queue item {queue_id} is of {other}, not of {job}", next_step="Check the number of the item.")
        if item.get("cancelled"):
            raise WorkFailed(f"{job}: queue item {queue_id} was cancelled before its build began", next_step="Trigger it again.")
        number = (item.get("executable") or {}).get("number")
        if number is not None:
            found = self._controller.document(f"{job.address}/{number}", BUILD_TREE, ends=ends)
            if found is not None and found.get("queueId") == queue_id:
                return build_from(found, job)
        if number is None and item.get("why"):
            return str(item["why"])
        return self._by_queue_id(job, queue_id, PAGE, ends) or "its build is about to begin"

    def _by_queue_id(self, job: Job, queue_id: int, limit: int, ends: float | None) -> Build | None:
        """Return the newest build that keeps the item's number, among the newest of the job."""
        for document in self._documents(job, BUILD_TREE, limit, ends, until=queue_id):
            if document.get("queueId") == queue_id:
                return build_from(document, job)
        return None

    def _documents(self, job: Job, tree: str, limit: int, ends: float | None, *, until: int | None = None) -> list[dict[str, Any]]:
        """Return up to ``limit`` builds, newest first, a page at a time; no further page once the item ``until`` was met."""
        seen: dict[int, dict[str, Any]] = {}  # a build that begins meanwhile moves the others on: by number, each once
        first = 0
        while len(seen) < limit:
            last = min(first + PAGE, limit)
            which = "builds" if first == 0 else "allBuilds"  # `builds` is quick and ends after a hundred
            page = self._need(job.address, f"{which}[{tree}]{{{first},{last}}}", f"{job}", ends=ends).get(which) or []
            seen.update((int(each["number"]), each) for each in page if int(each["number"]) not in seen)
            if len(page) < last - first or any(until is not None and each.get("queueId") == until for each in page):
                break
            first = last
        return list(seen.values())[:limit]

    def _need(self, address: str, tree: str, what: str, *, ends: float | None = None) -> dict[str, Any]:
        found = self._controller.document(address, tree, ends=ends)
        if found is None:
            raise NotFound(f"{what}: Jenkins has none such any more", next_step="Check that it has not been deleted.")
        return found

    def _folder(self, segments: Sequence[str]) -> dict[str, Any] | None:
        return self._controller.document(address_of(segments), "name,fullName,jobs[name,displayName]")

    def _refuse_folder(self, name: str, found: Mapping[str, Any]) -> None:
        if "jobs" not in found:
            return
        if "MultiBranchProject" in str(found.get("_class")):
            names = _listed(unquote(str(each["name"])) for each in found["jobs"])
            raise UsageError(f"job {name} has a job for each branch: {names}", next_step="Name the branch.")
        names = _listed(str(each["name"]) for each in found["jobs"])
        raise UsageError(f"{name} is a folder, not a job; it holds {names}", next_step=f"Name one of them: {name}/….")

    def _branch(self, segments: Sequence[str], name: str, branch: str) -> Job:
        """Find a branch by the name that people see, where its job is named in another way; or say what there is."""
        found = self._folder(segments) or self._missing(segments)
        if "jobs" not in found:
            raise UsageError(f"job {name} is a single job, without branches", next_step="Name a multibranch job in jenkins.job.")
        for each in found["jobs"]:
            if branch in {each.get("displayName"), unquote(str(each["name"]))}:
                return Job(path=name, branch=branch, address=address_of([*segments, str(each["name"])]))
        known = [unquote(str(each["name"])) for each in found["jobs"]]
        raise NotFound(
            f"job {name} has no branch '{branch}'{suggestion(branch, known)} (it has {_listed(known)})",
            next_step="Push the branch, and scan the repository in Jenkins if it does not do so by itself.",
        )

    def _missing(self, segments: Sequence[str]) -> NoReturn:
        """Say how far a name leads and what is near."""
        for length in range(len(segments)):
            above = segments[:length]
            found = self._controller.document(address_of(above), "name,fullName,nodeName,jobs[name]")
            if found is None and not above:
                raise RemoteError(f"{self._controller.name}: no Jenkins controller answers there", next_step="Check jenkins.url.")
            if found is None or "jobs" not in found:
                break
            known = [str(each["name"]) for each in found["jobs"]]
            if segments[length] in known:
                continue
            where = f"folder {'/'.join(above)}" if above else self._controller.name
            near = suggestion(segments[length], known) or f" (there are {_listed(known)})"
            raise NotFound(f"{where} has no job '{segments[length]}'{near}", next_step=f"Correct the name, or {self._permit()}")
        raise NotFound(f"{self._controller.name} has no job '{'/'.join(segments)}'", next_step=f"Check the address, or {self._permit()}")

    def _permit(self) -> str:
        who = f"'{self._controller.user}'" if self._controller.user else "anybody without log-in"
        return f"let {who} see it (Job/Read): Jenkins hides what a user may not see."


class _Waiting:
    """Pauses that grow, what is waited for told when it changes, an end by deadline."""

    def __init__(self, what: str, ends: float | None, on_wait: Callable[[str], None]) -> None:
        self._what, self._ends, self._on_wait = what, ends, on_wait
        self._pause, self._told, self._reason = _FIRST_PAUSE, "", ""

    def pause(self, why: str, error: RemoteError | None = None) -> None:
        """Wait a moment; after the deadline raise the error, or `WorkFailed` with what was waited for.

        A last look that comes to nothing because its time was short is no news either.
        """
        stem = re.sub(r"[\d.]+", "", why)  # "Expires in 4.9 sec" is no news
        if stem != self._told:
            self._told, self._pause = stem, _FIRST_PAUSE
            self._on_wait(why)
        left = None if self._ends is None else self._ends - time.monotonic()
        if left is not None and left <= 0:
            if error is not None and not self._reason:
                raise error
            raise WorkFailed(f"{self._what}: the deadline passed: {self._reason or why}", next_step="Give more time: --deadline.")
        self._reason = why if error is None else ""
        process.pause(self._pause if left is None else min(self._pause, left))
        self._pause = min(_LONGEST_PAUSE, self._pause * 1.5)


def _cut_off(text: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character in UTF-8 that is not whole."""
    for length in range(1, min(4, len(text) + 1)):
        lead = text[-length]
        if lead >= 0xC0:  # noqa: PLR2004 - the first byte of a character of several
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4  # noqa: PLR2004 - UTF-8
            return length if length < needed else 0
        if lead < 0x80:  # noqa: PLR2004 - ASCII
            return 0
    return 0


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _NEAR} more" if len(shown) > _NEAR else ""
    return (", ".join(shown[:_NEAR]) or "none") + more
