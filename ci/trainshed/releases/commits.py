"""What commits say of themselves: conventional titles, breaking changes, reverts. Everything else asks for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

REVERT = "revert"
_SHORTEST_ID = 7
_TITLE = re.compile(
    r"(?P<type>[a-z][\w-]*)(?P<early>!)?(?:\((?P<scope>[^()\n]*)\))?(?P<late>!)?:(?!//)\s*(?P<text>\S.*)", re.IGNORECASE | re.DOTALL
)
_BREAKING = re.compile(r"^BREAKING[ -]CHANGE(?::[ \t]*| #)(?P<text>.*(?:\n(?!\s*$|[\w-]+(?:: | #)).*)*)", re.MULTILINE)
_REVERTS = re.compile(r"\bThis reverts commit ([0-9a-f]{7,64})\b")
_REFERS = re.compile(r"^Refs?: *([0-9a-f]{7,64}(?:[, ]+[0-9a-f]{7,64})*) *$", re.MULTILINE | re.IGNORECASE)
_QUOTED = re.compile(r'(?P<verb>Revert|Reapply) "(?P<title>.*)"(?: \(#\d+\))?', re.DOTALL)
_REPAIRS = re.compile(r"(?:fixup|squash|amend)! ")
_AZURE = re.compile(r"Merged PR \d+: ")
_MERGE = re.compile(r"Merged? (?:pull request|branch|branches|remote-tracking branch|commit|tag|in) ", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit: ``subject`` is its first paragraph in one line, ``time`` seconds since 1970; ``merge`` when it has several parents."""

    id: str
    subject: str
    body: str = ""
    author: str = ""
    time: int = 0
    merge: bool = False


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one commit changed, by its own word.

    ``type`` is in lower case, and empty for a commit that only says what it breaks; ``breaking`` says what breaks, empty for nothing.
    """

    commit: Commit
    type: str
    scope: str
    text: str
    breaking: str = ""


def changes(commits: Iterable[Commit]) -> list[Change]:
    """Return the changes that commits (the newest first) tell of, in their order.

    A commit and its revert among them cancel each other, and so does a revert with its own revert; ``fixup!`` and ``squash!`` belong to
    another commit; a merge tells nothing that its commits have not told, unless its own title is conventional.
    """
    found = [_change(commit) for commit in _standing(list(commits))]
    return [change for change in found if change is not None]


def _standing(commits: Sequence[Commit]) -> list[Commit]:
    """Leave out commits that were taken back, with what took them back; the newest is asked first, as it may take back a revert."""
    gone: set[str] = set()
    by_title: dict[str, list[int]] = {}
    for place, commit in enumerate(commits):
        by_title.setdefault(_title(commit), []).append(place)
    for place, commit in enumerate(commits):
        if commit.id in gone:
            continue
        taken = _taken_back(place, commit, commits, by_title, gone)
        if taken:
            gone |= {commit.id, *taken}
    return [commit for commit in commits if commit.id not in gone]


def _taken_back(place: int, commit: Commit, commits: Sequence[Commit], by_title: dict[str, list[int]], gone: set[str]) -> set[str]:
    """Return the ids of the earlier commits that a commit reverts: by the ids that it names, else by the title that it quotes."""
    title = _title(commit)
    quoted, parsed = _QUOTED.fullmatch(title), _TITLE.fullmatch(title)
    conventional = parsed is not None and parsed["type"].lower() == REVERT
    if quoted is None and not conventional:
        return set()
    named = _ids(commit.body)
    if named:
        return {each.id for each in commits[place + 1 :] if each.id not in gone and each.id.startswith(named)}
    if quoted is not None:
        wanted = f'Revert "{quoted["title"]}"' if quoted["verb"] == "Reapply" else quoted["title"]
    else:
        wanted = parsed["text"] if parsed else ""
    earlier = (each for each in by_title.get(wanted, ()) if each > place and commits[each].id not in gone)
    found = next(earlier, None)
    return set() if found is None else {commits[found].id}


def _ids(body: str) -> tuple[str, ...]:
    told = _lines(body)
    found = [*_REVERTS.findall(told), *(word for line in _REFERS.findall(told) for word in re.split(r"[, ]+", line))]
    return tuple(word for word in found if len(word) >= _SHORTEST_ID)


def _change(commit: Commit) -> Change | None:
    title = _title(commit)
    if _REPAIRS.match(title):
        return None
    footer, quoted, parsed = _BREAKING.search(_lines(commit.body)), _QUOTED.fullmatch(title), _TITLE.fullmatch(title)
    text = quoted["title"] if quoted else parsed["text"].strip() if parsed else title
    breaks = " ".join(footer["text"].split()) or text if footer else ""
    if quoted:
        return Change(commit=commit, type=REVERT, scope="", text=text, breaking=breaks)
    if not parsed:
        return Change(commit=commit, type="", scope="", text=text, breaking=breaks) if breaks else None
    breaks = breaks or (text if parsed["early"] or parsed["late"] else "")
    return Change(commit=commit, type=parsed["type"].lower(), scope=(parsed["scope"] or "").strip(), text=text, breaking=breaks)


def _title(commit: Commit) -> str:
    """Return the title; a branch that was squashed by "Merged in …" has its own in the first line below."""
    title = _AZURE.sub("", _lines(commit.subject).strip(), count=1)
    if _MERGE.match(title) and not commit.merge:
        below = next((line.strip() for line in _lines(commit.body).split("\n") if line.strip()), "")
        return below if _TITLE.fullmatch(below) else title
    return title


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
