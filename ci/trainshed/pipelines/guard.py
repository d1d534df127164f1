"""What a template's code may do while it is compiled: compute, and read. Held by Python's audit hooks (PEP 578).

This keeps honest code honest, and results repeatable; it is no prison: a template is code of this repository, reviewed as such.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]
_NETWORK_ALLOWED = {"socket.__new__", "socket.gethostname"}
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "os.kill", "os.killpg"}
_CHANGES = {
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
}
"""By event which arguments are paths that are changed, each with the one that holds the open folder it starts from."""
_SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/usr")
_LISTINGS = {"os.listdir", "os.scandir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Refused(BaseException):
    """A template did what it may not. ``place`` is ``file:line``.

    No `Exception`: code that catches everything would hide it, and libraries would try again.
    """

    def __init__(self, message: str, place: str, next_step: str) -> None:
        super().__init__(message)
        self.place, self.next_step = place, next_step


class Guard:
    """Watches one process, from `on` until `off`.

    ``reads`` holds the files of the project that were opened and the folders that were listed, relative to ``root``; ``strange``
    has the files that are neither there nor Python's or the system's, each with the line that opened it. ``refused`` is the first thing
    that was refused, kept because code may catch it. ``scratch`` may be written.
    """

    def __init__(self, *, root: Path, scratch: Path) -> None:
        self._root, self._scratch = os.path.realpath(root), os.path.realpath(scratch)
        foreign = [os.path.realpath(folder) for folder in (sys.prefix, sys.base_prefix, _PACKAGE, scratch)]
        self._foreign = tuple(folder for folder in foreign if not _below(self._root, folder))
        self._active = self._installed = False
        self._usual = tuple(os.path.realpath(folder) for folder in (*_SYSTEM, *sys.path, self._root, *foreign) if folder)
        self.reads: set[str] = set()
        self.strange: dict[str, str] = {}
        self.refused: Refused | None = None

    def on(self) -> None:
        """Start to watch; an audit hook stays for the life of the process."""
        self._active = True
        if not self._installed:
            sys.addaudithook(self.audit)
            self._installed = True

    def off(self) -> None:
        """Stop to watch."""
        self._active = False

    def is_own(self, file: str) -> bool:
        """Tell whether a file is the project's: below its root, and neither Python's, a package's, Trainshed's nor scratch."""
        real = os.path.realpath(file)
        return not file.startswith("<") and _below(real, self._root) and not any(_below(real, folder) for folder in self._foreign)

    def shown(self, file: str) -> str:
        """Return a path relative to the project where it lies inside."""
        real = os.path.realpath(file)
        return os.path.relpath(real, self._root) if _below(real, self._root) else file

    def place(self, error: BaseException) -> str:
        """Return ``file:line`` of the project's innermost line that an error passed; an empty text when there is none."""
        if isinstance(error, SyntaxError) and error.filename and self.is_own(error.filename):
            return f"{self.shown(error.filename)}:{error.lineno}"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if self.is_own(frame.filename)]
        return f"{self.shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""

    def caller(self) -> str:
        """Return ``file:line`` of the project's line that is running; an empty text when none is."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no public way
        while frame is not None and not self.is_own(frame.f_code.co_filename):
            frame = frame.f_back
        return f"{self.shown(frame.f_code.co_filename)}:{frame.f_lineno}" if frame is not None else ""

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take one audit event; raise `Refused` for what a template may not do."""
        if not self._active:
            return
        if event == "open":
            self._opened(arguments[0], arguments[2])
        elif event in _LISTINGS:
            self._listed(arguments[0] or os.curdir)
        elif event in _CHANGES:
            for path, folder in _CHANGES[event]:
                self._changed(_from(arguments[path], None if folder is None else arguments[folder]))
        elif event in _PROGRAMS:
            self._refuse("starts or signals another program", "Do that before, and read its result from a file.")
        elif event.startswith("socket.") and event not in _NETWORK_ALLOWED:
            self._refuse("uses the network", "Keep what the template needs in the repository.")

    def _opened(self, path: object, flags: int) -> None:
        if flags & _WRITING:
            self._changed(path)
        elif isinstance(path, (str, bytes, os.PathLike)):
            file = os.fsdecode(path)
            if self.is_own(file):
                self.reads.add(self.shown(file))
            elif not any(_below(os.path.realpath(file), folder) for folder in self._usual) and Path(file).is_file():
                self.strange.setdefault(os.path.realpath(file), self.caller())

    def _listed(self, path: object) -> None:
        """Remember a folder, for a file that is added there may count too; Python itself lists those that it imports from."""
        if isinstance(path, (str, bytes, os.PathLike)) and self.is_own(os.fsdecode(path)) and not _is_importing():
            self.reads.add(self.shown(os.fsdecode(path)))

    def _changed(self, path: object) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        real = os.path.realpath(os.fsdecode(path))
        if _below(real, self._root) and not _below(real, self._scratch):
            self._refuse(f"writes {self.shown(real)}", "Put what writes files under `if __name__ == '__main__':`.")

    def _refuse(self, message: str, next_step: str) -> None:
        refused = Refused(message, self.caller(), next_step)
        self.refused = self.refused or refused
        raise refused


def _from(path: object, folder: object) -> object:
    """Return a path with the open folder that it starts from, as when a folder is removed with all that it holds."""
    if isinstance(path, (str, bytes)) and isinstance(folder, int) and folder >= 0:
        return Path("/proc/self/fd", str(folder), os.fsdecode(path))
    return path


def _is_importing() -> bool:
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - there is no public way
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
