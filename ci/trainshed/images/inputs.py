"""Input digests: one number over everything that can change an image, and words for what changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainshed.images.components import Component
from trainshed.images.context import ContextFile, context_files, files_of
from trainshed.images.dockerfile import SCRATCH, TEST_STAGE
from trainshed.images.graph import base_argument
from trainshed.images.hashes import HashCache
from trainshed.images.references import Digest

RULES = 1
"""Raised whenever the same inputs would make another image, so that every image is built anew."""
PREDEFINED = frozenset(f"{name}_PROXY" for name in ("HTTP", "HTTPS", "FTP", "NO", "ALL"))
"""Build arguments that are the machine's and that builders keep out of their own cache keys; any case."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The digest, and the record that it was taken over (values of build arguments only as digests)."""

    digest: Digest
    manifest: Mapping[str, Any]


def image_inputs(  # noqa: PLR0913 - each is an input of its own
    component: Component,
    *,
    args: Mapping[str, str],
    platforms: Iterable[str],
    secrets: Iterable[str],
    bases: Mapping[str, Digest],
    hashes: HashCache,
) -> Inputs:
    """Take the inputs of an image, from the folder as it is now.

    Args:
        component: what to look at.
        args: the project's build arguments, the component's own are laid over; those that the needed stages do not declare, those
            of own bases and proxies do not count.
        platforms: such as ``linux/amd64``.
        secrets: names of the build secrets on offer; those that are not mounted do not count.
        bases: digests by the keys of `Graph.image_bases`; others do not count.
        hashes: where digests of files come from.

    Raises:
        UsageError: the context is broken, see `context_files`.
        ValueError: a base's digest is missing.
    """
    dockerfile = component.dockerfile
    args = {**args, **component.settings.args}
    owners = {base_argument(key): key for key in bases if "/" not in key}
    manifest = {
        "rules": RULES,
        "dockerfile": hashes.digest(str(dockerfile.path)),
        "target": dockerfile.final.target,
        "platforms": sorted(platforms),
        "files": _files(context_files(component, target=None), hashes),
        "args": _args(args, dockerfile.arguments(None).difference(owners)),
        "bases": _bases(component, args, owners, bases),
        "secrets": sorted(dockerfile.secrets(None).intersection(secrets)),
    }
    return Inputs(digest=digest_of(manifest), manifest=manifest)


def check_inputs(component: Component, *, hashes: HashCache, args: Mapping[str, str] | None = None, extra: Mapping[str, Any]) -> Digest:
    """Return the digest of what the test check adds to the image.

    That is: what only the test stage reads, ``structure-test.yaml``, the settings of tests, the build arguments that only the test stage
    declares, and whatever the caller adds (any JSON).
    """
    dockerfile, document = component.dockerfile, dict[str, Any](extra=dict(extra))
    if component.has_tests:
        image = {stage.index for stage in dockerfile.needed(None)}
        stages = [stage for stage in dockerfile.needed(TEST_STAGE) if stage.index not in image]
        document["dockerfile"] = hashes.digest(str(dockerfile.path))
        document["files"] = _files(files_of(component, stages), hashes)
        more = dockerfile.arguments(TEST_STAGE) - dockerfile.arguments(None)
        document["args"] = _args({**(args or {}), **component.settings.args}, more)
    if component.structure_test is not None:
        document["structure-test"] = hashes.digest(str(component.structure_test))
    settings = asdict(component.settings)
    document["settings"] = {name: settings[name] for name in ("network", "test_timeout", "memory")}
    return digest_of(document)


def digest_of(document: Any) -> Digest:  # noqa: ANN401 - any JSON document
    """Return the digest of a JSON document; the order of keys does not count."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def changes(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two manifests, a phrase each: ``changed: src/train.py``, ``base base-python moved``."""
    if old is None:
        return ["first build"]
    found = list(_file_changes(old.get("files", {}), new["files"]))
    for key, phrase in (("dockerfile", "changed: Dockerfile"), ("target", "another target stage"), ("platforms", "another platform")):
        if old.get(key) != new[key] and phrase not in found:
            found.append(phrase)
    for change, name in _differences(old.get("bases", {}), new["bases"]):
        found.append(f"base {name} {'moved' if change == 'changed' else change}")
    found += [f"build argument {name} {change}" for change, name in _differences(old.get("args", {}), new["args"])]
    offered = (dict.fromkeys(manifest.get("secrets", ())) for manifest in (old, new))
    found += [f"build secret {name} {change}" for change, name in _differences(*offered)]
    if old.get("rules") != new["rules"]:
        found.append("other rules for what counts as an input")
    return found


def _files(files: Iterable[ContextFile], hashes: HashCache) -> dict[str, str]:
    found = {}
    for file in files:
        if file.kind == "file":
            found[file.path] = f"{'755' if file.executable else '644'} {hashes.digest(file.location, file.status)}"
        else:
            found[file.path] = f"link -> {file.target}" if file.kind == "link" else "dir"
    return found


def _args(args: Mapping[str, str], counted: Iterable[str]) -> dict[str, Digest]:
    # As digests: a secret that somebody passes as an argument against all advice must not stand in the record as well.
    return {name: digest_of(args[name]) for name in sorted(counted) if name in args and name.upper() not in PREDEFINED}


def _bases(component: Component, args: Mapping[str, str], owners: Mapping[str, str], bases: Mapping[str, Digest]) -> dict[str, Digest]:
    dockerfile, found = component.dockerfile, dict[str, Digest]()
    for external in dockerfile.externals(dockerfile.needed(None)):
        key = owners.get(external.argument or "") or dockerfile.resolve(external, args)
        if key == SCRATCH:
            continue
        if key not in bases:
            raise ValueError(f"{component.name}: no digest for the base {key}")
        found[key] = bases[key]
    return found


def _file_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    gone = {entry: path for path, entry in old.items() if path not in new}
    moved = set()
    for change, path in _differences(old, new):
        if change == "added" and new[path] in gone and new[path] != "dir":
            moved.add(gone[new[path]])
            yield f"moved: {gone[new[path]]} → {path}"
        elif change == "changed" and old[path][:3] != new[path][:3] and old[path][3:] == new[path][3:]:
            yield f"{'made executable' if new[path].startswith('755') else 'no longer executable'}: {path}"
        elif change != "removed" or path not in moved:
            yield f"{change}: {path}"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what changed, was added and was removed, in this order, each sorted by name."""
    changed = [("changed", name) for name in sorted(new) if name in old and old[name] != new[name]]
    added = [("added", name) for name in sorted(new) if name not in old]
    return [*changed, *added, *(("removed", name) for name in sorted(old) if name not in new)]
