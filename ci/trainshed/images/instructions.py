"""The lines of a Dockerfile as instructions: continuations, comments, parser directives, here-documents, flags and variables.

The rules are those of BuildKit's parser (moby/buildkit, frontend/dockerfile/parser and shell/lex.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainshed.errors import UsageError, suggestion

KEYWORDS = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
        *("MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=((?:\"[^\"]*\"|'[^']*'|[^\s\"'])*))?(?:\s+|$)")
_WITH_HEREDOC = frozenset(("RUN", "COPY", "ADD"))
_QUOTED = re.compile(r"(?<![<-])(?:\"(?:\\.|[^\"\\])*\"|'[^']*')")
_HEREDOC = re.compile(r"(?:^|(?<=\s))\d*<<(-?)([\"']?)([A-Za-z_]\w*)\2(?=\s|$)")
_WORD = re.compile(r"(?:\"(?:\\.|[^\"\\])*\"|'[^']*'|\\.|[^\s\"'\\])+")
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: ``flags`` as written (``--from=x`` → ``("from", "x")``), ``value`` the rest in one line; lines count from 1."""

    keyword: str
    flags: tuple[tuple[str, str], ...]
    value: str
    line: int
    last_line: int

    def flag(self, name: str) -> str:
        """Return the value of a flag, empty when it is not there."""
        return next((value for found, value in self.flags if found == name), "")

    def mounts(self) -> list[dict[str, str]]:
        """Return the ``--mount`` flags of a RUN as tables; the type is always there."""
        found = []
        for name, value in self.flags:
            if name == "mount":
                pairs = (part.strip("\"'").partition("=") for part in value.strip("\"'").split(","))
                found.append({"type": "bind"} | {key.lower(): text for key, _, text in pairs})
        return found


class Unresolved(ValueError):
    """A variable without a value, or one whose form only the builder knows; the text is its name."""


def fault(path: Path, line: int, message: str, next_step: str = "") -> UsageError:
    """Return the error for a line of a Dockerfile."""
    return UsageError(f"{path}:{line}: {message}", next_step=next_step)


def read(path: Path, text: str) -> tuple[str, list[Instruction]]:
    """Return the escape character and the instructions.

    Raises:
        UsageError: an unknown instruction, a here-document or a directive that is broken, each with file and line.
    """
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    escape = _escape(path, lines)
    goes_on = re.compile(rf"(?:(?<!{re.escape(escape)})|^){re.escape(escape)}[ \t]*$")
    found, number = [], 0
    while number < len(lines):
        start = number
        logical, number = _logical(lines, number, goes_on)
        if not logical:
            continue
        keyword, rest = [*logical.split(None, 1), ""][:2]
        keyword = keyword.upper()
        if keyword not in KEYWORDS:
            raise fault(path, start + 1, f"unknown instruction '{keyword}'{suggestion(keyword, KEYWORDS)}")
        flags, value = _flags(rest.strip())
        if keyword in _WITH_HEREDOC and "<<" in value:
            number = _skip_heredocs(path, lines, start, number, value)
        found.append(Instruction(keyword=keyword, flags=flags, value=value, line=start + 1, last_line=number))
    return escape, found


def _escape(path: Path, lines: list[str]) -> str:
    """Read the parser directives: they stand at the very top, and the first line that is none ends them."""
    for number, line in enumerate(lines):
        match = _DIRECTIVE.match(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            if match[2] not in {"\\", "`"}:
                raise fault(path, number + 1, f"escape directive '{match[2]}': only \\ and ` are possible")
            return match[2]
    return "\\"


def _logical(lines: list[str], number: int, goes_on: re.Pattern[str]) -> tuple[str, int]:
    """Join a line with its continuations; comments and empty lines between them do not end it. Return it and the next line."""
    parts: list[str] = []
    while number < len(lines):
        line = lines[number].strip() if not parts else lines[number]
        number += 1
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            if parts:
                continue
            return "", number
        match = goes_on.search(line)
        if match is None:
            parts.append(line)
            break
        parts.append(line[: match.start()])
    return "".join(parts).strip(), number


def _flags(rest: str) -> tuple[tuple[tuple[str, str], ...], str]:
    found, position = [], 0
    while match := _FLAG.match(rest, position):
        found.append((match[1], match[2] or ""))
        position = match.end()
    return tuple(found), rest[position:]


def _skip_heredocs(path: Path, lines: list[str], start: int, number: int, value: str) -> int:
    for match in _HEREDOC.finditer(_QUOTED.sub("''", value)):
        while number < len(lines) and (lines[number].lstrip("\t") if match[1] else lines[number]) != match[3]:
            number += 1
        if number == len(lines):
            raise fault(path, start + 1, f"the here-document '{match[3]}' has no end")
        number += 1
    return number


def words(value: str) -> list[str]:
    """Split into words as the builder does: a JSON array, else blanks with quotes; quotes are taken off."""
    if value.startswith("["):
        try:
            array = json.loads(value)
        except ValueError:
            array = None
        if isinstance(array, list) and all(isinstance(item, str) for item in array):
            return array
    return [_unquoted(word) for word in _WORD.findall(value)]


def declared(instruction: Instruction) -> list[tuple[str, str | None]]:
    """Return what an ARG declares, with defaults (None: no default)."""
    found: list[tuple[str, str | None]] = []
    for word in _WORD.findall(instruction.value):
        name, equals, default = word.partition("=")
        found.append((name, _unquoted(default) if equals else None))
    return found


def _unquoted(word: str) -> str:
    return re.sub(r"\"((?:\\.|[^\"\\])*)\"|'([^']*)'", lambda match: match[1] if match[1] is not None else match[2], word)


def sole_variable(word: str) -> str | None:
    """Return the variable that a word consists of (``$NAME`` or ``${NAME}``), else None."""
    match = re.fullmatch(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", word)
    return (match[1] or match[2]) if match else None


def substitute(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace ``$NAME``, ``${NAME}`` and ``${NAME-x}``, ``${NAME:-x}``, ``${NAME+x}``, ``${NAME:+x}``.

    Raises:
        Unresolved: a variable has no value, or its form is another one.
    """
    return _expand(text, 0, variables, escape, nested=False)[0]


def _expand(text: str, position: int, variables: Mapping[str, str], escape: str, *, nested: bool) -> tuple[str, int]:
    out = []
    while position < len(text):
        character = text[position]
        if character == "}" and nested:
            break
        if character == escape and position + 1 < len(text):
            out.append(text[position + 1])
            position += 2
        elif character == "$":
            value, position = _variable(text, position + 1, variables, escape)
            out.append(value)
        else:
            out.append(character)
            position += 1
    return "".join(out), position


def _variable(text: str, position: int, variables: Mapping[str, str], escape: str) -> tuple[str, int]:
    braced = text.startswith("{", position)
    match = _NAME.match(text, position + braced)
    if match is None:
        raise Unresolved(text)
    name, position = match[0], match.end()
    if not braced or text.startswith("}", position):
        if name not in variables:
            raise Unresolved(name)
        return variables[name], position + braced
    operator = re.compile(r":?[-+]").match(text, position)
    if operator is None:
        raise Unresolved(name)
    is_set = bool(variables.get(name)) if operator[0].startswith(":") else name in variables
    takes_word = is_set == operator[0].endswith("+")
    # The word that is not taken may hold anything, so it is only passed over.
    word, position = _expand(text, operator.end(), variables if takes_word else _Anything(), escape, nested=True)
    if not text.startswith("}", position):
        raise Unresolved(name)
    value = word if takes_word else variables[name] if operator[0].endswith("-") else ""
    return value, position + 1


class _Anything(dict[str, str]):
    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return ""
