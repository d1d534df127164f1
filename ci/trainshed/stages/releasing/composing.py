"""The manifest of a release: composed from its plan and what its steps told, kept in the ledger under its digest, and found again."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from trainshed.errors import UsageError, WorkFailed, suggestion
from trainshed.findings import model as findings
from trainshed.findings import waivers as waivers_of
from trainshed.findings.policy import covers
from trainshed.ledger.records import Verdict
from trainshed.pipelines import lock as locks
from trainshed.pipelines.lock import Lock
from trainshed.releases import commits
from trainshed.releases import manifest as manifests
from trainshed.releases.manifest import Change, Image, Manifest, Pipeline, Previous, Run, Service, Waiver
from trainshed.releases.plan import Plan
from trainshed.stages import locking, versioning
from trainshed.stages.context import Context
from trainshed.stages.launching import history
from trainshed.stages.releasing import current, journal, promoting, uploading
from trainshed.stages.releasing.journal import Entry
from trainshed.stages.releasing.room import Room
from trainshed.stages.versioning import Unit
from trainshed.tools import git, git_tags

KIND = "release-manifest"
Done = Mapping[str, Sequence[Mapping[str, Any]]]
"""The documents of each step's results, by the step."""
_UPLOADED = ("pipeline", "pipeline_id", "version", "version_id", "content_digest")
_DEPLOYED = ("service", "revision", "arn", "unit", "digest", "model", "golden", "definition")
_SHOWN = 10


def manifest(room: Room, plan: Plan, done: Done) -> Manifest:
    """Compose the manifest of a release whose images, pipelines and services are in production.

    Times are the plan's, and what is asked (the ledger, git, the waivers) is asked as of the plan: the same plan and results give the
    same bytes, whoever composes them.

    Args:
        room: of the release.
        plan: of the release.
        done: each step that is done, with the documents of its results.

    Raises:
        WorkFailed: production's lock, or what a step told, is not what was planned.
    """
    return _composed(room, plan, _promoted(room, plan), done)


def foreseen(room: Room, plan: Plan) -> Manifest:
    """Return what the manifest would be, as far as that is known before anything is done: for a dry run's notes, never to be kept."""
    lock = promoting.moved_to(locking.part(room.here, plan.locked, plan.components), room.there.repository_prefix)
    unknown: dict[str, Any] = {**dict.fromkeys(_DEPLOYED, ""), "unit": {}, "definition": {}}
    deployed = [
        {**unknown, "name": name, "service": name, "digest": lock.images[name].digest, "model": plan.models.get(name)}
        for name in plan.services
    ]
    uploaded = [{"name": name, "version": uploading.version_name(plan.version(name).version)} for name in plan.pipelines]
    return _composed(room, plan, lock, {"upload": uploaded, "deploy": deployed})


def _composed(room: Room, plan: Plan, lock: Lock, done: Done) -> Manifest:
    before = previous(room.there, plan)
    return Manifest(
        release=plan.name,
        versions=plan.versions,
        project=plan.project,
        commit=plan.commit,
        branch=plan.branch,
        source=plan.source,
        target=plan.target,
        created=plan.created,
        by=plan.by,
        build_url=plan.by if plan.by.startswith(("http://", "https://")) else None,
        lock_digest=plan.lock_digest,
        lock=lock.document(),
        images=_images(lock, before),
        pipelines={name: _pipeline(name, _told(plan, done, "upload", name)) for name in plan.pipelines},
        services={name: _service(_told(plan, done, "deploy", name)) for name in plan.services},
        runs=_runs(room.there, plan),
        waivers=_waivers(room.there, plan, lock),
        changes=_changes(room.here, plan),
        previous=_previous(before),
    )


def keep(context: Context, composed: Manifest) -> str:
    """Keep a manifest in the ledger; return the digest that it is found by."""
    content = composed.content()
    manifests.load(content, place=f"the manifest of release {composed.release}")  # nothing is kept that could not be read
    digest = _digest(content)
    if context.ledger.attachment(digest, KIND) != content:
        context.ledger.attach(digest, KIND, content)
    return digest


def of(context: Context, digest: str) -> Manifest:
    """Return the manifest that was kept under a digest.

    Raises:
        WorkFailed: there is none, or not the one that the digest is of.
        UsageError: it is of a newer Trainshed.
    """
    content = context.ledger.attachment(digest, KIND) if digest else None
    if content is None:
        raise WorkFailed(f"the ledger has no manifest {digest or 'of this release'}", next_step="Name the file of the manifest instead.")
    if _digest(content) != digest:
        raise WorkFailed(
            f"the ledger's manifest {digest} was changed: its content has another digest", next_step="Tell who runs the ledger."
        )
    return manifests.load(content, place=f"manifest {digest}")


def find(context: Context, name: str) -> Manifest:
    """Return the manifest of a release of this project in the environment, whole or decided.

    Args:
        context: the command's room, of the environment that the release went to.
        name: a version (``1.4.0``), a tag (``v1.4.0``, ``predictor/v1.4.0``), the name of a release, the digest of its manifest, or
            the file that it was written to.

    Raises:
        UsageError: no release is called so, or several are; the file is no manifest, or of another project or environment.
        WorkFailed: the ledger has lost it.
    """
    file = Path(name)
    if file.suffix == ".json" or file.is_file():
        return _of_here(context, manifests.read(file), place=name)
    known = [entry for entry in journal.entries(context) if entry.decided and entry.state != journal.UNDONE and entry.manifest]
    found = [entry for entry in known if name.strip() in _names(entry)]
    if len(found) == 1:
        return of(context, found[0].manifest)
    if found:
        several = ", ".join(tag for entry in found for tag in entry.plan.tags)
        raise UsageError(f"release {name}: there are several: {several}", next_step="Name it by its tag.")
    raise _unknown(context, name, known)


def previous(context: Context, plan: Plan) -> Entry | None:
    """Return the release that was in force before this one: the last, or the one that somebody went back to since, wholly.

    Where pipelines and services have versions of their own, it is the last that has any of the same.
    """
    if any(each.unit for each in plan.versions):
        return journal.last_released(context, (*plan.pipelines, *plan.services))
    last, force = journal.last_released(context), current.in_force(context)
    if force is None or not force.back or not force.whole:
        return last
    return next((entry for entry in journal.entries(context) if entry.manifest == force.manifest), last)


# --- the parts ------------------------------------------------------------------------------------------------------------------------


def _promoted(room: Room, plan: Plan) -> Lock:
    """Return production's lock, which `promote` has written."""
    path = locking.path(room.there)
    lock, planned = locks.read(path), plan.locked
    same = all(name in planned.images and planned.images[name].digest == image.digest for name, image in lock.images.items())
    if not same or not set(plan.components) <= set(lock.images):
        message = f"{room.there.config.project.shown(path)}: not the images that release {plan.name} was planned with"
        raise WorkFailed(message, next_step="Run `trainshed release` again: it goes on with the release.")
    return lock


def _images(lock: Lock, before: Entry | None) -> dict[str, Image]:
    known = before.plan.locked.images if before is not None else {}
    return {
        name: Image(
            reference=image.reference,
            digest=image.digest,
            input_digest=image.input_digest,
            before=known[name].digest if name in known else "",
        )
        for name, image in sorted(lock.images.items())
    }


def _told(plan: Plan, done: Done, step: str, name: str) -> Mapping[str, Any]:
    found = next((told for told in done.get(step, ()) if told.get("name") == name), None)
    if found is None:
        message = f"release {plan.name}: step {step} told nothing of {name}"
        raise WorkFailed(message, next_step="Run `trainshed release` again.")
    return found


def _pipeline(name: str, told: Mapping[str, Any]) -> Pipeline:
    facts = {key: str(told.get(key) or "") for key in _UPLOADED}
    return cast(Pipeline, {**facts, "pipeline": facts["pipeline"] or name})


def _service(told: Mapping[str, Any]) -> Service:
    return cast(Service, {key: told[key] for key in _DEPLOYED})


def _runs(context: Context, plan: Plan) -> dict[str, Run]:
    """Return the runs of the models, as the environments that accepted them keep them."""
    wanted = {model["run_id"]: model["environment"] for model in plan.models.values() if model.get("run_id")}
    return {run_id: _run(context, run_id, environment) for run_id, environment in sorted(wanted.items())}


def _run(context: Context, run_id: str, environment: str) -> Run:
    """Return a run by its last record that accepted it."""
    events = context.ledger.events(history.EVENT, environment, key=run_id)
    event = next((each for each in events if each.document.get("good") is True), next(iter(events), None))
    told: Mapping[str, Any] = event.document if event is not None else {}
    return Run(
        pipeline=event.name if event is not None else "",
        environment=environment,
        version=str(told.get("version") or ""),
        version_id=str(told.get("version_id") or ""),
        parameters=dict(told.get("parameters") or {}),
        metrics=dict(told.get("metrics") or {}),
        artifacts=dict(told.get("artifacts") or {}),
        gates=list(told.get("gates") or ()),
    )


def _waivers(context: Context, plan: Plan, lock: Lock) -> list[Waiver]:
    """Return production's waivers that were in force when the release was planned and that a finding of its images needs."""
    config = context.config
    day = dt.date.fromisoformat(plan.created[:10])
    in_force = [each for each in waivers_of.load(config.scan.waivers, place=config.waivers_place) if each.expires >= day]
    scanned = _scans(context, [image.digest for image in lock.images.values()]) if in_force else {}
    found = {name: scanned[image.digest] for name, image in sorted(lock.images.items()) if image.digest in scanned}
    used = [
        (waiver, [name for name, seen in found.items() if any(covers(waiver, finding, name) for finding in seen)]) for waiver in in_force
    ]
    return [
        Waiver(
            id=waiver.id,
            owner=waiver.owner,
            reason=waiver.reason,
            expires=waiver.expires.isoformat(),
            days=(waiver.expires - day).days,
            package=waiver.package,
            components=components,
        )
        for waiver, components in sorted(used, key=lambda pair: (pair[0].expires, pair[0].id, pair[0].package, pair[1]))
        if components
    ]


def _scans(context: Context, digests: Iterable[str]) -> dict[str, list[findings.Finding]]:
    """Return what the newest scan of each image found."""
    newest: dict[str, Verdict] = {}
    for (digest, check, _), verdict in context.ledger.verdicts(digests).items():
        if check == "scan" and (digest not in newest or verdict.created > newest[digest].created):
            newest[digest] = verdict
    return {digest: [findings.from_document(told) for told in verdict.findings] for digest, verdict in newest.items()}


def _changes(context: Context, plan: Plan) -> dict[str, list[Change]]:
    """Return what came with each unit's version, by the commits since its last."""
    root = context.config.project.root
    paths = {unit.name: [os.path.relpath(path, root) for path in unit.paths] for unit in _units(context, plan)}
    found = {}
    for each in plan.versions:
        told = git_tags.history(root, _since(context, each.previous), plan.commit, paths[each.unit])
        found[each.unit] = [
            Change(commit=one.commit.id, type=one.type, scope=one.scope, text=one.text, breaking=one.breaking)
            for one in commits.changes(told)
        ]
    return found


def _units(context: Context, plan: Plan) -> list[Unit]:
    """Return what got a version."""
    names = [each.unit for each in plan.versions if each.unit]
    return versioning.units(context, names) if names else [Unit(name="")]


def _since(context: Context, tag: str) -> str | None:
    """Return the commit of the last release's tag, from where `versioning` may have it; None for the first release."""
    if not tag:
        return None
    root = context.config.project.root
    commit = git.commit_of(root, f"refs/tags/{tag}")
    if commit is None:
        remote = versioning.remote(context)
        commit = git_tags.remote_tags(root, remote).get(tag) if remote is not None else None
    if commit is None:
        raise WorkFailed(f"tag {tag} of the last release is gone meanwhile", next_step="Put it back where it was.")
    return commit


def _previous(entry: Entry | None) -> Previous | None:
    if entry is None:
        return None
    return Previous(release=entry.plan.name, tags=entry.plan.tags, manifest=entry.manifest, commit=entry.plan.commit)


# --- finding again --------------------------------------------------------------------------------------------------------------------


def _names(entry: Entry) -> set[str]:
    versions = entry.plan.versions
    spelled = {f"{each.unit} {each.version}".strip() for each in versions} | {each.version for each in versions}
    plain = {f"v{each.version}" for each in versions}
    return {entry.plan.name, entry.manifest, *entry.plan.tags, *spelled, *plain}


def _of_here(context: Context, found: Manifest, *, place: str) -> Manifest:
    own = (context.config.project.name, context.config.environment.name)
    if (found.project, found.target) != own:
        message = f"{place}: the manifest of a release of {found.project} to {found.target}, not of {own[0]} to {own[1]}"
        raise UsageError(message, next_step="Name the environment that it went to with --env.")
    return found


def _unknown(context: Context, name: str, known: Sequence[Entry]) -> UsageError:
    tags = [tag for entry in known for tag in entry.plan.tags]
    told = f"; known: {', '.join(tags[:_SHOWN])}" if tags else "; none is known"
    message = f"release {name}: there is none in {context.config.environment.name}{suggestion(name, tags)}{told}"
    return UsageError(message, next_step="Name one by its version or tag, or give the file of its manifest.")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
