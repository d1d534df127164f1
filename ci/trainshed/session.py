"""One command's life: signals in, leftovers of the dead swept, clients closed, reports written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType

from trainshed import files, masking, settings
from trainshed.commands import Command
from trainshed.config import Config
from trainshed.console import Console
from trainshed.errors import Interrupted, TrainshedError
from trainshed.results import Report, Status, failed
from trainshed.stages import trust
from trainshed.stages.context import Context
from trainshed.tools import process

LAST_MOMENT_SECONDS = 4.0
_FORCE_SECONDS = 10.0
_BOUND = {"string": "", "username-password": "_PSW"}
"""What is added to a bound variable's name where it holds the secret itself; of a file it holds the path."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def admit(command: Command, config: Config) -> None:
    """Let a command work on its environment, or refuse it before anything is asked or written there.

    Raises:
        UsageError: the environment asks for more trust than this run has.
    """
    if command.guarded:
        trust.require(config, settings.tier())


@contextmanager
def opened(config: Config, console: Console) -> Iterator[Context]:
    """Yield the room of one command; after it nothing that the command started is left."""
    context = Context(config=config, console=console, tier=settings.tier())
    for text in confidential(config):
        console.add_secret(text)
    with _signals(context):
        for folder in (config.project.state, config.project.work_dir):
            files.sweep(folder)
        try:
            yield context
        finally:
            _end(context)


def confidential(config: Config) -> list[str]:
    """Return what must never be shown: values of secret variables, and log-ins in the addresses of proxies, indexes and ledger.

    Jenkins masks what it binds in the console alone: in logs and reports, which are archived, it is masked here.
    """
    auth = config.environment.kubeflow.auth
    variables = [secret.env for secret in config.build.secrets.values()] + [auth.password_env, auth.value_env, config.release.token_env]
    bound = [(variable, told.partition(":")[0]) for variable, told in config.environment.credentials.items()]
    variables += [variable + _BOUND[kind] for variable, kind in bound if kind in _BOUND]
    values = [settings.variable(name) or "" for name in variables if name]
    addresses = [*settings.proxies().values(), *settings.pip_settings().values(), config.ledger_url]
    return [*(text for value in values for text in masking.texts(value)), *(text for url in addresses for text in masking.logins(url))]


def reported(command: Command, context: Context, call: Callable[[], Report], names: Sequence[str] = (), *, dry_run: bool = False) -> Report:
    """Run a stage; write what it found, also when it was interrupted. A dry run takes no other run's place in the build's report."""
    interruption = Interrupted("interrupted", next_step="Run the same command again: what is done is not done anew.")
    try:
        report = call()
    except Interrupted as stop:
        report = Report(stage=command.stage, interrupted=True)
        interruption = stop if stop.next_step else interruption
    except TrainshedError as error:
        if command.recorded and context.build_url:  # a build's page tells it; by hand, a wrong word leaves nothing behind
            _record(context, Report(stage=command.stage, results=(failed(command.stage, command.stage, error),)), names)
        raise
    extra = {**report.extra, **({"dry_run": True} if dry_run else {})}
    report = replace(report, extra=extra, interrupted=report.interrupted or process.stopping.is_set())
    if command.recorded and not dry_run:
        _record(context, report, names)
    if command.reports:
        from trainshed.reports.writing import write_reports

        project = context.config.project
        components = project.shown(project.components)
        written = write_reports(project.work_dir, [report], components=components, mask=context.console.mask)
        if report.status == "red":
            context.console.line(f"reports: {', '.join(project.shown(path) for path in written)}")
    if report.interrupted:
        context.console.error(interruption)
    elif report.exit_code:
        bad = [result.name for result in report.results if result.status is Status.FAILED]
        context.console.line(f"{command.name}: {report.status}" + (f" ({', '.join(dict.fromkeys(bad))})" if bad else ""))
    return report


def _record(context: Context, report: Report, names: Sequence[str]) -> None:
    from trainshed.reports import records
    from trainshed.reports.writing import masked

    records.write(context.config.project.work_dir, masked(report, context.console.mask), names, build=context.build_url or "")


@contextmanager
def _signals(context: Context) -> Iterator[None]:
    """Turn the first signal into `process.stopping`, which every wait watches; leave by force when that is not enough."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not process.stopping.is_set():
            process.stopping.set()
            timer = threading.Timer(LAST_MOMENT_SECONDS, _leave, [context])
            timer.daemon = True
            timer.start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(context: Context) -> None:
    context.console.close()
    if process.stopping.is_set() and "engine" in vars(context):
        with suppress(TrainshedError):
            context.engine.end_own()
    context.close()


def _leave(context: Context) -> None:  # pragma: no cover - ends this process
    """End what is left by force; a call that cannot be interrupted held the command up."""

    def end() -> None:
        with suppress(Exception):
            if "engine" in vars(context):
                context.engine.end_own()

    process.end_all()
    last = threading.Thread(target=end, daemon=True)  # an engine that hangs must not hold us as well
    last.start()
    last.join(_FORCE_SECONDS)
    os._exit(Interrupted.exit_code)
