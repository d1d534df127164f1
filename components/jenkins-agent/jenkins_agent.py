#!/usr/bin/env python3
"""Fetch agent.jar from the controller and become it: an inbound agent over WebSocket. Its secret is on no command line.

JENKINS_URL            address of the controller, with its prefix
JENKINS_AGENT_NAME     the node's name there
JENKINS_SECRET_FILE    file with the node's secret; or JENKINS_SECRET, the secret itself
JENKINS_AGENT_WORKDIR  folder of workspaces and caches; default /home/jenkins/agent
JENKINS_AGENT_WAIT     seconds to wait for a controller that does not answer yet; default 300
JENKINS_JAVA_OPTS      options of the JVM
JENKINS_CA             PEM file to trust beside the system's certificates
"""

from __future__ import annotations

import http.client
import io
import os
import shlex
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

DEFAULT_WORKDIR = "/home/jenkins/agent"
DEFAULT_WAIT = "300"
PAUSE_SECONDS = 2.0
REQUEST_SECONDS = 60.0
NOT_YET = (429, 500, 502, 503, 504)  # what a controller, or the proxy before it, answers while it starts


class Failure(Exception):
    """What keeps the agent from starting: a message, what to do next, the exit code."""

    def __init__(self, message: str, next_step: str, code: int) -> None:
        super().__init__(message)
        self.next_step = next_step
        self.code = code


class NotYet(Exception):
    """The controller does not answer yet."""


def main() -> int:
    """Become the agent; return an exit code only when that fails."""
    try:
        command = prepare(os.environ)
    except Failure as failure:
        print(f"error: {failure}\nnext: {failure.next_step}", file=sys.stderr)
        return failure.code
    kept = {name: value for name, value in os.environ.items() if name != "JENKINS_SECRET"}  # builds inherit the rest
    print(f"starting: {shlex.join(command)}", file=sys.stderr, flush=True)
    os.execvpe(command[0], command, kept)  # noqa: S606 - an argument list, never a shell
    raise AssertionError("exec does not return")


def prepare(variables: Mapping[str, str]) -> list[str]:
    """Return the agent's command, with everything it names in place.

    Raises:
        Failure: a variable is missing or wrong, or the controller does not give its agent.jar.
    """
    needed(variables)
    url = variables["JENKINS_URL"].rstrip("/") + "/"
    folder = Path(variables.get("JENKINS_AGENT_WORKDIR") or DEFAULT_WORKDIR)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Failure(f"JENKINS_AGENT_WORKDIR: {folder} is no folder that user {os.getuid()} may write to", "Give it to that user.", 2)
    secret = secret_file(variables, folder)
    authority = authorities(variables)
    jar = folder / "agent.jar"
    write(jar, fetched(url + "jnlpJars/agent.jar", authority, patience(variables)), 0o644)
    trust = ["-cert", f"@{authority}"] if authority else []
    options = shlex.split(variables.get("JENKINS_JAVA_OPTS", ""))
    agent = ["-url", url, "-name", variables["JENKINS_AGENT_NAME"], "-secret", f"@{secret}", "-webSocket", "-workDir", str(folder)]
    return ["java", *options, "-jar", str(jar), *agent, *trust]


def needed(variables: Mapping[str, str]) -> None:
    """Raise for all variables that are missing at once."""
    missing = [name for name in ("JENKINS_URL", "JENKINS_AGENT_NAME") if not variables.get(name)]
    if not variables.get("JENKINS_SECRET_FILE") and not variables.get("JENKINS_SECRET"):
        missing.append("JENKINS_SECRET_FILE (or JENKINS_SECRET)")
    if missing:
        raise Failure(f"not set: {', '.join(missing)}", "Set them; the controller's page of the node shows the values.", 2)
    if not variables["JENKINS_URL"].startswith(("http://", "https://")):
        raise Failure(f"JENKINS_URL: expected http:// or https://, not {variables['JENKINS_URL']!r}", "Give the controller's address.", 2)


def patience(variables: Mapping[str, str]) -> float:
    """Return how many seconds to wait for the controller."""
    told = variables.get("JENKINS_AGENT_WAIT") or DEFAULT_WAIT
    try:
        return float(told)
    except ValueError:
        raise Failure(f"JENKINS_AGENT_WAIT: expected seconds, not {told!r}", "Give a number.", 2) from None


def authorities(variables: Mapping[str, str]) -> str:
    """Return the PEM file to trust, empty where none is named."""
    file = variables.get("JENKINS_CA", "")
    if file and not os.access(file, os.R_OK):
        raise Failure(f"JENKINS_CA: {file} cannot be read", "Mount the file, readable for this user.", 2)
    return file


def secret_file(variables: Mapping[str, str], folder: Path) -> Path:
    """Return the file that holds the secret; one given as a variable is written to a private file."""
    named = variables.get("JENKINS_SECRET_FILE", "")
    if named:
        try:
            held = Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"JENKINS_SECRET_FILE: {named} cannot be read: {error}", "Mount the file, readable for this user.", 2) from error
        if not held:
            raise Failure(f"JENKINS_SECRET_FILE: {named} is empty", "Put the node's secret into it.", 2)
        return Path(named)
    file = folder / ".agent-secret"
    write(file, variables["JENKINS_SECRET"].encode(), 0o600)
    return file


def write(file: Path, content: bytes, mode: int) -> None:
    """Write a file beside its place and rename it: a reader finds all of it or the old one."""
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    with open(beside, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as out:
        out.write(content)
    beside.replace(file)


def fetched(url: str, authority: str, wait: float) -> bytes:
    """Return the jar behind an address; a controller that does not answer yet is waited for.

    Raises:
        Failure: it never answered, or answered with something else than a jar.
    """
    ends = time.monotonic() + wait
    while True:
        try:
            return answer(url, authority)
        except NotYet as reason:
            if time.monotonic() >= ends:
                message = f"{url} did not answer within {wait:g} s: {reason}"
                raise Failure(message, "See that the controller runs and that this machine reaches it.", 5) from None
            print(f"waiting for {url}: {reason}", file=sys.stderr, flush=True)
            time.sleep(min(PAUSE_SECONDS, max(0.0, ends - time.monotonic())))


def answer(url: str, authority: str) -> bytes:
    """Ask once."""
    context = ssl.create_default_context()
    if authority:
        context.load_verify_locations(authority)
    try:
        with urllib.request.urlopen(url, timeout=REQUEST_SECONDS, context=context) as response:  # noqa: S310 - http(s), see needed()
            content: bytes = response.read()
    except urllib.error.HTTPError as error:
        if error.code in NOT_YET:
            raise NotYet(f"HTTP {error.code}") from error
        raise Failure(f"{url} answered with HTTP {error.code}", "See that JENKINS_URL is the controller's own root address.", 1) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Failure(f"{url}: its certificate is not trusted: {reason}", "Name the authority's PEM file in JENKINS_CA.", 1) from error
        raise NotYet(f"{reason}") from error
    if not is_agent(content):
        start = content[:60].decode(errors="replace").strip()
        message = f"{url} is no agent.jar: {len(content)} bytes that start with {start!r}"
        raise Failure(message, "See that no log-in page or proxy answers in the controller's place.", 1)
    return content


def is_agent(content: bytes) -> bool:
    """Tell whether the bytes are a jar that can be run."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as jar:
            return b"Main-Class:" in jar.read("META-INF/MANIFEST.MF")
    except (zipfile.BadZipFile, KeyError):
        return False


if __name__ == "__main__":
    sys.exit(main())
