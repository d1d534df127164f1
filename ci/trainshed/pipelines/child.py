"""The program that runs a template's own code: ``python -m trainshed.pipelines.child JOBS``.

`tools.compiler` starts it in an empty environment. It imports kfp once and forks for each job of the file ``JOBS``, so that one
template's code can neither hurt nor slow another. In the fork there is no network, no other program, and nothing of the project
can be written; what was read of it is told, because the result depends on it.

Each job's answer is a JSON file: ``{"reads": [path…], "notes": [text…]}``, or ``{"error": message, "next": step}``.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import re
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from trainshed.pipelines import otherwise
from trainshed.pipelines.guard import Guard, Refused

Job = dict[str, Any]
Answer = dict[str, Any]

NO_KFP = 4
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_LATE_SECONDS = 5.0
_POLL_SECONDS = 0.01
_STACK_LINE = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+) in ')
_leave = os._exit


def main(arguments: list[str]) -> int:
    """Do the jobs of a file, one after the other; return the exit code."""
    _die_with_parent()
    jobs: list[Job] = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        import kfp.compiler
        import kfp.components
        import kfp.kubernetes  # noqa: F401 - here once, so that no fork pays for it
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return NO_KFP
    for job in jobs:
        _answer(job, _forked(job))
    return 0


def _forked(job: Job) -> int:
    """Run one job in a fork; return its wait status."""
    sys.stdout.flush()
    sys.stderr.flush()
    server, pid = os.getpid(), os.fork()
    if pid == 0:
        _die_with_parent(server)
        _fork_main(job)
    deadline = time.monotonic() + job["limit"] + _LATE_SECONDS
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(_POLL_SECONDS)


def _die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for SIGKILL when the parent dies, however it dies: nothing may go on compiling for nobody."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        _leave(1)


def _fork_main(job: Job) -> NoReturn:
    """Do one job, write its answer, and leave without a way back into the loop."""
    guard = Guard(root=Path(job["root"]), scratch=Path(job["scratch"]))
    try:
        with Path(job["log"]).open("ab") as log, Path(job["stack"]).open("w", encoding="utf-8") as stack:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            faulthandler.dump_traceback_later(job["limit"], exit=True, file=stack)
            answer = _done(job, guard)
            faulthandler.cancel_dump_traceback_later()
            guard.off()
            _write(job, answer)
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        _leave(0)


def _done(job: Job, guard: Guard) -> Answer:
    noted = _Noted(sys.stdout, guard)
    sys.stdout = cast(TextIO, noted)
    os._exit = _refuse_exit
    sys.dont_write_bytecode = True
    sys.pycache_prefix = job["scratch"]  # a stale .pyc beside a helper module would hide that the module was read
    ctypes.CDLL(None).unshare(_CLONE_NEWNET)  # only root may; the guard holds everybody else
    if job["again"]:
        otherwise.begin()
    guard.on()
    try:
        _WORK[job["kind"]](job)
    except BaseException as error:  # noqa: BLE001 - whatever a template raises is an answer
        return _failure(job, guard, guard.refused or error)
    if guard.refused is not None:
        return _failure(job, guard, guard.refused)
    notes = [f"{noted.first}: prints while it is compiled; see the log"] if noted.first else []
    notes += [
        f"{place}: reads {file}, which is not in the repository: other machines may not have it" for file, place in guard.strange.items()
    ]
    return {"reads": sorted({*guard.reads, *guard.strange}), "notes": notes}


def _python(job: Job) -> None:
    """Import a template and compile its pipeline."""
    from kfp.compiler import Compiler

    source = Path(job["source"])
    sys.path.insert(0, str(source.parent))
    module = types.ModuleType(job["name"])
    module.__file__ = str(source)
    sys.modules[job["name"]] = module
    exec(compile(source.read_bytes(), str(source), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the purpose
    Compiler().compile(_chosen(module, job["name"]), job["out"])


def _yaml(job: Job) -> None:
    """Load a compiled pipeline and compile it again: kfp accepts it, and this is how kfp writes it."""
    from kfp.compiler import Compiler
    from kfp.components import load_component_from_file

    Compiler().compile(load_component_from_file(job["source"]), job["out"])


_WORK: dict[str, Callable[[Job], None]] = {"python": _python, "yaml": _yaml}


class NoPipeline(Exception):
    """A template does not say which pipeline it is."""


def _chosen(module: types.ModuleType, name: str) -> Any:  # noqa: ANN401 - kfp has no types
    """Return the pipeline of a module: the one named as the file, else the only one."""
    from kfp.dsl.graph_component import GraphComponent

    found = {key: value for key, value in vars(module).items() if isinstance(value, GraphComponent)}
    if name in found:
        return found[name]
    different = {id(value): value for value in found.values()}
    if len(different) == 1:
        return next(iter(different.values()))
    if not found:
        raise NoPipeline("it defines no function with @dsl.pipeline")
    raise NoPipeline(f"it defines several pipelines ({', '.join(sorted(found))}) and none named '{name}'")


class _Noted:
    """A text stream that remembers the first line of the project that wrote to it."""

    def __init__(self, stream: TextIO, guard: Guard) -> None:
        self._stream, self._guard = stream, guard
        self.first = ""

    def write(self, text: str) -> int:
        self.first = self.first or self._guard.caller()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the stream's own
        return getattr(self._stream, name)


def _refuse_exit(status: int) -> NoReturn:
    raise SystemExit(status)


def _failure(job: Job, guard: Guard, error: BaseException) -> Answer:
    where = guard.place(error) or guard.shown(job["source"])
    if isinstance(error, Refused):
        return _error(f"{error.place or where}: {error}", error.next_step)
    if isinstance(error, SystemExit):
        return _error(
            f"{where}: ends the program (exit code {error.code or 0})", "Define the pipeline and leave; put a main program under __main__."
        )
    if isinstance(error, ModuleNotFoundError):
        return _error(f"{where}: module '{error.name}' is missing", "Import only kfp, kfp.kubernetes and files beside the template.")
    if isinstance(error, NoPipeline):
        return _error(f"{where}: {error}", "Name one pipeline's function as the file.")
    told = error.msg if isinstance(error, SyntaxError) else error
    what = f"{type(error).__name__}: {told}".strip().removesuffix(":")
    if job["kind"] == "yaml":
        return _error(f"{where}: kfp refuses it: {what}", "Compile the pipeline again with this version of kfp.")
    return _error(f"{where}: {what}", "Mend the template; the log has the details.")


def _error(message: str, next_step: str) -> Answer:
    return {"error": message, "next": next_step}


def _answer(job: Job, status: int) -> None:
    """Answer for a fork that could not."""
    if Path(job["answer"]).exists():
        return
    guard = Guard(root=Path(job["root"]), scratch=Path(job["scratch"]))
    stack = Path(job["stack"])
    seen = _STACK_LINE.findall(stack.read_text(encoding="utf-8")) if stack.exists() else []
    own = next((f"{guard.shown(file)}:{line}" for file, line in seen if guard.is_own(file)), guard.shown(job["source"]))
    code = os.waitstatus_to_exitcode(status)
    if seen or code == -signal.SIGKILL:
        answer = _error(f"{own}: still running after {job['limit']:g} s", "Mend the loop or the wait in this line.")
    else:
        answer = _error(f"{own}: ended its process (code {code})", "Mend the template; the log has the details.")
    _write(job, answer)


def _write(job: Job, answer: Answer) -> None:
    whole = Path(job["answer"] + ".part")
    whole.write_text(json.dumps(answer), encoding="utf-8")
    whole.replace(job["answer"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
