"""The smallest image that can run something: this machine's shell and the libraries that it loads, imported as one layer."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

IMAGE = "tiny:1"
_PROGRAMS = ("sh", "sleep", "cat", "echo", "mkdir", "rm")


def archive(file: Path) -> None:
    """Write a tar of a root file system that has a shell and `sleep`, `cat`, `echo`, `mkdir` and `rm`."""
    wanted = {Path(found).resolve(): f"bin/{name}" for name in _PROGRAMS if (found := shutil.which(name))}
    for program in list(wanted):
        linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/[^\s)]+)", linked):
            wanted.setdefault(Path(library), library.lstrip("/"))
    with tarfile.open(file, "w") as tar:
        for source, name in wanted.items():
            tar.add(source.resolve(), arcname=name)


def load(host: str, folder: Path, image: str = IMAGE) -> str:
    """Import the image into the engine at ``host``; return its name."""
    file = folder / "tiny.tar"
    archive(file)
    with file.open("rb") as stream:
        subprocess.run(["docker", "--host", host, "import", "-", image], stdin=stream, check=True, capture_output=True)
    return image
