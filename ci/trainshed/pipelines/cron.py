"""Cron expressions as Kubeflow takes them: six fields, seconds first, or a word such as ``@daily``; told apart before a server refuses.

The server parses with robfig/cron 1.2 (https://pkg.go.dev/github.com/robfig/cron@v1.2.0). That one takes five fields too, but as
seconds to months, so that a crontab's ``0 3 * * *`` would run every hour: here six are wanted. A day of the week is 0 to 6.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass

from trainshed.errors import suggestion

WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = re.compile(r"@every (?=[0-9])(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
_FEBRUARY = 2
_EXAMPLE = "'0 0 3 * * *' is every day at 3:00 UTC"


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field(name="second", low=0, high=59),
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day of month", low=1, high=31),
    _Field(name="month", low=1, high=12, words=tuple(name.lower() for name in calendar.month_abbr[1:])),
    _Field(name="day of week", low=0, high=6, words=("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def check(text: str) -> str:
    """Return the expression with single blanks.

    Raises:
        ValueError: it is none, it means something else for the server, or it never comes.
    """
    if text.startswith("@"):
        return _word(text)
    parts = text.split()
    if len(parts) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        missing = "; put the seconds in front" if len(parts) == len(_FIELDS) - 1 else ""
        raise ValueError(f"expected six fields ({names}), not {len(parts)} in '{text}'{missing}: {_EXAMPLE}")
    sets = [_values(field, part) for field, part in zip(_FIELDS, parts, strict=True)]
    days, months = sets[3], sets[4]
    # With a star in the day of week, "*/2" too, both days must fit; without one, either does.
    if re.search(r"[*?]", parts[5]) and not any(day <= _longest(month) for month in months for day in days):
        raise ValueError(f"'{text}' never comes: none of its months has such a day")
    return " ".join(parts)


def _word(text: str) -> str:
    every = _EVERY.fullmatch(text)
    if every and not any(int(part or 0) for part in every.groups()):
        raise ValueError(f"'{text}' would be every second for the server")
    if text not in WORDS and not every:
        raise ValueError(f"expected one of {', '.join(WORDS)} or such as '@every 1h30m', not '{text}'{suggestion(text, WORDS)}")
    return text


def _longest(month: int) -> int:
    return 29 if month == _FEBRUARY else calendar.monthrange(2001, month)[1]


def _values(field: _Field, text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        found |= _range(field, part)
    return found


def _range(field: _Field, part: str) -> set[int]:
    match = re.fullmatch(r"(?:(?P<all>[*?])|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>[0-9]{1,4}))?", part)
    if match is None:
        raise ValueError(f"{field.name}: '{part}' is no number, range or step: {_EXAMPLE}")
    if match["all"]:
        low, high = field.low, field.high
    else:
        low = _number(field, match["low"])
        high = _number(field, match["high"]) if match["high"] else field.high if match["step"] else low
    if low > high:
        raise ValueError(f"{field.name}: '{part}' ends before it begins")
    step = int(match["step"] or 1)
    if step == 0:
        raise ValueError(f"{field.name}: '{part}' has no step")
    return set(range(low, high + 1, step))


def _number(field: _Field, text: str) -> int:
    if text.lower() in field.words:
        return field.words.index(text.lower()) + field.low
    if not re.fullmatch(r"[0-9]{1,4}", text) or not field.low <= int(text) <= field.high:
        words = f" or {field.words[0]} to {field.words[-1]}" if field.words else ""
        raise ValueError(f"{field.name}: expected {field.low} to {field.high}{words}, not '{text}'")
    return int(text)
