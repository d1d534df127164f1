"""History and tags as git tells them, and the one thing that a release changes there: new tags, never moved ones."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trainshed import masking, settings
from trainshed.errors import RemoteError, UsageError, WorkFailed
from trainshed.releases.commits import Commit
from trainshed.tools import git, process
from trainshed.tools.process import Outcome

_REMOTE_SECONDS = 300.0
_TOKEN_USER = "x-access-token"  # noqa: S105 - a user's name: what GitHub asks for, and others take as any
_FIELDS = ("%H", "%P", "%an", "%at", "%s", "%b")
_HISTORY = ("--no-show-signature", "--no-color", "--encoding=UTF-8", "--full-history")
_KEPT = ("-c", "log.follow=false", "-c", "log.mailmap=false", "--no-replace-objects", "--literal-pathspecs")
_REFERENCES = ("refname:strip=2", "objectname", "objecttype", "*objectname", "*objecttype", "taggername", "taggeremail")
_PEELED = "^{}"
_OURS = "trainshed-release"
_TAGS_ALONE = ("--no-follow-tags", "--recurse-submodules=no")
_FETCHED = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance")
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_REFUSED = re.compile(
    r"authentication failed|could not read (?:username|password)|terminal prompts disabled|permission.{0,40}denied|access denied"
    r"|returned error: 40[134]|repository .{0,200}not found|not appear to be a git repository|invalid credentials|not authorized"
    r"|host key verification failed|permission to .{0,200} denied",
    re.IGNORECASE,
)
_CREDENTIALS = "Give the credentials that may push tags there: release.token-env, or git's own (docs/how-to/version-a-release.md)."


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag of this repository: ``commit`` is what it stands for in the end, also a tree or a file; ``tagger`` may be empty."""

    name: str
    commit: str
    tagger: str


@dataclass(frozen=True, kw_only=True)
class Remote:
    """Where tags are pushed to. ``token`` is empty for git's own credentials."""

    name: str
    url: str
    token: str = ""

    @property
    def shown(self) -> str:
        """Return its name and address for people, without any log-in."""
        return f"{self.name} ({re.sub(r'://[^/@]*@', '://', self.url)})"


class TagTaken(WorkFailed):
    """Somebody else has given the tag to another commit."""


class PushUnknown(RemoteError):
    """The push was cut off, and the remote cannot be asked: the tags may be there or not."""


def require_whole(root: Path) -> None:
    """Refuse a history that was cut off: what came before would be taken for nothing.

    Raises:
        UsageError: it is a shallow clone.
    """
    if git.run(root, "rev-parse", "--is-shallow-repository", check=True).output.strip() == "true":
        step = "Run `git fetch --unshallow --tags`; in Jenkins, turn off the shallow clone of the job's checkout."
        raise UsageError(f"{root}: the history is cut off (a shallow clone), so no version can be told from it", next_step=step)


def history(root: Path, since: str | None, until: str, paths: Sequence[str] = ()) -> list[Commit]:
    """Return the commits after one up to another, the newest first.

    Args:
        root: a folder of the repository.
        since: a commit whose history does not count; None: from the beginning.
        until: a commit.
        paths: only commits that touch these, relative to ``root``; all when empty.
    """
    span = until if since is None else f"{since}..{until}"
    form = "--format=tformat:" + "%x00".join(_FIELDS)
    words = [*_KEPT, "log", "-z", form, *_HISTORY, "--end-of-options", span, "--", *paths]
    fields = git.run(root, *words, check=True).output.split("\0")
    return [_commit(fields[start : start + len(_FIELDS)]) for start in range(0, len(fields) - 1, len(_FIELDS))]


def _commit(fields: Sequence[str]) -> Commit:
    commit, parents, author, time, subject, body = fields
    merge = len(parents.split()) > 1
    return Commit(id=commit, subject=subject, body=body.strip(), author=author, time=int(time or 0), merge=merge)


def ancestors(root: Path, commit: str) -> set[str]:
    """Return a commit and all that it came from."""
    return set(git.run(root, "--no-replace-objects", "rev-list", "--end-of-options", commit, check=True).output.split())


def tags(root: Path) -> dict[str, Tag]:
    """Return the tags of this repository by name."""
    form = "--format=" + "%00".join(f"%({field})" for field in _REFERENCES)
    found = {}
    for line in git.run(root, "for-each-ref", form, "refs/tags", check=True).output.split("\n"):
        if line:
            tag = _tag(root, line.split("\0"))
            found[tag.name] = tag
    return found


def _tag(root: Path, fields: Sequence[str]) -> Tag:
    name, own, kind, inner, inner_kind, tagger, email = fields
    commit = inner if kind == "tag" else own
    if inner_kind == "tag":  # a tag of a tag
        commit = git.run(root, "rev-parse", "--verify", f"{own}{_PEELED}", check=True).output.strip()
    return Tag(name=name, commit=commit, tagger=f"{tagger} {email}".strip())


def remote(root: Path, name: str, *, token: str = "") -> Remote | None:
    """Return where tags are pushed to; None when the repository has no remote at all.

    Raises:
        UsageError: there are remotes, and none is called so; or it has several addresses to push to.
    """
    known = git.run(root, "remote", check=True).output.split()
    if not known:
        return None
    if name not in known:
        message = f"release.remote: this repository has no remote '{name}'"
        raise UsageError(message, next_step=f"Name one of: {', '.join(known)}.")
    urls = git.run(root, "remote", "get-url", "--push", "--all", name, check=True).output.split("\n")
    told = [url for url in urls if url]
    if len(told) != 1:
        message = f"remote '{name}' has {len(told)} addresses to push to, and a release is decided at one"
        raise UsageError(message, next_step="Name a remote with one address in release.remote.")
    return Remote(name=name, url=told[0], token=token)


def remote_tags(root: Path, remote: Remote) -> dict[str, str]:
    """Return the commits of the remote's tags by name.

    Raises:
        UsageError: the remote lets us not in.
        RemoteError: it cannot be asked.
    """
    outcome = _asked(root, remote, "ls-remote", "--tags", "--quiet", _OURS)
    if outcome.code != 0:
        raise _failure(remote, outcome, "its tags cannot be read")
    found: dict[str, str] = {}
    for line in outcome.output.splitlines():
        commit, _, name = line.partition("\trefs/tags/")
        if name.endswith(_PEELED) or name not in found:
            found[name.removesuffix(_PEELED)] = commit
    return found


def tagger(root: Path) -> dict[str, str]:
    """Return the variables that tell git who tags: none where it knows by itself; in CI Trainshed at this machine, where it does not.

    Raises:
        UsageError: git does not know who works here.
    """
    if git.run(root, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT").code == 0:
        return {}
    if settings.in_ci():
        import socket

        return {"GIT_COMMITTER_NAME": "trainshed", "GIT_COMMITTER_EMAIL": f"trainshed@{socket.gethostname()}"}
    step = "Say it: git config user.name 'Your Name'; git config user.email you@example.org"
    raise UsageError(f"{root}: git does not know who you are, and a tag tells who made it", next_step=step)


def make(root: Path, name: str, commit: str, message: str, *, time: int) -> str:
    """Write an annotated tag that no name refers to yet; return its id. Unsigned, the same words give the same id.

    It is signed where git is told to (``tag.gpgSign``). Git names what it makes, so it works in a folder of its own with the objects of
    this repository. Nothing is left to be undone when it goes no further: git forgets what nobody refers to.

    Raises:
        UsageError: git does not know who we are, or cannot sign.
    """
    asked = ("rev-parse", "--path-format=absolute", "--show-object-format", "--git-path", "objects")
    form, objects = git.run(root, *asked, check=True).output.splitlines()
    told = _settings_of_tags(root)
    with tempfile.TemporaryDirectory(prefix="trainshed-tag-") as place:
        git.run(root, "init", "--quiet", "--bare", "--template=", f"--object-format={form}", place, check=True)
        environment = {"GIT_DIR": place, "GIT_OBJECT_DIRECTORY": objects, "GIT_COMMITTER_DATE": f"@{time} +0000", **tagger(root), **told}
        text = message.replace("\0", "").rstrip("\n")
        try:
            _fed(root, f"{text}\n", "tag", "--cleanup=verbatim", "--file=-", name, commit, environment=environment)
        except WorkFailed as error:
            if not signs(root):
                raise
            step = "Give this agent the key, and let it be used without a question; or here: git config tag.gpgSign false"
            raise UsageError(f"{root}: git is told to sign tags, and cannot: {error.message}", next_step=step) from error
        return git.run(root, "rev-parse", "--verify", f"refs/tags/{name}", check=True, environment=environment).output.strip()


def signs(root: Path) -> bool:
    """Tell whether git is told to sign tags."""
    asked = ("config", "--type=bool", "--get-regexp", r"^tag\.(gpgsign|forcesignannotated)$")
    return any(line.endswith(" true") for line in git.run(root, *asked).output.splitlines())


def _settings_of_tags(root: Path) -> dict[str, str]:
    """Return the variables that tell git how tags are made here: in the folder of `make` the files of this repository are not read."""
    told = git.run(root, "config", "--null", "--get-regexp", r"^(user|committer|gpg|tag)\.").output.split("\0")
    return _handed([(key, value if found else "true") for key, found, value in (each.partition("\n") for each in told if each)])


def _handed(told: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the variables that hand settings to one git process, after those that the environment hands to all."""
    first = settings.git_settings()
    handed = {"GIT_CONFIG_COUNT": str(first + len(told))}
    for number, (key, value) in enumerate(told, first):
        handed |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return handed


def keep(root: Path, objects: Mapping[str, str], *, commit: str) -> None:
    """Give tags their names here, all or none: ids that `make` returned by name, all of one commit, as whose tags they may be there.

    Raises:
        TagTaken: a tag is there for another commit.
        WorkFailed: git does not do it, as when another process gives a tag of this name just now.
    """
    present = tags(root)
    taken = {name: (present[name].commit, present[name].tagger) for name in objects if name in present and present[name].commit != commit}
    if taken:
        raise taken_by(taken, "here")
    lines = [f"{'update' if name in present else 'create'} refs/tags/{name} {made}\n" for name, made in objects.items()]
    _fed(root, "".join(lines), "update-ref", "--stdin")


def require_pushable(root: Path, remote: Remote, names: Sequence[str], commit: str) -> None:
    """Try what `push` will do without doing it, so that nothing else is done first where it cannot be.

    Raises:
        TagTaken: a tag is there already.
        UsageError: the remote lets us not in.
        RemoteError: it cannot be asked.
    """
    outcome = _pushed(root, remote, dict.fromkeys(names, commit), "--dry-run")
    if outcome.code != 0:
        raise _rejected(root, remote, outcome, dict.fromkeys(names, commit))


def push(root: Path, remote: Remote, objects: Mapping[str, str], commit: str) -> bool:
    """Push new tags, all or none; tell whether it was us, or they were there already for the same commit.

    Args:
        root: a folder of the repository.
        remote: where to.
        objects: ids that `make` returned, by the tags' names.
        commit: what they stand for.

    Raises:
        TagTaken: a tag is there for another commit.
        UsageError: the remote refuses to take tags from us.
        PushUnknown: it is not known whether they arrived.
        RemoteError: they did not arrive.
    """
    try:
        outcome = _pushed(root, remote, objects)
    except WorkFailed as error:  # it took too long
        outcome = Outcome(code=-1, output="", errors=error.message, seconds=0.0)
    if outcome.code == 0:
        return True
    try:
        there = remote_tags(root, remote)
    except (RemoteError, UsageError, WorkFailed) as error:
        if _REFUSED.search(outcome.errors) or _words(outcome):
            raise _failure(remote, outcome, "the tags were not pushed") from error
        message = f"the push of {', '.join(objects)} to {remote.shown} was cut off, and whether it arrived cannot be asked: {error.message}"
        raise PushUnknown(message, next_step="Run the same command again once it answers.") from error
    if all(there.get(name) == commit for name in objects):
        return False
    raise _rejected(root, remote, outcome, dict.fromkeys(objects, commit), there)


def taken_by(tags: Mapping[str, tuple[str, str]], where: str) -> TagTaken:
    """Return the error that says who has tags: commit and tagger by name."""
    lines = [
        f"tag {name} is {where} already, for commit {git.short(commit) or 'none'}" + (f", made by {who}" if who else "")
        for name, (commit, who) in sorted(tags.items())
    ]
    return TagTaken("\n".join(lines), next_step="A version is given once: find out who made it, then release anew.")


def _pushed(root: Path, remote: Remote, objects: Mapping[str, str], *options: str) -> Outcome:
    """Push without force; hooks of this folder and tags that happen to be reachable are left out."""
    refs = [f"{made}:refs/tags/{name}" for name, made in objects.items()]
    atomic = ("--atomic",) if len(refs) > 1 else ()
    return _asked(root, remote, "push", "--porcelain", "--no-verify", *_TAGS_ALONE, *atomic, *options, _OURS, *refs)


def _rejected(
    root: Path, remote: Remote, outcome: Outcome, wanted: Mapping[str, str], there: Mapping[str, str] | None = None
) -> WorkFailed | UsageError | RemoteError:
    found = there if there is not None else remote_tags(root, remote) if _words(outcome) else {}
    other = {name: found[name] for name in wanted if name in found and (there is None or found[name] != wanted[name])}
    return taken_on(root, remote, other) if other else _failure(remote, outcome, "the tags were not pushed")


def taken_on(root: Path, remote: Remote, commits: Mapping[str, str]) -> TagTaken:
    """Return the error that says who has tags of the remote: commits by name."""
    return taken_by({name: (commit, _who(root, remote, name)) for name, commit in commits.items()}, f"on {remote.shown}")


def told(root: Path, remote: Remote | None, name: str) -> str:
    """Return a tag with its head and message, as the remote has it; without a remote, as it is here. Empty where there is none.

    Fetching it names nothing here.

    Raises:
        UsageError: the remote lets us not in.
        RemoteError: it cannot be asked.
    """
    if remote is None:
        return git.run(root, "cat-file", "tag", f"refs/tags/{name}").output
    listed = _asked(root, remote, "ls-remote", "--quiet", _OURS, f"refs/tags/{name}")
    if listed.code != 0:
        raise _failure(remote, listed, f"tag {name} cannot be read")
    return _content(root, remote, name, listed.output)


def _content(root: Path, remote: Remote, name: str, listed: str) -> str:
    """Fetch a tag that was listed, and return what it says."""
    own = next((line.partition("\t")[0] for line in listed.splitlines() if line.endswith(f"\trefs/tags/{name}")), "")
    if not own:
        return ""
    fetched = _asked(root, remote, "fetch", *_FETCHED, _OURS, f"refs/tags/{name}")
    if fetched.code != 0:
        raise _failure(remote, fetched, f"tag {name} cannot be read")
    return git.run(root, "cat-file", "-p", own).output


def _who(root: Path, remote: Remote, name: str) -> str:
    """Return who made a tag of the remote."""
    try:
        said = told(root, remote, name)
    except (RemoteError, UsageError):
        return ""
    found = re.search(r"^(?:tagger|committer) (.*) \d+ [+-]\d{4}$", said, re.MULTILINE)
    return found[1] if found else ""


def _words(outcome: Outcome) -> str:
    """Return what the remote said of the tags that it did not take."""
    return "; ".join(line.rpartition("\t")[2] for line in outcome.output.splitlines() if line.startswith("!"))


def _failure(remote: Remote, outcome: Outcome, what: str) -> UsageError | RemoteError:
    said = _words(outcome)
    heard = [line.removeprefix("remote: ").strip() for line in outcome.errors.strip().splitlines()]
    told = "; ".join(filter(None, [said, *heard[-5:]]))  # one line, for tables show only the first
    message = f"{remote.shown}: {what}: {told}"
    if _REFUSED.search(outcome.errors):
        return UsageError(message, next_step=_CREDENTIALS)
    if "remote rejected" in said and "lock" not in said:  # a lock is somebody else's push, just now
        return UsageError(message, next_step="Let this account make tags of this name there: the remote has rules against it.")
    return RemoteError(message, next_step="Run the same command again once it answers.")


def _asked(root: Path, remote: Remote, *arguments: str) -> Outcome:
    """Run a command on the remote, called by a name of our own for this one process: its address and token are in no argument."""
    told = {f"remote.{_OURS}.url": remote.url}
    hidden = [remote.token, *masking.logins(remote.url)]
    if remote.token and (place := _trusted(remote.url)):
        user = unquote(urlsplit(remote.url).username or _TOKEN_USER)
        login = base64.b64encode((remote.token if ":" in remote.token else f"{user}:{remote.token}").encode()).decode()
        told |= {f"http.{place}.extraHeader": f"Authorization: Basic {login}", "http.followRedirects": "false"}
        hidden += [login, remote.token.rpartition(":")[2]]
    environment = {**_handed(list(told.items())), **_QUIET}
    return git.run(root, *arguments, environment=environment, secrets=hidden, limit=_REMOTE_SECONDS)


def _trusted(url: str) -> str:
    """Return the server that a token may be sent to: over https, or to this machine; empty for any other."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
    return ""


def _fed(root: Path, text: str, *arguments: str, environment: Mapping[str, str] | None = None) -> process.Outcome:
    with tempfile.TemporaryFile() as given:
        given.write(text.encode(errors="surrogateescape"))
        given.seek(0)
        return git.run(root, *arguments, check=True, stdin=given, environment=environment)
