"""A base image with Python and a shell and nothing else, a quarter of the usual one: to be pushed, pulled and scanned in a moment."""

from __future__ import annotations

import subprocess

from tests.support.sample_project import docker

# What the interpreter, its modules in C and the shell load, as `ldd` has it, wherever the image keeps its Python.
_DOCKERFILE = """FROM {base} AS whole
RUN set -eu; \\
    lib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'); \\
    program=$(readlink -f "$(command -v python3)"); \\
    mkdir -p /small/usr/bin /small/tmp; \\
    chmod 1777 /small/tmp; \\
    cp -r --parents "$lib" /small; \\
    cd "/small$lib"; \\
    rm -rf test idlelib tkinter ensurepip lib2to3 pydoc_data config-* site-packages dist-packages; \\
    ldd "$program" /bin/sh /bin/cat /bin/sleep "$lib"/lib-dynload/*.so | grep -o '/[^ ):]*' | sort -u > /loaded; \\
    xargs cp -L --parents -t /small "$program" /etc/ld.so.cache < /loaded; \\
    ln -s "$program" /small/usr/bin/python3
FROM scratch
COPY --from=whole /small /
"""


def push(engine: str, base: str, reference: str) -> str:
    """Make the image from ``base`` and push it as ``reference``, which is returned; the engine keeps it too."""
    command = ["docker", "-H", engine, "build", "-q", "-t", reference, "-"]
    subprocess.run(command, input=_DOCKERFILE.format(base=base).encode(), check=True, capture_output=True)
    docker(engine, "push", "-q", reference)
    return reference
