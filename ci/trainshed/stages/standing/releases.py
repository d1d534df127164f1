"""The release in force: whether its tag names its commit, and its services serve its units, or since when not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainshed.errors import Interrupted, TrainshedError
from trainshed.ledger.records import moment
from trainshed.releases.manifest import Manifest
from trainshed.results import Result
from trainshed.services.unit import Unit, UnitModel
from trainshed.stages import versioning
from trainshed.stages.context import Context
from trainshed.stages.releasing import composing, current, journal
from trainshed.stages.releasing.current import InForce
from trainshed.stages.standing import telling
from trainshed.tools import git, git_tags

KIND = "release"
_COLUMNS = ("release", "commit", "since", "services", "drift")


def in_force(context: Context) -> tuple[InForce, Manifest] | None:
    """Return the release that is in force in the environment with its manifest, None where nothing was ever released.

    Raises:
        WorkFailed: the ledger has lost its manifest.
    """
    found = current.in_force(context) if context.has_ledger else None
    return None if found is None else (found, composing.of(context, found.manifest))


def results(context: Context, services: Sequence[Result]) -> list[Result]:
    """Tell how the release in force stands; ``services`` are the results of the services."""
    found = [telling.asked(KIND, KIND, lambda: _result(context, services))]
    if "release" in found[0].details:
        context.console.table(f"release in force in {context.config.environment.name}", _COLUMNS, [_row(result) for result in found])
    return found


def _result(context: Context, services: Sequence[Result]) -> Result:
    known = in_force(context)
    if known is None:
        return telling.absent(KIND, KIND, "nothing was released here")
    found, manifest = known
    tags, notes = _tags(context, manifest)
    by_name = {result.name: result for result in services}
    serving = [line for name in sorted(manifest.services) for line in _serves(name, manifest, found, by_name.get(name))]
    details: dict[str, Any] = {
        "release": found.release,
        "manifest": found.manifest,
        "commit": found.commit,
        "since": moment(found.at),
        "by": found.by,
        "back": found.back,
        "services": sorted(manifest.services),
        "notes": notes,
        "drift": [*_unfinished(context, found), *tags, *serving],
    }
    step = f"`trainshed rollback --release {next(iter(manifest.tags), found.release)}` brings its services back; "
    return telling.compared(
        KIND, KIND, "stands as it was released", details, f"{step}`trainshed --env {manifest.source} release` makes or finishes one."
    )


def _unfinished(context: Context, found: InForce) -> Iterator[str]:
    if found.going:
        yield f"somebody began to go back to release {found.going}, and how that ended is not known"
    newest = journal.newest(context)
    if newest is not None and not newest.settled:
        at = f", at the step {newest.doing}" if newest.doing else ""
        yield f"release {newest.plan.name} was begun by {newest.by} and is {newest.state}{at}"


def _tags(context: Context, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return how the tags differ from the commit here and on the remote, and what could not be asked."""
    root, drift, notes = context.config.project.root, [], []
    local = {tag: commit for tag in manifest.tags if (commit := git.commit_of(root, f"refs/tags/{tag}")) is not None}
    notes += [f"this clone has no tag {tag}" for tag in manifest.tags if tag not in local]
    drift += [
        f"tag {tag} names commit {local[tag]} here, the release is of {manifest.commit}" for tag in local if local[tag] != manifest.commit
    ]
    remote = _remote_tags(context, notes)
    for tag in manifest.tags if remote is not None else ():
        commit = (remote or {}).get(tag)
        if commit is None:
            drift.append(f"tag {tag} is gone from the remote")
        elif commit != manifest.commit:
            drift.append(f"tag {tag} names commit {commit} on the remote, the release is of {manifest.commit}")
    return drift, notes


def _remote_tags(context: Context, notes: list[str]) -> Mapping[str, str] | None:
    """Return the remote's tags; None where there is no remote, or it cannot be asked, which is noted."""
    try:
        remote = versioning.remote(context)
        return None if remote is None else git_tags.remote_tags(context.config.project.root, remote)
    except Interrupted:
        raise
    except TrainshedError as error:
        notes.append(f"the remote's tags are not known: {error.message}")
        return None


def _serves(name: str, manifest: Manifest, found: InForce, result: Result | None) -> Iterator[str]:
    """Tell of a service that does not serve the release's unit."""
    told = manifest.services[name]
    wanted = found.services.get(name, told["arn"]).rpartition("/")[2]
    if found.back and not found.whole and name not in found.services:
        return
    if result is None:
        yield f"{name}: the tree has no such service any more, the release has {wanted}"
    elif result.cause != telling.STOPPED and "revision" in result.details and result.details["unit"] != _key(told["unit"]):
        deployed = result.details.get("deployed") or {}
        since = f" since {deployed['at']}, by {deployed['by']}" if deployed.get("revision") == result.details["revision"] else ""
        yield f"{name}: {result.details['revision'] or 'nothing'} serves{since}, the release has {wanted}"


def _key(told: Mapping[str, Any]) -> str:
    """Return what tells the unit of a manifest apart."""
    model = told.get("model")
    unit = {**told, "model": UnitModel(**model) if isinstance(model, Mapping) else None}
    return Unit(**unit).key


def _row(result: Result) -> tuple[str, ...]:
    told = result.details
    since = f"{told['since']} by {told['by']}" + (", gone back to" if told["back"] else "")
    return (told["release"], str(told["commit"])[:8], since, ", ".join(told["services"]), telling.state(result))
