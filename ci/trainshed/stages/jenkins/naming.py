"""How builds and branches are named: by number, by address, and for people. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from trainshed.errors import UsageError

_HELP = "Name its number, or the address of its page."


def parse_build(text: str | None, *, url: str, job: str) -> tuple[str | None, int | None]:
    """Return the branch (None: not told) and the number (None: the last) that a build's number or address names.

    Args:
        text: such as ``12``, ``#12``, or the address of any page of a build.
        url: the configured controller.
        job: the configured multibranch job.

    Raises:
        UsageError: it is neither, or the address of another controller's or another job's build.
    """
    if text is None:
        return None, None
    if re.fullmatch(r"#?[1-9]\d*", text):
        return None, int(text.removeprefix("#"))
    if "://" not in text:
        raise UsageError(f"'{text}' is no build", next_step=_HELP)
    return _of_address(text, url=url, job=job)


def _of_address(text: str, *, url: str, job: str) -> tuple[str, int]:
    given, own = urlsplit(text), urlsplit(url)
    root = own.path.rstrip("/") + "/"
    if given.netloc.rpartition("@")[2].lower() != own.netloc.lower() or not given.path.startswith(root):
        raise UsageError(f"{text}: not a build of {url}", next_step="Name a build of the controller of `jenkins.url`.")
    match = re.match(r"((?:job/[^/]+/)+)([1-9]\d*)(?:/|$)", given.path.removeprefix(root))
    if match is None:
        raise UsageError(f"{text}: not the address of a build", next_step=_HELP)
    *folders, branch = [unquote(name) for name in match[1].removeprefix("job/").removesuffix("/").split("/job/")]
    named, wanted = "/".join(folders), job.strip("/")
    if named != wanted:
        raise UsageError(f"{text}: a build of job '{named}', not of '{wanted}'", next_step="Name a build of the job of `jenkins.job`.")
    return unquote(branch), int(match[2])  # a multibranch job encodes the name of its branch once more


def folder(job: str, branch: str, number: int) -> str:
    """Return a name for a folder of one build's things."""
    words = [re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") for text in (job.strip("/").rpartition("/")[2], branch)]
    return "-".join([*filter(None, words), str(number)])


def kind(branch: str) -> str:
    """Say whose build it is, for what can be done with its images: a pull request's, the main branch's, or another's."""
    if re.fullmatch(r"PR-\d+(-(head|merge))?", branch):
        return f"a build of pull request {branch}"
    return f"a build of {branch}" if branch in {"main", "master"} else f"a build of branch {branch}"
