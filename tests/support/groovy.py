"""Groovy 2.4, the one that Jenkins embeds: Debian's package, on whatever Java this machine has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_PACKAGES = Path(__file__).parents[2] / "scripts" / "_packages"
_LIBRARIES = Path("/usr/share/java")
_DEADLINE = 300.0
_OPENED = ("java.lang", "java.lang.reflect", "java.util", "java.io", "java.net", "java.text")


def run(
    script: Path, *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end and return what it said; a code other than 0 is the caller's to judge.

    ``JAVA_HOME`` need not be set: the JVM of the machine is found, and Debian's start script, which asks for it, is not used.
    """
    return subprocess.run(
        command(script, *arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=_DEADLINE, check=False
    )


def command(script: Path, *arguments: str | Path) -> list[str]:
    """Return the command that runs a script; Groovy and a JVM are installed where they are missing."""
    home, libraries = _installed()
    opened = [word for package in _OPENED for word in ("--add-opens", f"java.base/{package}=ALL-UNNAMED")]
    java = [str(home / "bin" / "java"), "-Xshare:auto", "-XX:TieredStopAtLevel=1", *opened, "-cp", libraries]
    return [*java, "groovy.ui.GroovyMain", str(script), *map(str, arguments)]


@cache
def _installed() -> tuple[Path, str]:
    """Return the home of a JVM and the class path of Groovy 2.4."""
    if _java() is None or not _jars():
        subprocess.run([_PACKAGES, "groovy", "default-jre-headless"], check=True, capture_output=True, timeout=1800)
    home, jars = _java(), _jars()
    assert home is not None, "Java is missing: install the package default-jre-headless"
    assert jars, "Groovy 2.4 is missing: install the package groovy"
    return home, ":".join(map(str, jars))


def _java() -> Path | None:
    """Return the home of a Java: what JAVA_HOME says, else one below /usr/lib/jvm. Groovy 2.4 needs the packages opened from 9 on."""
    named = os.environ.get("JAVA_HOME", "")
    homes = [*([Path(named)] if named else []), *sorted(Path("/usr/lib/jvm").glob("*"))]
    return next((home for home in homes if (home / "bin" / "java").is_file()), None)


def _jars() -> list[Path]:
    return sorted(_LIBRARIES.glob("groovy-all-2.4.*.jar"))[-1:]
