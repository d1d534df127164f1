"""Another day on another machine: what the second compilation of a template sees otherwise, so that whatever depends on it shows.

Sets and random numbers differ by themselves between two processes with different hash seeds. Clocks, the order of a folder's files and
the machine's name do not: both run in the same second, on the same file system of the same machine.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import gc
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Self

_DAYS = 400
_SECONDS = _DAYS * 86400
_HOST = "elsewhere"


def begin() -> None:
    """Shift the clocks by more than a year, turn the order of files in folders around, and name the machine another one."""
    listed, scanned = os.listdir, os.scandir
    _set(os, "listdir", lambda *given, **named: listed(*given, **named)[::-1])
    _set(os, "scandir", lambda *given, **named: _Backwards(scanned(*given, **named)))
    _shift_seconds()
    _shift_dates()
    _rename()


class _Backwards:
    """The entries of a folder in the opposite order, with what else `os.scandir` promises."""

    def __init__(self, entries: Any) -> None:  # noqa: ANN401 - the class cannot be named
        with entries:
            self._entries: Iterator[Any] = iter([*entries][::-1])

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:  # noqa: ANN401
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_told: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


def _rename() -> None:
    told = os.uname()
    _set(os, "uname", lambda: os.uname_result((told.sysname, _HOST, told.release, told.version, told.machine)))
    _set(socket, "gethostname", lambda: _HOST)
    _set(platform, "node", lambda: _HOST)  # which remembers what it was told first


def _set(module: ModuleType, name: str, value: object) -> None:
    """Replace what a module has for all that import it from now on."""
    setattr(module, name, value)


def _shift_seconds() -> None:
    seconds, nanoseconds, strftime = time.time, time.time_ns, time.strftime
    _set(time, "time", lambda: seconds() + _SECONDS)
    _set(time, "time_ns", lambda: nanoseconds() + _SECONDS * 1_000_000_000)
    for name in ("gmtime", "localtime", "ctime"):
        _set(time, name, _at_shifted(getattr(time, name)))
    _set(time, "strftime", lambda form, *told: strftime(form, *(told or (time.localtime(time.time()),))))


def _at_shifted(convert: Callable[[float], Any]) -> Callable[..., Any]:
    return lambda seconds=None: convert(time.time() if seconds is None else seconds)


def _shift_dates() -> None:
    """Change the class itself: one that takes its place is another for pickle, and for all that imported it before."""
    own = gc.get_referents(dt.datetime.__dict__)[0]
    for name in ("now", "utcnow"):  # the others ask `time.time`
        own[name] = classmethod(_later(own[name]))
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(dt.datetime))


def _later(clock: Any) -> Callable[..., Any]:  # noqa: ANN401 - a descriptor in C
    shift = dt.timedelta(seconds=_SECONDS)
    return lambda kind, *given, **named: clock.__get__(None, kind)(*given, **named) + shift
