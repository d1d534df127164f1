"""Write the reference pages that come from the code: ``docs/generate.py``, or ``docs/generate.py --check`` to only compare."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainshed import errors, formats, keys, values
from trainshed.commands import COMMANDS, Command, Option
from trainshed.errors import TrainshedError
from trainshed.keys import Key

FOLDER = Path(__file__).resolve().parent / "reference"
CONFIGURATION = """{note}# Configuration

`trainshed.toml` stands in the project's root; a command finds it from any folder below. A value comes from the command line, else from
its variable, else from the file, else from its default. `trainshed config` prints what is in force and where it comes from. An unknown
key is an error. In a variable a list is written with commas, a table as `A=1,B=2`, a duration as `30s`, `10m` or `24h`.

The policy ({policy}, of the project and of each environment) and the list of waivers come from the target branch in a build of a pull
request, never from its own tree: see [whose policy counts](../how-to/connect-an-environment.md#who-may-work-on-it). Variables win over it.

## Keys of the project

{project}
## Keys of an environment

They stand under `environments.<name>`; the variable for `registry` of `dev` is `TRAINSHED_ENVIRONMENTS_DEV_REGISTRY`. The environment
`local` is always there, all embedded, with `scan.without-db = "warn"`.

{environment}
## Ways to log in to Kubeflow

{kinds}
## Variables without a key

{variables}"""
COMMANDS_HEAD = """{note}# Commands

People read stderr; stdout carries data: the document of `--json`, and nothing else. Every command takes

{common}
## The JSON document

`{{"schema": "trainshed/<stage>/v1", "status": "green", "exit_code": 0, "results": […]}}`. The status is `green`, `red`, `aborted` or
`interrupted`. A result has `name`, `stage`, `status` (`done`, `cached`, `failed`, `aborted`, `skipped`), `cause`, `message`, `seconds`,
`log`, and what the stage adds, such as `digest`, `findings`, `version`, `run_id` or `revision`. After an error that ended the command
there is `"error": {{"message": …, "next": …}}`.

"""
EXIT_CODES = """{note}# Exit codes

{codes}
An error is printed as `error: …`, with `next: …` where there is something to do. When several components fail, the most telling code
wins: 1 before 70, 2, 5 and 4.
"""
SCHEMAS_HEAD = """{note}# Formats and their schemas

Three documents are read by others than the Trainshed that wrote them: by a later one, by another agent, by your own programs. Each says in
`schema` what it is and in which version, and each version has a JSON schema (2020-12), which is in the package too, under
`trainshed/schemas/`.

{kinds}
## What may change

- Within a version only optional fields are added, so no schema forbids a field that it does not name, and a reader leaves alone what it
  does not know. Nothing is taken away, renamed, made mandatory or given another meaning.
- Anything else is a new version with a schema of its own, beside the old one.
- Every version that was ever written is read for ever: a rollback to a release of years ago needs its manifest. Tests read a document of
  each version that nobody may edit, and fail when a published schema changes.
- What a newer Trainshed has written in a newer version is refused with the words "written by a newer Trainshed"; anything else is told as
  what it is. Nothing is guessed.

## Seals and digests

The lock and the manifest of a release are sealed: `seal` is the SHA-256 of all the rest, written as JSON in UTF-8 with sorted keys and no
blanks. A document that was edited is refused. This prints the seal that fits:

```python
import hashlib, json

told = json.load(open("build/images.lock.json"))
told.pop("seal")
text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
print("sha256:" + hashlib.sha256(text.encode()).hexdigest())
```

A seal finds mistakes, not forgers: who can write the file can seal it. So a release believes what the ledger has of the commit, no file
alone. The digest of a release's manifest is that of the file's bytes, which is what `sha256sum release.json` tells; the message of the
release's tag in git ends with it.

## Validate one

With any validator of JSON schema, such as the one of PyPI's `check-jsonschema`:

```console
$ check-jsonschema --schemafile lock-v1.json build/images.lock.json
```

"""
SCHEMAS = "schemas"
NOTE = "<!-- Written by docs/generate.py from {source}: change it there. -->\n\n"


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    made = {"configuration.md": configuration(), "commands.md": commands(), "exit-codes.md": exit_codes(), "schemas.md": schemas()}
    return made | {f"{SCHEMAS}/{file.name}": file.read_text() for file in sorted(formats.FOLDER.glob("*.json"))}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def configuration() -> str:
    """Return the page of ``trainshed.toml``."""
    kinds = ((f"`{kind}`", ", ".join(f"`{name}`" for name in needs) or "nothing") for kind, needs in values.AUTH_KINDS.items())
    variables = [(f"`{name}`", what) for name, what in keys.PROCESS_VARIABLES.items()]
    return CONFIGURATION.format(
        note=NOTE.format(source="ci/trainshed/keys.py"),
        policy=", ".join(
            f"`{name}.*`" if any(key.path.startswith(f"{name}.") for key in keys.KEYS) else f"`{name}`" for name in keys.POLICY
        ),
        project=_keys(keys.KEYS, variables=True),
        environment=_keys(keys.ENVIRONMENT_KEYS, variables=False),
        kinds=table(("`kind`", "needs"), kinds),
        variables=table(("variable", "meaning"), variables),
    )


def _keys(known: Iterable[Key], *, variables: bool) -> str:
    columns = ("key", "value", "default", *(("variable",) if variables else ()), "meaning")
    rows = (
        (f"`{key.path}`", key.shape, _default(key), *((f"`{keys.variable_of(key.path)}`",) if variables else ()), _plain(key.help))
        for key in known
    )
    return table(columns, rows)


def _plain(text: str) -> str:
    return text.replace("<", "&lt;")  # outside of code Markdown takes <name> for HTML


def _default(key: Key) -> str:
    value = key.default
    if value is None:
        return '`"embedded"`' if key.help.startswith("`embedded`") else ""
    if isinstance(value, values.Auth):
        return f'`{{ kind = "{value.kind}" }}`'
    if isinstance(value, float):
        return f"`{_duration(value)}`"
    return f"`{json.dumps(value)}`"


def _duration(seconds: float) -> str:
    units = (("h", 3600), ("m", 60), ("s", 1))
    return next(f"{seconds / size:g}{unit}" for unit, size in units if seconds >= size or size == 1)


def commands() -> str:
    """Return the page of commands."""
    common = (
        ("`--config FILE`", "the `trainshed.toml` to use (`TRAINSHED_CONFIG`)"),
        ("`--env NAME`", "the environment, `local` by default (`TRAINSHED_ENV`)"),
        ("`--json`", "print one JSON document on stdout"),
    )
    head = COMMANDS_HEAD.format(note=NOTE.format(source="ci/trainshed/commands.py"), common=table(("option", "meaning"), common))
    return head + "\n".join(_command(command) for command in COMMANDS)


def _command(command: Command) -> str:
    names = " [NAME…]" if command.names else ""
    usage = " ".join([f"trainshed {command.name}{names}", *(f"[{_flags(option)}]" for option in command.options)])
    text = f"## {command.name}\n\n```text\n{usage}\n```\n\n{_sentence(command.help)}\n"
    if command.names:
        text += f"`NAME`: {command.names}; without one it is about all of them.\n"
    if command.options:
        text += "\n" + table(("option", "meaning"), ((f"`{_flags(option)}`", _plain(option.help)) for option in command.options))
    return text


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _flags(option: Option) -> str:
    flags = [*option.flags, *(f"--no-{flag.removeprefix('--')}" for flag in option.flags if option.kind == "switch")]
    value = "{" + ",".join(option.choices) + "}" if option.choices else option.metavar
    return " ".join(filter(None, ("/".join(flags), value)))


def schemas() -> str:
    """Return the page of the published formats, with a table of each version's fields."""
    rows, parts = [], []
    for kind, versions in formats.VERSIONS.items():
        for version in reversed(versions):
            told = formats.schema(kind, version)
            file = f"{kind}-v{version}.json"
            rows.append((f"`{formats.identifier(kind, version)}`", f"[{file}]({SCHEMAS}/{file})", _plain(told["description"])))
            parts.append(f"## {told['title']}: `{formats.identifier(kind, version)}`\n\n{_fields(told)}")
    head = SCHEMAS_HEAD.format(note=NOTE.format(source="ci/trainshed/schemas"), kinds=table(("`schema`", "file", "what"), rows))
    return head + "\n".join(parts)


def _fields(told: Mapping[str, Any]) -> str:
    """Return the fields of a schema, those of its parts below the name of the part."""
    text = table(("field", "value", "meaning"), _rows(told))
    for name, part in told.get("$defs", {}).items():
        if "properties" in part:
            text += f"\n*{name}*:\n\n{table(('field', 'value', 'meaning'), _rows(part))}"
    return text


def _rows(told: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, field in told["properties"].items():
        shape = _shape(field) + ("" if name in told["required"] else ", optional") if "required" in told else _shape(field)
        yield f"`{name}`", shape, _plain(field.get("description", ""))


def _shape(field: Mapping[str, Any]) -> str:
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(each)}`" for each in field["enum"])
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if field["type"] == "array":
        return f"list of {_shape(field['items'])}"
    if field["type"] == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"name to {_shape(field['additionalProperties'])}"
    return " or ".join([field["type"]] if isinstance(field["type"], str) else field["type"])


def exit_codes() -> str:
    """Return the page of exit codes."""
    rows = [("0", "", "All that was asked for is done, or was so already.")]
    rows += sorted(
        ((str(kind.exit_code), f"`{kind.__name__}`", _first_line(kind)) for kind in _leaves(TrainshedError)), key=lambda row: int(row[0])
    )
    rows.insert(-1, (str(TrainshedError.exit_code), "", "A bug in Trainshed; the message names a file with the traceback."))
    return EXIT_CODES.format(note=NOTE.format(source="ci/trainshed/errors.py"), codes=table(("code", "error", "meaning"), rows))


def _leaves(kind: type[TrainshedError]) -> Iterator[type[TrainshedError]]:
    """Yield the classes of ``errors.py`` itself; what other modules derive from them has their code."""
    yield from (value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, kind) and value is not kind)


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or compare them; return 1 when ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is not what the code says")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages are")
    given = parser.parse_args(argv)
    stale = [name for name, text in pages().items() if not (given.folder / name).is_file() or (given.folder / name).read_text() != text]
    if given.check:
        for name in stale:
            print(f"{given.folder / name}: not what the code says; run docs/generate.py")
        return 1 if stale else 0
    for name in stale:
        (given.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (given.folder / name).write_text(pages()[name])
        print(f"wrote {given.folder / name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
