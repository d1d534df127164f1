"""Arguments → stage functions, and the only place that turns errors into exit codes."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from trainshed import commands, settings
from trainshed.commands import COMMANDS, Command, Option
from trainshed.errors import Interrupted, TrainshedError, UsageError, suggestion

if TYPE_CHECKING:
    from trainshed.config import Config
    from trainshed.console import Console
    from trainshed.results import Report
    from trainshed.stages.context import Context

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_GROUPS = {
    "registry": "the repositories of images",
    "local": "the embedded services",
    "jenkins": "the controller that builds this repository",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see `trainshed.errors` and docs/reference/exit-codes.md)."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    console = _console(as_json=as_json)
    stage = next((word for word in words if any(word == command.name.split()[0] for command in COMMANDS)), "trainshed")
    try:
        given = _parse(words)
        command = commands.by_name(" ".join(filter(None, (given.command, given.action))))
        stage = command.stage
        report = _run(command, given, console)
        if as_json:
            console.document(report.document())
    except SystemExit as end:  # argparse after --help or --version
        return int(end.code or 0)
    except TrainshedError as error:
        return _failed(error, stage, console, as_json=as_json)
    except KeyboardInterrupt:
        return _failed(Interrupted("interrupted"), stage, console, as_json=as_json)
    except BrokenPipeError:  # who read went away; Python still flushes at its end
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes an exit code
        return _failed(_unwritable(error) or _bug(words, console), stage, console, as_json=as_json)
    return report.exit_code


def _console(*, as_json: bool) -> Console:
    from trainshed.console import Console

    terminal = sys.stderr.isatty() and settings.capable_terminal() and not settings.in_ci()
    return Console(live=terminal, color=terminal and not settings.no_color(), data=not as_json)


def _run(command: Command, given: argparse.Namespace, console: Console) -> Report:
    from trainshed import session

    options = {option.argument: getattr(given, option.argument) for option in command.options}
    if command.names:
        options["names"] = tuple(given.names)
    function = _function(command)
    if not command.project:
        return function(console, Path.cwd(), **options)  # type: ignore[no-any-return]
    config = _config(given.config, given.env)
    session.admit(command, config)
    console.root, console.environment = config.project.root, config.environment.name
    console.option = f"--env {given.env}" if given.env else ""
    with session.opened(config, console) as context:
        names, dry_run = options.get("names", ()), options.get("dry_run", False)
        return session.reported(command, context, lambda: _call(function, context, options), names, dry_run=dry_run)


def _call(function: Any, context: Context, options: Mapping[str, Any]) -> Report:  # noqa: ANN401 - found by its name in the table
    return function(context, **options)  # type: ignore[no-any-return]


def _function(command: Command) -> Any:  # noqa: ANN401 - found by its name in the table
    module, _, name = command.function.partition(":")
    return getattr(import_module(module), name)


def _config(file: str | None, environment: str | None) -> Config:
    from trainshed import config
    from trainshed.stages import policy

    own = settings.own()
    named = file or own.get("TRAINSHED_CONFIG")
    path = Path(named).absolute() if named else config.find(Path.cwd())
    name = environment or own.get("TRAINSHED_ENV") or config.LOCAL
    return config.load(path, environment=name, overrides=own, policy=policy.in_force(path))


def _failed(error: TrainshedError, stage: str, console: Console, *, as_json: bool) -> int:
    console.error(error)
    if as_json:
        status = "interrupted" if isinstance(error, Interrupted) else "red"
        console.document(
            {
                "schema": f"trainshed/{stage}/v1",
                "status": status,
                "exit_code": error.exit_code,
                "error": {"message": error.message, "next": error.next_step},
                "results": [],
            }
        )
    return error.exit_code


def _unwritable(error: Exception) -> TrainshedError | None:
    """Tell a full disk or a folder that may not be written from a bug."""
    if not isinstance(error, OSError) or error.errno not in {*_FULL, *_REFUSED} or (error.errno in _REFUSED and error.filename is None):
        return None
    message = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)
    return UsageError(message, next_step="Make room, or give this user the right to use it; `trainshed doctor` checks both.")


def _bug(words: Sequence[str], console: Console) -> TrainshedError:
    """Keep the traceback in a file, secrets masked, and say one line."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="trainshed-bug-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(console.mask(f"trainshed {' '.join(word for word in words if '=' not in word)}\n\n{traceback.format_exc()}"))
    last = traceback.format_exc().strip().splitlines()[-1]
    return TrainshedError(f"this is a bug in Trainshed: {last}", next_step=f"Report it with {file.name}.")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are `UsageError`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"See `{self.prog} --help`.")


@functools.cache  # the same for every command, of which tests run hundreds in one process
def parser() -> argparse.ArgumentParser:
    """Build the parser from the table of commands."""
    top = _Parser(
        prog="trainshed", description="Build, scan, test, stamp, upload, launch and deploy the components of a Kubeflow repository."
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _common(top, default=None)
    subs = top.add_subparsers(dest="command", metavar="STAGE", required=True, parser_class=_Parser)
    groups: dict[str, Any] = {}
    for command in COMMANDS:
        group, _, action = command.name.partition(" ")
        if action and group not in groups:
            inner = subs.add_parser(group, help=f"{_GROUPS[group]}: {', '.join(_actions(group))}")
            groups[group] = inner.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
        sub = (groups[group] if action else subs).add_parser(action or group, help=command.help, description=command.help)
        _common(sub, default=argparse.SUPPRESS)
        if command.names:
            sub.add_argument("names", nargs="*", metavar="NAME", help=f"{command.names}; all when none is named")
        for option in command.options:
            _add(sub, option)
        if not action:
            sub.set_defaults(action=None)
    return top


def _actions(group: str) -> list[str]:
    return [command.name.partition(" ")[2] for command in COMMANDS if command.name.startswith(f"{group} ")]


def _common(target: argparse.ArgumentParser, default: Any) -> None:  # noqa: ANN401 - argparse's sentinel
    target.add_argument("--config", metavar="FILE", default=default, help="the trainshed.toml to use (TRAINSHED_CONFIG)")
    target.add_argument("--env", metavar="NAME", default=default, help="the environment: local by default (TRAINSHED_ENV)")
    target.add_argument(
        "--json", action="store_true", default=default if default is argparse.SUPPRESS else False, help="print one JSON document on stdout"
    )


def _add(target: argparse.ArgumentParser, option: Option) -> None:
    common: dict[str, Any] = {"dest": option.argument, "help": option.help}
    named: dict[str, Any] = {"metavar": option.metavar or None}
    if option.kind == "flag":
        target.add_argument(*option.flags, action="store_true", **common)
    elif option.kind == "switch":
        target.add_argument(*option.flags, action=argparse.BooleanOptionalAction, default=None, **common)
    elif option.kind == "pairs":
        target.add_argument(*option.flags, action=_Pairs, default={}, **named, **common)
    elif option.kind == "texts":
        target.add_argument(*option.flags, action="append", default=[], **named, **common)
    else:
        read: Any = {"text": str, "path": Path, "number": int, "duration": _duration}[option.kind]
        target.add_argument(*option.flags, type=read, choices=option.choices or None, **({} if option.choices else named), **common)


def _duration(text: str) -> float:
    from trainshed.values import duration

    try:
        return duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _Pairs(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option_string: str | None = None
    ) -> None:
        key, equals, value = str(values).partition("=")
        if not equals or not key:
            parser.error(f"{option_string}: expected KEY=VALUE, not '{values}'")
        pairs = getattr(namespace, self.dest)
        if key in pairs:
            parser.error(f"{option_string}: {key} is given twice")
        setattr(namespace, self.dest, {**pairs, key: value})


def _parse(words: Sequence[str]) -> argparse.Namespace:
    known = [command.name.split()[0] for command in COMMANDS]
    stage = _first_word(words)
    if stage is not None and stage not in known:
        raise UsageError(f"no stage '{stage}'{suggestion(stage, known)}", next_step="See `trainshed --help`.")
    return parser().parse_args(list(words))


def _first_word(words: Sequence[str]) -> str | None:
    """Return the stage's name: the first word that is neither an option nor the value of one."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in {"--config", "--env"}:
            skip = True
        elif not word.startswith("-"):
            return word
    return None


class _Version(argparse.Action):
    """Print the installed version; it is read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"trainshed {version('trainshed')}\n")
        parser.exit()
