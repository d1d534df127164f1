"""What builds of images and of their test stages share: context, secrets, arguments, the order to the builder."""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainshed import files, masking, settings
from trainshed.errors import UsageError, WorkFailed
from trainshed.images.archive import write_context
from trainshed.images.components import Component
from trainshed.images.context import context_files
from trainshed.images.graph import base_argument
from trainshed.stages.context import Context
from trainshed.tools import apt, process
from trainshed.tools.builder import Order
from trainshed.values import Secret

PIP_SECRET, CA_SECRET, APT_SECRET = "pip", "ca", "apt"
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries", "no-index", "find-links", "prefer-binary")
_PIP_FILES = (Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"))
_CA_FILES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"), Path("/etc/ssl/ca-bundle.pem"))
_URL = re.compile(r"[a-z+]+://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one build takes: the Dockerfile's text and target, the arguments on offer, the images behind own bases, all that is pulled."""

    text: str
    target: str | None
    tag: str
    arguments: Mapping[str, str]
    own: Mapping[str, str]
    pulled: Collection[str] = ()


def make(context: Context, component: Component, recipe: Recipe, *, log: Path) -> None:
    """Build what the recipe says; the image is then in the engine under the recipe's tag.

    Raises:
        WorkFailed: the build failed or took too long.
        UsageError: the context or a secret is not there.
    """
    text = recipe.text if recipe.target else _up_to_the_image(component, recipe.text)
    with files.scratch(context.config.project.state, "context") as scratch:
        archive = scratch / "context.tar"
        with archive.open("wb") as out:
            write_context(context_files(component, target=recipe.target), text, out)
        with _secrets(
            component.dockerfile.secrets(recipe.target), context.config.build.secrets, scratch, context.config.project.root
        ) as found:
            logins = context.tokens([*recipe.own.values(), *recipe.pulled])
            masked = [*_masked(found), *(login.password for login in logins.values())]
            for text in masked:
                context.console.add_secret(text)
            order = Order(
                context=archive,
                dockerfile="Dockerfile",
                target=recipe.target,
                tag=recipe.tag,
                args=_declared(component, recipe),
                secrets=found,
                masked=masked,
                logins=logins,
                platform=context.config.build.platforms[0],
                log=log,
                timeout=component.settings.build_timeout,
            )
            try:
                context.builder.build(order)
            except process.ProcessFailed as error:
                raise _failed(component, recipe.target, error) from error


def _up_to_the_image(component: Component, text: str) -> str:
    """Cut the stages behind the image's, which then needs no name: older builders find a nameless stage only as the last one."""
    stages, final = component.dockerfile.stages, component.dockerfile.final
    later = stages[final.index + 1 :]
    return "\n".join(text.split("\n")[: later[0].line - 1]) + "\n" if later else text


def _failed(component: Component, target: str | None, error: process.ProcessFailed) -> WorkFailed:
    what = f"the stage '{target}'" if target else "the image"
    outcome = error.outcome
    how = f"took longer than {component.settings.build_timeout:g} s" if outcome.timed_out else f"failed (code {outcome.code})"
    said = [line.strip() for line in outcome.output.splitlines() if line.strip()]
    last = f": {said[-1][:300]}" if said and not outcome.timed_out else ""
    return WorkFailed(f"{component.dockerfile.path}: the build of {what} {how}{last}", next_step="See the log.")


def _declared(component: Component, recipe: Recipe) -> dict[str, str]:
    """Return the arguments that the Dockerfile declares; a builder warns of others."""
    declared = component.dockerfile.arguments(recipe.target)
    bases = {base_argument(name): reference for name, reference in recipe.own.items()}
    return {name: value for name, value in {**recipe.arguments, **bases}.items() if name in declared}


@contextmanager
def _secrets(wanted: Iterable[str], configured: Mapping[str, Secret], scratch: Path, root: Path) -> Iterator[dict[str, Path]]:
    """Yield a file for each secret that is mounted and known here; what is written for it lives no longer than the build."""
    found: dict[str, Path] = {}
    for name in sorted(wanted):
        content = _content(name, configured.get(name), root)
        if content is not None:
            path = scratch / f"secret-{len(found)}"
            files.write_bytes(path, content, mode=0o600)
            found[name] = path
    yield found


def _masked(secrets: Mapping[str, Path]) -> list[str]:
    """Return what neither log nor console may show of what the build is told: its secrets, and the log-ins of proxies."""
    found = [text for file in secrets.values() for text in masking.texts(file.read_bytes().decode(errors="replace"))]
    return [*found, *(text for proxy in settings.proxies().values() for text in masking.logins(proxy))]


def _content(name: str, secret: Secret | None, root: Path) -> bytes | None:
    if secret is not None and secret.env:
        value = settings.variable(secret.env)
        if value is None:
            raise UsageError(f"build.secrets.{name}: the variable {secret.env} is not set", next_step=f"Set {secret.env}.")
        return value.encode()
    if secret is not None:
        file = root / Path(secret.file).expanduser()
        try:
            return file.read_bytes()
        except OSError as error:
            message = f"build.secrets.{name}: {file} cannot be read: {error.strerror}"
            raise UsageError(message, next_step="Put the file there, or change build.secrets.") from error
    if name == PIP_SECRET:
        return pip_configuration().encode()
    if name == APT_SECRET:
        return apt.configuration().encode() or None
    if name == CA_SECRET:
        bundle = settings.ca_bundle() or next((file for file in _CA_FILES if file.is_file()), None)
        return bundle.read_bytes() if bundle is not None else None
    return None


def pip_configuration() -> str:
    """Return this machine's pip settings that hold in a container too, as a ``pip.conf``: indexes and proxies, no local paths."""
    variables = settings.pip_settings()
    named = variables.get("PIP_CONFIG_FILE", "")
    homes = (settings.home() / ".pip" / "pip.conf", settings.home() / ".config" / "pip" / "pip.conf")
    merged: dict[str, str] = {}
    for file in (*_PIP_FILES, *homes, *([Path(named)] if named else [])):
        merged.update(_pip_file(file))
    for key in _PIP_KEYS:
        value = variables.get(f"PIP_{key.upper().replace('-', '_')}")
        if value:
            merged[key] = value
    merged = {key: _reachable(key, value) for key, value in merged.items()}
    parser = configparser.RawConfigParser()
    parser["global"] = {key: value for key, value in merged.items() if value}
    out = io.StringIO()
    parser.write(out)
    return out.getvalue()


def _pip_file(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return {}  # pip itself complains about a broken file of this machine; it is not ours to mend
    sections = [parser[name] for name in ("global", "install") if parser.has_section(name)]
    return {key: section[key] for section in sections for key in _PIP_KEYS if key in section}


def _reachable(key: str, value: str) -> str:
    """Leave out what names a folder of this machine: no container has it."""
    words = value.split()
    return " ".join(word for word in words if _URL.match(word)) if key.endswith("-url") or key == "find-links" else " ".join(words)
