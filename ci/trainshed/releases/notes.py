"""The notes of a release, from its manifest alone: Markdown for people, and the message of its tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trainshed.releases.manifest import Change, Manifest, Run, Service
from trainshed.releases.plan import UnitVersion
from trainshed.reports.markdown import plain, table

FILE_NAME = "notes.md"
_GROUPS = {"feat": "Features", "fix": "Fixes", "perf": "Performance", "revert": "Taken back"}
_MOST = 50
"""So many lines of a list are shown; git and the manifest have all."""
_SHORT = 12


def notes(manifest: Manifest) -> str:
    """Return the notes: what changed, and what of it serves, with what to do when it has to be taken back."""
    parts = (
        _head(manifest),
        *(_changes(manifest, each) for each in manifest.versions),
        _images(manifest),
        _pipelines(manifest),
        _services(manifest),
        *(_run(run_id, run) for run_id, run in sorted(manifest.runs.items())),
        _waivers(manifest),
        _back(manifest),
    )
    return "\n".join(part for part in parts if part)


def _head(manifest: Manifest) -> str:
    lines = [f"# {plain(manifest.project)} {plain(manifest.release)}", ""]
    lines += [f"Released to {plain(manifest.target)} on {manifest.created[:10]} by {plain(manifest.by or 'somebody')}."]
    of = f" of {plain(manifest.branch)}" if manifest.branch else ""
    built = f", built green in {plain(manifest.source)}" if manifest.source != manifest.target else ""
    return "\n".join([*lines, f"Commit {_code(manifest.commit[:_SHORT])}{of}{built}.", ""])


def _changes(manifest: Manifest, unit: UnitVersion) -> str:
    """Return what came with one unit's version: what breaks first, then what people look for; the rest is counted."""
    changes = manifest.changes.get(unit.unit, ())
    since = f" since {plain(unit.previous)}" if unit.previous else ""
    lines = [f"## {plain(f'{unit.unit} {unit.version}'.strip()) if unit.unit else 'Changes'}{since}", ""]
    breaking = [change for change in changes if change["breaking"]]
    lines += _group("Breaking", breaking, unit, _broken)
    for kind, title in _GROUPS.items():
        lines += _group(title, [change for change in changes if change["type"] == kind and not change["breaking"]], unit)
    others = Counter(change["type"] or "other" for change in changes if change["type"] not in _GROUPS and not change["breaking"])
    if others:
        told = ", ".join(f"{count} {plain(kind)}" for kind, count in sorted(others.items()))
        lines += [f"{'Besides: ' if len(lines) > 2 else ''}{told}.", ""]  # noqa: PLR2004 - more than the heading
    if not changes:
        moved = sorted(_moved(manifest))
        why = f": images moved on, as with a new base: {plain(', '.join(moved))}" if moved else ""
        lines += [f"No commit tells of a change{why}.", ""]
    return "\n".join(lines)


def _line(change: Change) -> str:
    scope = f"**{plain(change['scope'])}:** " if change["scope"] else ""
    return f"- {scope}{plain(change['text'])} ({_code(change['commit'][:_SHORT])})"


def _group(title: str, changes: Sequence[Change], unit: UnitVersion, line: Callable[[Change], str] = _line) -> list[str]:
    if not changes:
        return []
    left = len(changes) - _MOST
    told = [f"- and {left} more: {_code(f'git log {unit.previous}..{unit.tag}' if unit.previous else f'git log {unit.tag}')}"]
    return [f"### {title}", "", *map(line, changes[:_MOST]), *(told if left > 0 else []), ""]


def _broken(change: Change) -> str:
    what = plain(change["breaking"])
    return _line(change) if what == plain(change["text"]) else f"{_line(change)}\n  {what}"


def _images(manifest: Manifest) -> str:
    moved, lines = _moved(manifest), []
    for name in sorted(manifest.images, key=lambda name: (name not in moved, name)):
        image = manifest.images[name]
        state = "as before" if image["digest"] == image["before"] else f"was {_short(image['before'])}" if image["before"] else "new"
        lines.append((name, image["digest"], state))
    return _section("Images", _table(("component", "digest", "before"), lines))


def _moved(manifest: Manifest) -> set[str]:
    return {name for name, image in manifest.images.items() if image["digest"] != image["before"]}


def _pipelines(manifest: Manifest) -> str:
    lines = [(name, told["version"], told["version_id"]) for name, told in sorted(manifest.pipelines.items())]
    return _section("Pipelines", _table(("pipeline", "version", "id"), lines))


def _services(manifest: Manifest) -> str:
    lines = [_service(name, told) for name, told in sorted(manifest.services.items())]
    return _section("Services", _table(("service", "revision", "image", "model", "run"), lines))


def _service(component: str, told: Service) -> tuple[str, ...]:
    model, name = told["model"], told["service"]
    known = (model["sha256"] or model["uri"], model["run_id"]) if model is not None else ("none", "")
    return (name if name == component else f"{name} ({component})", told["revision"], _short(told["digest"]), *known)


def _run(run_id: str, run: Run) -> str:
    version = f", version {plain(run['version'])}" if run["version"] else ""
    told = [
        f"Of {plain(run['pipeline'] or 'a pipeline that the ledger does not tell')}{version}, accepted in {plain(run['environment'])}.\n"
    ]
    told += [_table(("metric", "value"), [(name, _number(value)) for name, value in sorted(run["metrics"].items())])]
    told += [_table(("gate", "outcome", "because"), [_gate(gate) for gate in run["gates"]])]
    return _section(f"Run {plain(run_id)}", "\n".join(filter(None, told)))


def _gate(gate: Any) -> tuple[str, ...]:  # noqa: ANN401 - a document of the schema
    return (gate["gate"], "passed" if gate["passed"] else "missed", gate.get("message", ""))


def _waivers(manifest: Manifest) -> str:
    order = sorted(manifest.waivers, key=lambda waiver: (waiver["expires"], waiver["id"]))
    lines = [
        (each["id"], each["owner"], f"{each['expires']} ({_days(each['days'])})", ", ".join(each["components"]), each["reason"])
        for each in order
    ]
    return _section("Waivers in force", _table(("finding", "owner", "until", "components", "reason"), lines))


def _back(manifest: Manifest) -> str:
    """Say how to take it back, and how to come back to it later."""
    lines, target = [], manifest.target
    if manifest.previous is not None and manifest.services:
        before = manifest.previous["tags"][0]
        lines += ["To the release before:", "", _command(f"trainshed rollback --env {target} --release {before}"), ""]
    if manifest.services:
        lines += ["To this one, from a later one:", "", _command(f"trainshed rollback --env {target} --release {manifest.tags[0]}")]
    return _section("Go back", "\n".join(lines))


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.rstrip()}\n" if text else ""


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of the first lines; what is left out is counted. Nothing for none."""
    if not lines:
        return ""
    left = len(lines) - _MOST
    return table(columns, lines[:_MOST]) + (f"\nAnd {left} more, in the manifest.\n" if left > 0 else "")


def _short(digest: str) -> str:
    return digest[: len("sha256:") + _SHORT]


def _code(text: str) -> str:
    return f"`{''.join(_harmless(text))}`"


def _command(text: str) -> str:
    return f"    $ {''.join(_harmless(text))}"


def _harmless(text: str) -> Iterator[str]:
    return (each for each in text if each.isprintable() and each != "`")


def _number(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _days(days: int) -> str:
    return f"{days} day{'' if days == 1 else 's'} left"
