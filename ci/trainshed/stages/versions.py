"""What a pipeline's version is called in Kubeflow, what is said of it there, and how two versions differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote_plus

import semver

from trainshed.pipelines import documents as yaml_documents
from trainshed.pipelines import mentions
from trainshed.pipelines.documents import Document
from trainshed.tools.kubeflow_records import TAG_LIMIT, VERSION_NAME_LIMIT

SHORT = 8
DESCRIPTION_LIMIT = 5000
"""The description is a part of the upload's address, which proxies cut off or refuse from 8 kB on; so many characters, quoted."""
_DIFFERENCE_LINES = 40
_DIGEST = "content: "
_RELEASE = "release: "
_SHORTEST_LINE = len("image x: sha256:") + 64


def semantic(tags: Iterable[str]) -> str | None:
    """Return the tag of the highest semantic version, as it is written (``v1.2.3`` or ``1.2.3``); None when none is one."""
    found = {tag: semver.Version.parse(tag.removeprefix("v")) for tag in sorted(tags) if semver.Version.is_valid(tag.removeprefix("v"))}
    return max(found, key=lambda tag: found[tag], default=None)


def short(digest: str) -> str:
    """Return a content digest as it stands in names."""
    return digest.removeprefix("sha256:")[:SHORT]


def name(*, release: str | None, branch: str | None, commit: str | None, digest: str) -> str:
    """Name a version by its release, else ``<branch>-<commit>-<content>``: the same for the same content of the same commit."""
    if release:
        return release[:VERSION_NAME_LIMIT]
    tail = f"{(commit or '')[:SHORT] or 'uncommitted'}-{short(digest)}"
    clean = re.sub(r"[^A-Za-z0-9._]+", "-", branch or ("detached" if commit else "")).strip("-.")
    return f"{clean[: VERSION_NAME_LIMIT - len(tail) - 1]}-{tail}".removeprefix("-")


def description(  # noqa: PLR0913 - all by keyword
    *, commit: str, lock_digest: str, digest: str, build_url: str | None, images: Mapping[str, str], release: str = ""
) -> str:
    """Say where a version comes from; images are left out from where the server's limit is reached, and counted.

    Args:
        commit: as people read it, with a word on changes.
        lock_digest: of the lock that it was stamped from.
        digest: of its content; `told_digest` finds it again.
        build_url: the Jenkins build, where there is one.
        images: component → ``repository@sha256:…`` of those that it uses.
        release: the id of the release that makes it, empty for none; `told_release` finds it again.
    """
    lines = [f"commit: {commit}", f"images: {lock_digest}", f"{_DIGEST}{digest}", *([f"build: {build_url}"] if build_url else [])]
    lines += [f"{_RELEASE}{release}"] if release else []
    digests = [f"image {component}: {reference.rpartition('@')[2]}" for component, reference in images.items()]
    kept = min(len(digests), DESCRIPTION_LIMIT // _SHORTEST_LINE)
    while kept and len(quote_plus("\n".join(_cut(lines, digests, kept)))) > DESCRIPTION_LIMIT:
        kept -= 1
    return "\n".join(_cut(lines, digests, kept))


def _cut(lines: list[str], digests: list[str], kept: int) -> list[str]:
    more = [f"… {len(digests) - kept} more images"] if kept < len(digests) else []
    return [*lines, *digests[:kept], *more]


def told_digest(description: str) -> str:
    """Return the content digest that a description tells, empty where it tells none."""
    return _told(description, _DIGEST)


def told_release(description: str) -> str:
    """Return the id of the release that made a version, empty where it was made otherwise."""
    return _told(description, _RELEASE)


def _told(description: str, word: str) -> str:
    return next((line.removeprefix(word) for line in description.splitlines() if line.startswith(word)), "")


def tags(*, project: str, commit: str | None, branch: str | None, build_url: str | None, digest: str) -> dict[str, str]:
    """Return the tags of a version; a value that Kubeflow finds too long is cut."""
    number = (build_url or "").rstrip("/").rpartition("/")[2]
    told = {"project": project, "commit": commit, "branch": branch, "build": number, "content": short(digest)}
    return {key: value[:TAG_LIMIT] for key, value in told.items() if value}


def images_of(documents: Sequence[Document], references: Mapping[str, str]) -> dict[str, str]:
    """Return those of the lock's references that a stamped pipeline uses."""
    used = {image.image for image in mentions.images(list(documents))}
    return {component: reference for component, reference in references.items() if reference in used}


def difference(there: Sequence[Document], here: Sequence[Document], *, name: str) -> str:
    """Show how a version in Kubeflow differs from what is here: moved images first, by executor, then a few dozen lines of all."""
    before, after = (yaml_documents.dump("", [document for document in side if document]).splitlines() for side in (there, here))
    lines = list(difflib.unified_diff(before, after, name, "this upload", n=1, lineterm=""))
    cut = [f"… {len(lines) - _DIFFERENCE_LINES} more lines"] if len(lines) > _DIFFERENCE_LINES else []
    return "\n".join([*_moved(there, here), *lines[:_DIFFERENCE_LINES], *cut])


def _moved(there: Sequence[Document], here: Sequence[Document]) -> list[str]:
    before, after = ({image.executor: image.image for image in mentions.images(list(side))} for side in (there, here))
    executors = [executor for executor in sorted({*before, *after}) if before.get(executor) != after.get(executor)]
    return [f"image of {each}: {before.get(each, 'not there')} → {after.get(each, 'not there')}" for each in executors]
